"""The waist of the hourglass: a network as one frozen value.

Everything that a human may write in several ways is settled before an :class:`Architecture` exists; two spellings of
one network are equal, hash alike and have the same ``arch_id``. Integers, texts and tuples only.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields, replace
from typing import Any

from pyconv_search.arch.dilation import AXES
from pyconv_search.fields import Path, Problem, Problems, SpecError, integer, nearest, suggestion

SHORTCUTS = ("conv", "max+conv")
POOLS = ("max", "none")


@dataclass(frozen=True, slots=True)
class Level:
    """One level of a pyramidal convolution: a grouped convolution whose dilations follow a cyclic pattern.

    ``width`` counts output channels. ``pattern`` and ``axes`` are those of
    :func:`pyconv_search.arch.dilation.dilation_matrix`; a standard convolution has pattern (1,). The pattern is kept in
    its shortest form ((1, 2, 1, 2) is (1, 2)), and where it has no effect (1×1 kernels) or no direction (a single
    dilation) it is kept as (1,) or with axes ``both``.
    """

    kernel: int
    width: int
    groups: int = 1
    pattern: tuple[int, ...] = (1,)
    axes: str = "both"

    def __post_init__(self) -> None:
        if not self.pattern:
            raise SpecError([Problem(("pattern",), "must hold at least one dilation; a standard convolution is (1,)")])
        pattern = (1,) if self.kernel == 1 else shortest_period(self.pattern)
        object.__setattr__(self, "pattern", pattern)
        if len(pattern) == 1:
            object.__setattr__(self, "axes", "both")


@dataclass(frozen=True, slots=True)
class Conv:
    """A convolution of one or more parallel levels, bottom (smallest kernel) first; their outputs are concatenated."""

    levels: tuple[Level, ...]

    @property
    def width(self) -> int:
        """Output channels."""
        return sum(level.width for level in self.levels)


@dataclass(frozen=True, slots=True)
class Stem:
    """The first convolution, and the 3×3 max pooling of stride 2 after it when ``pool`` is ``max``."""

    kernel: int
    width: int
    stride: int
    pool: str = "none"


@dataclass(frozen=True, slots=True)
class Stage:
    """``blocks`` residual blocks with ``out`` output channels; the first one applies ``stride`` and changes the width.

    ``shortcut`` says what the first block's shortcut is where the shape changes: ``conv``, a 1×1 convolution with the
    stride, or ``max+conv``, a 3×3 max pooling with the stride and then, where the width changes, a 1×1 convolution
    (PyConv, section 4).
    """

    block: str
    blocks: int
    conv: Conv
    out: int
    stride: int
    shortcut: str = "conv"


@dataclass(frozen=True, slots=True)
class Use:
    """One convolution in its place: what it is, how many channels reach it, and its stride."""

    conv: Conv
    in_width: int
    stride: int


def pointwise(width: int) -> Conv:
    """A 1×1 convolution."""
    return Conv((Level(1, width),))


def _basic(stage: Stage, in_width: int, stride: int) -> tuple[Use, ...]:
    return Use(stage.conv, in_width, stride), Use(stage.conv, stage.out, 1)


def _bottleneck(stage: Stage, in_width: int, stride: int) -> tuple[Use, ...]:
    inner = stage.conv.width
    return Use(pointwise(inner), in_width, 1), Use(stage.conv, inner, stride), Use(pointwise(stage.out), inner, 1)


# The convolutions on the main branch of each block, each followed by batch normalisation (He et al. 2016, figure 5).
BLOCKS = {"basic": _basic, "bottleneck": _bottleneck}


def main_branch(stage: Stage, in_width: int, first: bool) -> tuple[Use, ...]:
    """The convolutions of one block of the stage; ``first`` is the block that changes the shape."""
    return BLOCKS[stage.block](stage, in_width if first else stage.out, stage.stride if first else 1)


def shortcut_pools(stage: Stage) -> bool:
    """Whether the first block's shortcut begins with a 3×3 max pooling."""
    return stage.shortcut == "max+conv" and stage.stride != 1


def shortcut_projects(stage: Stage, in_width: int) -> bool:
    """Whether the first block's shortcut holds a 1×1 convolution."""
    return in_width != stage.out or (stage.stride != 1 and not shortcut_pools(stage))


@dataclass(frozen=True, slots=True)
class Architecture:
    """A residual network: stem, stages, global average pooling and one linear layer.

    ``input`` is (channels, height, width). Raises :class:`pyconv_search.fields.SpecError`, with every mistake, when the
    numbers do not fit together.
    """

    stem: Stem
    stages: tuple[Stage, ...]
    classes: int
    input: tuple[int, int, int]
    family: str = "resnet"

    def __post_init__(self) -> None:
        problems = Problems()
        _check_values(self, (), problems)
        problems.check()
        _check_shape(self, problems)
        for i, (stage, in_width) in enumerate(self.walk()):
            _check_stage(stage, in_width, ("stages", i), problems)
        problems.check()
        object.__setattr__(self, "stages", tuple(_settled(stage, in_width) for stage, in_width in self.walk()))

    def walk(self) -> Iterator[tuple[Stage, int]]:
        """Every stage with the number of channels that reach it."""
        in_width = self.stem.width
        for stage in self.stages:
            yield stage, in_width
            in_width = stage.out

    @property
    def stride(self) -> int:
        """How many input pixels one pixel of the last feature map stands for, along one side."""
        return self.stem.stride * (2 if self.stem.pool == "max" else 1) * math.prod(s.stride for s in self.stages)

    @property
    def arch_id(self) -> str:
        """SHA-256 of the canonical JSON, as 64 hexadecimal digits."""
        return hashlib.sha256(canonical_json(self).encode()).hexdigest()


