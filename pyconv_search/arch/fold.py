"""The parts of a network folded to their costs, and how that is fast enough for millions of different networks.

The stages of a space differ mostly in their pyramids. So the layers of a stage are traced once for all pyramids of one
width, with a convolution in the place of a pyramid; what that one costs is taken off, and what the pyramid costs added.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from operator import attrgetter
from typing import Any

from pyconv_search.arch import counting, network
from pyconv_search.arch.blocks import Block, fed
from pyconv_search.arch.families import FAMILIES
from pyconv_search.arch.heads.head import Head
from pyconv_search.arch.memory import Kept, chain, kept
from pyconv_search.arch.network import CLASSIFIER
from pyconv_search.arch.spec import Conv, Level, Stage, Stem
from pyconv_search.arch.trace import Layer, Shape, each, farthest

COUNTS = ("params", "macs", "thop", "executed", "activations")


@dataclass(frozen=True, slots=True)
class LevelCost:
    """What one level of a part's pyramids costs, over all of them."""

    params: int
    macs: int


@dataclass(frozen=True, slots=True)
class Part:
    """The cost of one named part. ``size`` is its output, ``reach`` what it adds to the receptive field, in pixels.

    ``levels`` sums over the part's pyramids, bottom first; empty in parts without a convolution of several levels.
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
    """A part's cost, the distance of its outputs in pixels of the image, its memory, the elements it puts out."""

    part: Part
    jump: int
    memory: Kept
    size: int


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
    reach = _reach(stage, in_width, FAMILIES[family].BLOCKS)
    if not reach or stage.conv.width < len(levels):
        return folded(network.stage(family, stage, form, index, shape), jump)
    frame = _frame((stage.conv.width, len(levels) > 1), _around(stage), family, form, index, shape)
    return _filled(frame, levels, reach, jump)


def _reach(stage: Stage, in_width: int, blocks: Mapping[str, Block]) -> int:
    """How many pixels the stage's convolution reaches beyond the centre, both sides together.

    0 where that differs from use to use: where the groups of some are too narrow for every dilation to occur.
    """
    reach, channels = 0, min(in_width, stage.out, stage.conv.width)
    for level in stage.conv.levels:
        if len(level.pattern) > 1:
            into, out = channels // level.groups, level.width // level.groups
            met = {"both": into + out - 1, "input": into, "output": out}[level.axes]
            if into < 2 or met < len(level.pattern):
                found = {_reach_of(stage.conv, channels) for channels in fed(stage, in_width, blocks)}
                return found.pop() if len(found) == 1 else 0
        reach = max(reach, (_side(level) - 1) * max(level.pattern))
    return reach


def _reach_of(conv: Conv, in_width: int) -> int:
    return max((_side(v) - 1) * farthest(v, in_width) for v in conv.levels)


def _side(level: Level) -> int:
    return level.kernel if isinstance(level.kernel, int) else level.kernel[-1]


@dataclass(frozen=True, slots=True)
class _Frame:
    """A stage without the weights of its convolution, whatever levels that has.

    ``uses`` holds (channels that reach it, calls, positions of all calls) of the convolution; ``reaches`` holds, for
    blocks in a row, (how many, their distance of pixels, a, b, c): a block reaches max(a·r + b, c) pixels of its input
    if the convolution reaches r.
    """

    folded: Folded
    uses: tuple[tuple[int, int, int], ...]
    reaches: tuple[tuple[int, int, int, int, int], ...]


FAR = 2**20  # a reach beyond all others, so that the trace tells how often a block's reach holds it


# What a stage is besides its convolution. A tuple is a key that hashes faster than a Stage.
_AROUND = tuple(f.name for f in fields(Stage) if f.name != "conv")
_around: Callable[[Stage], tuple[Any, ...]] = attrgetter(*_AROUND)


@lru_cache(maxsize=65536)
def _frame(conv: tuple[int, bool], around: tuple[Any, ...], family: str, form: str, index: int, shape: Shape) -> _Frame:
    """The frame of a stage, for all convolutions of (output channels, whether of several levels)."""
    width, several = conv
    levels = tuple(Level(FAR + 1, own) for own in ((1, width - 1) if several else (width,)))
    stage = Stage(conv=Conv(levels), **dict(zip(_AROUND, around, strict=True)))
    part = network.stage(family, stage, form, index, shape)
    found = folded(part, 1)
    calls, positions, reaches, jump = Counter[int](), Counter[int](), [], 1
    for unit in part.units:
        n = len(unit.names)
        for layer in unit.layers:
            if layer.level == 1:
                calls[layer.inputs[0].shape[0]] += n
                positions[layer.inputs[0].shape[0]] += n * math.prod(layer.output.shape[1:])
        if unit.output is not None:
            a, b = divmod(unit.output.field - 1, FAR)
            reaches.append((n, jump, a, b, unit.output.near - 1))
            jump *= unit.output.jump
    uses = tuple((channels, calls[channels], positions[channels]) for channels in calls)
    weights = {channels: channels * width * (FAR + 1) ** (len(part.shape) - 1) for channels in calls}
    macs = sum(weights[channels] * positions[channels] for channels in calls)
    bare = replace(
        found.part,
        params=found.part.params - sum(weights[channels] * calls[channels] for channels in calls),
        macs=found.part.macs - macs,
        thop=found.part.thop - macs,
        executed=found.part.executed - macs,
    )
    return _Frame(replace(found, part=bare), uses, tuple(reaches))


def _filled(frame: _Frame, levels: Sequence[Level], reach: int, jump: int) -> Folded:
    """The stage with its own levels, on features that are ``jump`` pixels apart."""
    bare = frame.folded.part
    dimensions, found = len(bare.size) - 1, []
    params = macs = 0
    for level in levels:
        taps = math.prod(each(level.kernel, dimensions)) * level.width
        own = more = 0
        for channels, calls, positions in frame.uses:
            weights = channels // level.groups * taps
            own += weights * calls
            more += weights * positions
        found.append(LevelCost(own, more))
        params += own
        macs += more
    part = Part(
        bare.name,
        bare.params + params,
        bare.macs + macs,
        bare.activations,
        bare.size,
        bare.thop + macs,
        bare.executed + macs,
        jump * sum(n * apart * max(a * reach + b, c) for n, apart, a, b, c in frame.reaches),
        tuple(found) if len(found) > 1 else (),
    )
    return Folded(part, jump * frame.folded.jump, frame.folded.memory, frame.folded.size)


def folded(part: network.Part, jump: int) -> Folded:
    """A part on features that are ``jump`` pixels apart, folded layer by layer."""
    totals, levels = [0] * len(COUNTS), Counter[tuple[int, str]]()
    reach, links, sizes = 0, [], []
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
    most = max(level for level, _ in levels)
    pyramid = tuple(LevelCost(levels[j, "params"], levels[j, "macs"]) for j in range(1, 1 + most)) if most > 1 else ()
    found = Part(part.name, **dict(zip(COUNTS, totals, strict=True)), size=part.shape, reach=reach, levels=pyramid)
    return Folded(found, jump, memory, math.prod(part.shape))


def _counts(layers: Sequence[Layer]) -> tuple[int, ...]:
    """What COUNTS names."""
    return (
        sum(layer.params for layer in layers),
        sum(counting.macs(layer) for layer in layers),
        counting.thop(layers),
        sum(counting.executed(layer) for layer in layers),
        sum(layer.output.size for layer in layers if layer.kind in ("conv", "linear") and not layer.training),
    )
