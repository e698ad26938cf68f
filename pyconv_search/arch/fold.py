"""The parts of a network folded to their costs, and how that is fast enough for millions of different networks.

The stages of a space differ mostly in their pyramids. So the layers of a stage are traced with a plain convolution of
the same width and reach in the pyramid's place, once for all pyramids, and what a pyramid costs more is added.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from pyconv_search.arch import counting, network
from pyconv_search.arch.families import FAMILIES
from pyconv_search.arch.heads.head import Head
from pyconv_search.arch.memory import Kept, chain, kept
from pyconv_search.arch.network import CLASSIFIER
from pyconv_search.arch.spec import Conv, Level, Stage, Stem
from pyconv_search.arch.trace import Layer, Shape, each

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
class Folded:
    """A part's cost, the distance in pixels of the image of two of its outputs, its memory, the elements it puts out.

    ``uses`` says of every time that a stage's convolution runs how many channels reach it and at how many positions.
    """

    part: Part
    jump: int
    memory: Kept
    size: int
    uses: tuple[tuple[int, int], ...]


@lru_cache(maxsize=4096)
def stem(family: str, stem: Stem, form: str, shape: Shape) -> Folded:
    """The stem on an image of ``shape``."""
    return folded(network.stem(family, stem, form, shape), 1)


@lru_cache(maxsize=4096)
def final(family: str, form: str, shape: Shape, jump: int) -> Folded | None:
    """What stands behind the last stage, if anything."""
    found = network.final(family, form, shape)
    return folded(found, jump) if found.units else None


@lru_cache(maxsize=4096)
def head(head: Head | None, features: tuple[Shape, ...], classes: int, image: Shape) -> Folded:
    """The head on the features that it taps."""
    return folded(network.head(head or CLASSIFIER, features, classes, image), 1)


@lru_cache(maxsize=65536)
def stage(family: str, stage: Stage, form: str, index: int, shape: Shape, jump: int) -> Folded:
    """Stage ``index`` (from 0) on features of ``shape`` that are ``jump`` pixels apart."""
    levels = stage.conv.levels
    in_width = FAMILIES[family].into(shape[0], index)
    reach = _reach(levels, min(in_width, stage.out, stage.conv.width))
    if not reach or stage.conv.width < len(levels):
        return folded(network.stage(family, stage, form, index, shape), jump)
    plain = _plain(
        (stage.block, stage.blocks, stage.conv.width, reach, len(levels) > 1),
        (stage.out, stage.stride, stage.shortcut, stage.time_stride, stage.se, stage.non_local, stage.keeps_pool),
        (family, form, index, shape, jump),
    )
    return _with_pyramid(plain, levels, reach + 1)


def _reach(levels: Sequence[Level], channels: int) -> int:
    """How many pixels the levels reach beyond the centre, both sides together, if ``channels`` or more reach them.

    0 where that depends on how many: where a group has fewer channels than the pattern has dilations.
    """
    reach = 0
    for level in levels:
        t = len(level.pattern)
        if t > 1 and min(channels, level.width) // level.groups < t:
            return 0
        side = level.kernel if isinstance(level.kernel, int) else level.kernel[-1]
        reach = max(reach, (side - 1) * max(level.pattern))
    return reach


@lru_cache(maxsize=65536)
def _plain(
    conv: tuple[str, int, int, int, bool],
    settings: tuple[object, ...],
    place: tuple[str, str, int, Shape, int],
) -> Folded:
    """The stage with a plain convolution in place of its pyramid; of two levels where that has several."""
    block, blocks, width, reach, several = conv
    family, form, index, shape, jump = place
    widths = (1, width - 1) if several else (width,)
    levels = tuple(Level(reach + 1, own) for own in widths)
    stage = Stage(block, blocks, Conv(levels), *settings)  # type: ignore[arg-type]
    return folded(network.stage(family, stage, form, index, shape), jump)


def _with_pyramid(plain: Folded, levels: Sequence[Level], kernel: int) -> Folded:
    """The stage with its own levels in place of a plain convolution of ``kernel``."""
    dimensions = len(plain.part.size) - 1
    params = macs = 0
    found = []
    for level in levels:
        taps = math.prod(each(level.kernel, dimensions)) * level.width
        weights = [in_width // level.groups * taps for in_width, _ in plain.uses]
        own = LevelCost(sum(weights), sum(n * m for n, (_, m) in zip(weights, plain.uses, strict=True)))
        params, macs = params + own.params, macs + own.macs
        found.append(own)
    width = kernel**dimensions * sum(level.width for level in levels)
    params -= sum(in_width * width for in_width, _ in plain.uses)
    macs -= sum(in_width * width * positions for in_width, positions in plain.uses)
    p = plain.part
    part = Part(
        p.name,
        p.params + params,
        p.macs + macs,
        p.activations,
        p.size,
        p.thop + macs,
        p.executed + macs,
        p.reach,
        tuple(found) if len(found) > 1 else (),
    )
    return Folded(part, plain.jump, plain.memory, plain.size, plain.uses)


def folded(part: network.Part, jump: int) -> Folded:
    """A part on features that are ``jump`` pixels apart, folded layer by layer."""
    totals, levels = [0] * len(COUNTS), Counter[tuple[int, str]]()
    reach, links, sizes, uses = 0, [], [], Counter[tuple[int, int]]()
    for unit in part.units:
        n = len(unit.names)
        totals = [total + n * own for total, own in zip(totals, _counts(unit.layers), strict=True)]
        for layer in unit.layers:
            levels[layer.level, "params"] += n * layer.params
            levels[layer.level, "macs"] += n * counting.macs(layer)
            if layer.level == 1:
                uses[layer.inputs[0].shape[0], math.prod(layer.output.shape[1:])] += n
        links += [kept(unit.layers, unit.inputs, unit.output, unit.results)] * n
        if unit.output is not None:
            reach += n * (unit.output.field - 1) * jump
            jump *= unit.output.jump
            sizes += [unit.output.size] * n
    memory = chain(links, [part.units[0].inputs[0].size, *sizes])
    most = max(level for level, _ in levels)
    pyramid = tuple(LevelCost(levels[j, "params"], levels[j, "macs"]) for j in range(1, 1 + most)) if most > 1 else ()
    found = Part(part.name, **dict(zip(COUNTS, totals, strict=True)), size=part.shape, reach=reach, levels=pyramid)
    return Folded(found, jump, memory, math.prod(part.shape), tuple(uses.elements()))


def _counts(layers: Sequence[Layer]) -> tuple[int, ...]:
    """What COUNTS names."""
    return (
        sum(layer.params for layer in layers),
        sum(counting.macs(layer) for layer in layers),
        counting.thop(layers),
        sum(counting.executed(layer) for layer in layers),
        sum(layer.output.size for layer in layers if layer.kind in ("conv", "linear") and not layer.training),
    )
