"""What a network costs, in closed form: exact integers, folded over its layers, without building a model.

Everything is for one image. ``params`` counts every trainable number: convolutions, two per batch-normalised channel,
linear layers, also those that are called in training only (an auxiliary head). ``macs``, ``thop`` and ``executed`` are
the conventions of :mod:`pyconv_search.arch.counting`. ``activations`` counts the output elements of all convolutions
and linear layers that are called in inference (Radosavovic et al. 2020).
``receptive_field`` is the theoretical one of the last feature map, in input pixels along the width, without attention
and global pooling; where basic blocks have groups narrower than their pattern it is an upper bound, since no channel
meets every dilation on its way.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from pyconv_search.arch import counting, network
from pyconv_search.arch.memory import Kept, chain, kept, whole
from pyconv_search.arch.spec import Architecture
from pyconv_search.arch.trace import Layer, Shape

COUNTS = ("params", "macs", "thop", "executed", "activations")


@dataclass(frozen=True, slots=True)
class LevelCost:
    """What one level of a part's pyramids costs, over all its blocks."""

    params: int
    macs: int


@dataclass(frozen=True, slots=True)
class Part:
    """The cost of one named part. ``size`` is its output, ``reach`` what it adds to the receptive field, in pixels.

    ``levels`` are those of the widest pyramid, bottom first; empty in parts without a convolution of several levels.
    """

    name: str
    params: int
    macs: int
    activations: int
    size: Shape
    thop: int
    executed: int
    reach: int
    levels: tuple[LevelCost, ...] = ()


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of a network, whole and by part (stem, stage1, …, head), for one image.

    ``inference_peak`` and ``training_peak`` count the numbers that are in memory at once
    (:mod:`pyconv_search.arch.memory`), ``pool_indices`` the positions that max poolings remember in training.
    """

    params: int
    macs: int
    activations: int
    receptive_field: int
    parts: tuple[Part, ...]
    thop: int
    executed: int
    inference_peak: int
    training_peak: int
    pool_indices: int

    @property
    def gmacs(self) -> float:
        """Multiply-adds in units of 10⁹."""
        return self.macs / 1e9

    def inference_bytes(self, batch: int = 1, itemsize: int = 4) -> int:
        """Peak activation memory of ``batch`` images in inference, in bytes of numbers of ``itemsize`` bytes."""
        return self.inference_peak * batch * itemsize

    def training_bytes(self, batch: int = 1, itemsize: int = 4) -> int:
        """Peak activation memory of ``batch`` images in training, in bytes of numbers of ``itemsize`` bytes."""
        return (self.training_peak * itemsize + self.pool_indices * 8) * batch

    def weight_bytes(self, itemsize: int = 4) -> int:
        """Bytes of the trainable numbers."""
        return self.params * itemsize


@dataclass(frozen=True, slots=True)
class _Folded:
    """A part's cost with ``reach`` in pixels of its own input, its stride, its memory and the elements it puts out."""

    part: Part
    stride: int
    memory: Kept
    size: int


def cost(arch: Architecture) -> Cost:
    """The cost of ``arch`` for one image of its input size."""
    *body, head = [_fold(part) for part in network.parts(arch)]
    parts, jump = [], 1
    for found in body:
        parts.append(found.part if jump == 1 else replace(found.part, reach=found.part.reach * jump))
        jump *= found.stride
    parts.append(head.part)
    taps = [len(body) if i == len(arch.stages) - 1 else 2 + i for i in network.taps(arch)]
    sizes = [math.prod(arch.input), *(found.size for found in body)]
    inference, training, indices = whole([found.memory for found in body], sizes, head.memory, taps)
    return Cost(
        params=sum(part.params for part in parts),
        macs=sum(part.macs for part in parts),
        activations=sum(part.activations for part in parts),
        receptive_field=1 + sum(part.reach for part in parts),
        parts=tuple(parts),
        thop=sum(part.thop for part in parts),
        executed=sum(part.executed for part in parts),
        inference_peak=inference,
        training_peak=training,
        pool_indices=indices,
    )


@lru_cache(maxsize=65536)
def _fold(part: network.Part) -> _Folded:
    totals, levels = [0] * len(COUNTS), Counter[tuple[int, str]]()
    reach, jump, links, sizes = 0, 1, [], []
    for unit in part.units:
        n = len(unit.names)
        totals = [total + n * own for total, own in zip(totals, _counts(unit.layers), strict=True)]
        for layer in unit.layers:
            levels[layer.level, "params"] += n * layer.params
            levels[layer.level, "macs"] += n * counting.macs(layer)
        links += [kept(unit.layers, unit.inputs, unit.output, unit.results)] * n
        if unit.output is not None:
            reach += n * (unit.output.field - 1) * jump
            jump *= unit.output.jump
            sizes += [unit.output.size] * n
    memory = chain(links, [part.units[0].inputs[0].size, *sizes])
    pyramid = tuple(
        LevelCost(levels[j, "params"], levels[j, "macs"]) for j in range(1, 1 + max(level for level, _ in levels))
    )
    cost = Part(part.name, **dict(zip(COUNTS, totals, strict=True)), size=part.shape, reach=reach, levels=pyramid)
    return _Folded(cost, jump, memory, math.prod(part.shape))


def _counts(layers: Sequence[Layer]) -> tuple[int, ...]:
    """What COUNTS names."""
    return (
        sum(layer.params for layer in layers),
        sum(counting.macs(layer) for layer in layers),
        counting.thop(layers),
        sum(counting.executed(layer) for layer in layers),
        sum(layer.output.size for layer in layers if layer.kind in ("conv", "linear") and not layer.training),
    )
