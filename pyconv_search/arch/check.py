"""Whether the numbers of an architecture fit together, reported with the place and the nearest legal value."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import fields, replace
from functools import cache
from typing import Any

from pyconv_search.arch import network
from pyconv_search.arch.blocks import BLOCKS, fed, shrinks
from pyconv_search.arch.dilation import AXES
from pyconv_search.arch.families import FAMILIES
from pyconv_search.arch.spec import (
    FORMS,
    POOLS,
    SHORTCUTS,
    Architecture,
    Conv,
    Level,
    Stage,
    divisors,
    settled_conv,
)
from pyconv_search.arch.trace import Shape, each
from pyconv_search.fields import MOST, Path, Problems, integer, nearest, suggestion

# What the texts in a specification may be.
_WORDS: dict[str, Collection[str]] = {
    "axes": AXES,
    "block": BLOCKS,
    "family": FAMILIES,
    "form": FORMS,
    "pool": POOLS,
    "shortcut": SHORTCUTS,
}

# More than any published network has: 152 layers are 50 blocks, the 10,000 layers that may be asked for are 5,000.
MOST_STAGES, MOST_BLOCKS = 64, 5_000


def check(arch: Architecture) -> None:
    """Raise SpecError with every mistake of ``arch``."""
    problems = Problems()
    family = FAMILIES.get(str(arch.family))
    words = _WORDS if family is None else {**_WORDS, "block": family.BLOCKS}
    _check_values(arch, (), problems, words)
    problems.check()
    _check_shape(arch, problems)
    if arch.head is not None and arch.dimensions != 2:
        problems.add(
            ("head", "kind"), f"{arch.head.kind} is for images, but the input is video; nearest: classifier, or no head"
        )
        problems.check()
    for i, (stage, in_width) in enumerate(arch.walk()):
        _check_stage(arch, stage, in_width, ("stages", i), problems)
    problems.check()
    features = _features(arch) if arch.head or any(stage.non_local for stage in arch.stages) else []
    for i, (stage, shape) in enumerate(zip(arch.stages, features, strict=False)):
        if stage.non_local and min(shape[-2:]) < 2:
            size = "×".join(map(str, shape[-2:]))
            problems.add(("stages", i, "non_local"), f"subsamples features, which have {size} pixels; at least 2×2")
    if arch.head is not None:
        arch.head.check(features, ("head",), problems)
    problems.check()


def _features(arch: Architecture) -> list[Shape]:
    """The shapes of all stages' features."""
    plain = tuple(replace(stage, non_local=False) for stage in arch.stages)
    parts = [network.stem(arch.family, arch.stem, arch.form, arch.input)]
    for i, stage in enumerate(plain):
        parts.append(network.stage(arch.family, stage, arch.form, i, parts[-1].shape))
    parts.append(network.final(arch.family, arch.form, parts[-1].shape))
    return [part.shape for part in parts[1:-2]] + [parts[-1].shape]


def settled(arch: Architecture) -> tuple[Stage, ...]:
    """The stages without what changes nothing: ``axes`` of depthwise levels, a pooled shortcut that never pools."""
    blocks = FAMILIES[arch.family].BLOCKS
    return tuple(_settled(stage, fed(stage, in_width, blocks)) for stage, in_width in arch.walk())


def _settled(stage: Stage, inputs: set[int]) -> Stage:
    keeps_pool = stage.keeps_pool and stage.shortcut == "max+conv" and not shrinks(stage)
    shortcut = stage.shortcut if keeps_pool or shrinks(stage) else "conv"
    own = (settled_conv(stage.conv, inputs), shortcut, keeps_pool)
    if own == (stage.conv, stage.shortcut, stage.keeps_pool):
        return stage
    return replace(stage, conv=own[0], shortcut=shortcut, keeps_pool=keeps_pool)


def _check_values(value: Any, path: Path, problems: Problems, words: Mapping[str, Collection[str]]) -> None:
    """Every number is an integer of 1 or more and every text a known word: a specification may come from a file."""
    if isinstance(value, tuple):
        if not value:
            problems.add(path, "must not be empty")
        for i, item in enumerate(value):
            if not _is_number(item):
                _check_values(item, (*path, i), problems, words)
    elif hasattr(value, "__dataclass_fields__"):
        for name, flag in _fields_of(value.__class__):
            own = getattr(value, name)
            if not (_is_number(own) or (flag and isinstance(own, bool))):
                _check_values(own, (*path, name), problems, words)
    elif isinstance(value, str):
        known = words.get(str(path[-1]))
        if known is not None and value not in known:
            problems.add(path, f"must be one of {', '.join(known)}, but got {value!r}{suggestion(value, known)}")
    elif value is not None:
        integer(value, path, problems)