def shortest_period(pattern: tuple[int, ...]) -> tuple[int, ...]:
    """The shortest cycle that repeats to ``pattern``: (1, 2, 1, 2) → (1, 2)."""
    n = len(pattern)
    return next(pattern[:t] for t in range(1, n + 1) if n % t == 0 and pattern[:t] * (n // t) == pattern)


# What the texts in a specification may be.
_WORDS = {"block": BLOCKS, "shortcut": SHORTCUTS, "pool": POOLS, "axes": AXES}


def _check_values(value: Any, path: Path, problems: Problems) -> None:
    """Every number is an integer of 1 or more and every text a known word: a specification may come from a file."""
    if isinstance(value, tuple):
        if not value:
            problems.add(path, "must not be empty")
        for i, item in enumerate(value):
            _check_values(item, (*path, i), problems)
    elif hasattr(value, "__dataclass_fields__"):
        for f in fields(value):
            _check_values(getattr(value, f.name), (*path, f.name), problems)
    elif isinstance(value, str):
        known = _WORDS.get(str(path[-1]))
        if known is not None and value not in known:
            problems.add(path, f"must be one of {', '.join(known)}, but got {value!r}{suggestion(value, known)}")
    else:
        integer(value, path, problems)


def _check_shape(arch: Architecture, problems: Problems) -> None:
    _check_kernel(arch.stem.kernel, ("stem", "kernel"), problems)
    side = min(arch.input[1:])
    if side < arch.stride:
        problems.add(
            ("input",),
            f"{arch.input[1]}×{arch.input[2]} pixels are too few: the network reduces each side {arch.stride} times; "
            f"at least {arch.stride}×{arch.stride}, or fewer strides",
        )


def _check_kernel(kernel: int, path: Path, problems: Problems) -> None:
    if kernel % 2 == 0:
        problems.add(path, f"must be odd, but got {kernel}; nearest: {kernel - 1}, {kernel + 1}")


def _check_stage(stage: Stage, in_width: int, path: Path, problems: Problems) -> None:
    if stage.block == "basic" and stage.conv.width != stage.out:
        problems.add(
            (*path, "out"),
            f"a basic block puts out the {stage.conv.width} channels of its convolution, "
            f"but got {stage.out}; nearest: {stage.conv.width}",
        )
    inputs = {
        use.in_width
        for first in (True, False)
        for use in main_branch(stage, in_width, first)
        if use.conv is stage.conv and (first or stage.blocks > 1)
    }
    for j, level in enumerate(stage.conv.levels):
        _check_level(level, inputs, (*path, "levels", j), problems)


def _check_level(level: Level, inputs: set[int], path: Path, problems: Problems) -> None:
    _check_kernel(level.kernel, (*path, "kernel"), problems)
    legal = divisors(math.gcd(level.width, *inputs))
    for count, what in [
        *((n, "input channels") for n in sorted(inputs)),
        (level.width, "output channels of the level"),
    ]:
        if count % level.groups:
            hint = nearest(level.groups, legal)
            problems.add((*path, "groups"), f"{level.groups} does not divide {count} {what}; nearest: {hint}")


def divisors(n: int) -> tuple[int, ...]:
    """All divisors of n, ascending."""
    low = [d for d in range(1, math.isqrt(n) + 1) if n % d == 0]
    return tuple(sorted({*low, *(n // d for d in low)}))


def _settled(stage: Stage, in_width: int) -> Stage:
    """The stage with ``axes`` dropped from depthwise levels, where it has no meaning."""
    inputs = {
        use.in_width for first in (True, False) for use in main_branch(stage, in_width, first) if use.conv is stage.conv
    }
    levels = tuple(
        replace(level, axes="both") if inputs == {level.groups} and level.groups > 1 else level
        for level in stage.conv.levels
    )
    return stage if levels == stage.conv.levels else replace(stage, conv=Conv(levels))


def to_dict(value: Any) -> Any:
    """An architecture (or a part of one) as plain JSON values.

    Fields that hold their default are left out, so that a field which a later version adds leaves every ``arch_id`` as
    it was.
    """
    if isinstance(value, tuple):
        return [to_dict(item) for item in value]
    if not hasattr(value, "__dataclass_fields__"):
        return value
    pairs = ((f, getattr(value, f.name)) for f in fields(value))
    return {f.name: to_dict(v) for f, v in pairs if f.default is MISSING or v != f.default}


def from_dict(values: dict[str, Any]) -> Architecture:
    """The architecture that :func:`to_dict` made."""
    return Architecture(
        **{
            **values,
            "stem": Stem(**values["stem"]),
            "stages": tuple(Stage(**{**stage, "conv": _conv(stage["conv"])}) for stage in values["stages"]),
            "input": tuple(values["input"]),
        }
    )


def _conv(values: dict[str, Any]) -> Conv:
    return Conv(tuple(Level(**{**level, "pattern": tuple(level.get("pattern", (1,)))}) for level in values["levels"]))


def canonical_json(arch: Architecture) -> str:
    """The one JSON text of this architecture: sorted keys, no spaces, defaults left out."""
    return json.dumps(to_dict(arch), sort_keys=True, separators=(",", ":"))
