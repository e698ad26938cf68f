"""The waist of the hourglass: a network as one frozen value.

Everything that a human may write in several ways is settled before an :class:`Architecture` exists; two spellings of
one network are equal, hash alike and have the same ``arch_id``. Integers, texts, truth values and tuples only.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

from pyconv_search.fields import Problem, SpecError

if TYPE_CHECKING:
    from pyconv_search.arch.heads.head import Head

SHORTCUTS = ("conv", "max+conv")
POOLS = ("max", "none")
FORMS = ("post", "pre", "ires")


@dataclass(frozen=True, slots=True)
class Level:
    """One level of a pyramidal convolution: a grouped convolution whose dilations follow a cyclic pattern.

    ``kernel`` is one number for all sides, or one a side: (height, width) or (time, height, width). ``width`` counts
    output channels. ``pattern`` and ``axes`` are those of :func:`pyconv_search.arch.dilation.dilation_matrix`; a
    standard convolution has pattern (1,).
    The pattern is kept in its shortest form ((1, 2, 1, 2) is (1, 2)), and where it has no effect (1×1 kernels) or no
    direction (a single dilation) it is kept as (1,) or with axes ``both``; (3, 3, 3) is kept as 3.
    """

    kernel: int | tuple[int, ...]
    width: int
    groups: int = 1
    pattern: tuple[int, ...] = (1,)
    axes: str = "both"

    def __post_init__(self) -> None:
        if not self.pattern:
            raise SpecError([Problem(("pattern",), "must hold at least one dilation; a standard convolution is (1,)")])
        if isinstance(self.kernel, tuple) and len(set(self.kernel)) == 1:
            object.__setattr__(self, "kernel", self.kernel[0])
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


@lru_cache(maxsize=4096)
def pointwise(width: int) -> Conv:
    """A 1×1 convolution."""
    return Conv((Level(1, width),))


@dataclass(frozen=True, slots=True)
class Stem:
    """The first convolution, and the 3×3 max pooling of stride 2 after it when ``pool`` is ``max``.

    In a network for video ``time_stride`` is the convolution's stride along time; the pooling keeps the time.
    """

    kernel: int | tuple[int, int, int]
    width: int
    stride: int
    pool: str = "none"
    time_stride: int = 1

    @property
    def reduces(self) -> int:
        """How many input pixels one pixel behind the stem stands for, along one side."""
        return self.stride * (2 if self.pool == "max" else 1)


@dataclass(frozen=True, slots=True)
class SqueezeExcite:
    """Channel attention after the last convolution of a block (Hu, Shen, Sun 2018): channels / ``reduction`` inside."""

    reduction: int
    bias: bool = False


@dataclass(frozen=True, slots=True)
class Stage:
    """``blocks`` residual blocks with ``out`` output channels; the first one applies ``stride`` and changes the width.

    ``shortcut`` says what the first block's shortcut is where the shape changes: ``conv``, a 1×1 convolution with the
    stride, or ``max+conv``, a 3×3 max pooling with the stride and then, where the width changes, a 1×1 convolution
    (PyConv, section 4); ``keeps_pool`` says that the pooling stays where the stride is 1, as the released PyConvSegNet
    has it where dilation takes the place of a stride. ``time_stride`` is the stride along time in a network for video.
    ``non_local`` adds a non-local block (Wang et al. 2018) after the last one.
    """

    block: str
    blocks: int
    conv: Conv
    out: int
    stride: int
    shortcut: str = "conv"
    time_stride: int = 1
    se: SqueezeExcite | None = None
    non_local: bool = False
    keeps_pool: bool = False


@dataclass(frozen=True)
class Architecture:
    """A network: stem, stages, and a head that reads the stages' features.

    ``input`` is (channels, height, width), or (channels, time, height, width) for video. ``form`` says where
    normalisation and activation stand in a block: ``post`` after its convolutions (He et al. 2016a), ``pre`` before
    them (He et al. 2016b), ``ires`` as in the improved residual networks (Duta et al. 2020). Without a ``head`` the
    features are averaged and classified by one linear layer.

    Raises :class:`pyconv_search.fields.SpecError`, with every mistake, when the numbers do not fit together.
    """

    stem: Stem
    stages: tuple[Stage, ...]
    classes: int
    input: tuple[int, ...]
    family: str = "resnet"
    form: str = "post"
    head: Head | None = None

    def __post_init__(self) -> None:
        from pyconv_search.arch.check import check, settled  # they read the values that are defined here

        check(self)
        object.__setattr__(self, "stages", settled(self))
        if self.head is not None and self.head.kind == "classifier":
            object.__setattr__(self, "head", None)

    def walk(self) -> Iterator[tuple[Stage, int]]:
        """Every stage with the number of channels that reach its first block."""
        from pyconv_search.arch.families import FAMILIES

        width = self.stem.width
        for i, stage in enumerate(self.stages):
            yield stage, FAMILIES[self.family].into(width, i)
            width = stage.out

    @property
    def stride(self) -> int:
        """How many input pixels one pixel of the last feature map stands for, along one side."""
        from pyconv_search.arch.families import FAMILIES

        return FAMILIES[self.family].stride(self)

    @property
    def dimensions(self) -> int:
        """2 for images, 3 for video."""
        return len(self.input) - 1

    @cached_property
    def arch_id(self) -> str:
        """SHA-256 of the canonical JSON, as 64 hexadecimal digits; computed once."""
        from pyconv_search.arch.canonical import canonical_json

        return hashlib.sha256(canonical_json(self).encode()).hexdigest()


def shortest_period(pattern: tuple[int, ...]) -> tuple[int, ...]:
    """The shortest cycle that repeats to ``pattern``: (1, 2, 1, 2) → (1, 2)."""
    n = len(pattern)
    return next(pattern[:t] for t in range(1, n + 1) if n % t == 0 and pattern[:t] * (n // t) == pattern)


@lru_cache(maxsize=4096)
def divisors(n: int) -> tuple[int, ...]:
    """All divisors of n, ascending."""
    low = [d for d in range(1, math.isqrt(n) + 1) if n % d == 0]
    return tuple(sorted({*low, *(n // d for d in low)}))


def settled_conv(conv: Conv, inputs: set[int]) -> Conv:
    """The convolution that ``inputs`` numbers of channels reach, without the axes of its depthwise levels."""
    levels = tuple(
        replace(level, axes="both") if inputs == {level.groups} and level.groups > 1 else level for level in conv.levels
    )
    return conv if levels == conv.levels else Conv(levels)