def _is_number(value: Any) -> bool:
    """Whether there is nothing to say of it; asked ahead of the rest, as most values are such numbers."""
    return type(value) is int and 0 < value <= MOST


@cache
def _fields_of(kind: Any) -> tuple[tuple[str, bool], ...]:
    """The fields of a dataclass, and whether each holds a truth value."""
    return tuple((f.name, f.type == "bool") for f in fields(kind))


def _check_shape(arch: Architecture, problems: Problems) -> None:
    if arch.dimensions not in (2, 3):
        size = "×".join(map(str, arch.input))
        problems.add(("input",), f"must be channels×height×width or channels×time×height×width, but got {size}")
        problems.check()
    if len(arch.stages) > MOST_STAGES:
        problems.add(
            ("stages",), f"must be {MOST_STAGES} at most, but got {len(arch.stages):,}; nearest: {MOST_STAGES}"
        )
        problems.check()
    check_kernel(arch.stem.kernel, arch.dimensions, ("stem", "kernel"), problems)
    FAMILIES[arch.family].check(arch, problems)
    steps = math.prod(stage.time_stride for stage in arch.stages) * arch.stem.time_stride
    if arch.dimensions == 2 and steps > 1:
        problems.add(("input",), "images have no time, so every time_stride must be 1; nearest: 1")
    elif arch.dimensions == 3 and arch.input[1] < steps:
        frames = f"{arch.input[1]} frames are too few: the network reduces them {steps} times; at least {steps}"
        problems.add(("input",), frames)


def check_kernel(kernel: int | tuple[int, ...], dimensions: int, path: Path, problems: Problems) -> None:
    """Kernels are odd, and have as many sides as the input."""
    if isinstance(kernel, tuple) and len(kernel) != dimensions:
        wanted = "one number" if dimensions == 2 else "one number or (time, height, width)"
        problems.add(path, f"must be {wanted} for an input of {dimensions} dimensions, but got {kernel}")
    for side in sorted(set(each(kernel, 1))):
        if side % 2 == 0:
            problems.add(path, f"must be odd, but got {side}; nearest: {side - 1}, {side + 1}")


def _check_stage(arch: Architecture, stage: Stage, in_width: int, path: Path, problems: Problems) -> None:
    blocks = FAMILIES[arch.family].BLOCKS
    if stage.blocks > MOST_BLOCKS:
        problems.add(
            (*path, "blocks"), f"must be {MOST_BLOCKS:,} at most, but got {stage.blocks:,}; nearest: {MOST_BLOCKS:,}"
        )
    if not blocks[stage.block].widens and stage.conv.width != stage.out:
        problems.add(
            (*path, "out"),
            f"a {stage.block} block puts out the {stage.conv.width} channels of its convolution, "
            f"but got {stage.out}; nearest: {stage.conv.width}",
        )
    if arch.form == "ires" and stage.blocks < 2:
        problems.add((*path, "blocks"), f"form ires needs a first and a last block, but got {stage.blocks}; nearest: 2")
    if stage.se and stage.out % stage.se.reduction:
        hint = nearest(stage.se.reduction, divisors(stage.out))
        problems.add((*path, "se"), f"{stage.se.reduction} does not divide {stage.out} channels; nearest: {hint}")
    if stage.non_local and stage.out % 2:
        problems.add((*path, "non_local"), f"halves the channels, but got {stage.out}; nearest: {stage.out + 1}")
    check_conv(stage.conv, fed(stage, in_width, blocks), arch.dimensions, path, problems)


def check_conv(conv: Conv, inputs: set[int], dimensions: int, path: Path, problems: Problems) -> None:
    """Every level fits the numbers of channels that reach it."""
    for j, level in enumerate(conv.levels):
        _check_level(level, inputs, dimensions, (*path, "levels", j), problems)


def _check_level(level: Level, inputs: set[int], dimensions: int, path: Path, problems: Problems) -> None:
    check_kernel(level.kernel, dimensions, (*path, "kernel"), problems)
    if dimensions == 3 and level.pattern != (1,):
        problems.add((*path, "pattern"), f"is for images; for video it must be [1], but got {list(level.pattern)}")
    legal = divisors(math.gcd(level.width, *inputs))
    for count, what in [
        *((n, "input channels") for n in sorted(inputs)),
        (level.width, "output channels of the level"),
    ]:
        if count % level.groups:
            hint = nearest(level.groups, legal)
            problems.add((*path, "groups"), f"{level.groups} does not divide {count} {what}; nearest: {hint}")
