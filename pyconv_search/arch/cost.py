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
from dataclasses import dataclass

from pyconv_search.arch import fold, network
from pyconv_search.arch.fold import COUNTS, LevelCost, Part
from pyconv_search.arch.memory import whole
from pyconv_search.arch.spec import Architecture
from pyconv_search.errors import UserError
from pyconv_search.fields import kind_of

__all__ = ["COUNTS", "Cost", "LevelCost", "Part", "cost"]


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


def cost(arch: Architecture) -> Cost:
    """The cost of ``arch`` for one image of its input size. Raises UserError if it is no Architecture."""
    if not isinstance(arch, Architecture):
        raise UserError(f"must be an Architecture, as preset(name) gives it, but got {kind_of(arch)}")
    body = [fold.stem(arch.family, arch.stem, arch.form, arch.input)]
    for i, stage in enumerate(arch.stages):
        before = body[-1]
        body.append(fold.stage(arch.family, stage, arch.form, i, before.part.size, before.jump))
    if final := fold.final(arch.family, arch.form, body[-1].part.size, body[-1].jump):
        body.append(final)
    last = len(arch.stages) - 1
    taps = [len(body) if i == last else 2 + i for i in network.taps(arch)]
    head = fold.head(arch.head, tuple(body[tap - 1].part.size for tap in taps), arch.classes, arch.input)
    parts = (*(found.part for found in body), head.part)
    sizes = [math.prod(arch.input), *(found.size for found in body)]
    peaks = whole([found.memory for found in body], sizes, head.memory, taps)
    params = macs = activations = reach = thop = executed = 0
    for part in parts:  # one loop: six sums would be half of the time that a network takes
        params += part.params
        macs += part.macs
        activations += part.activations
        reach += part.reach
        thop += part.thop
        executed += part.executed
    return Cost(params, macs, activations, 1 + reach, parts, thop, executed, *peaks)
