"""Residual networks (He et al. 2016) and all that share their stem, for images and video."""

from __future__ import annotations

import math

from pyconv_search.arch.blocks import BLOCKS, block, pool_window
from pyconv_search.arch.spec import Architecture, Stem
from pyconv_search.arch.trace import Tensor, Trace
from pyconv_search.fields import Problems

__all__ = ["BLOCKS", "alike", "block", "check", "final", "into", "stem", "stride", "transition"]


def check(arch: Architecture, problems: Problems) -> None:
    """Every stride has at least one pixel for each that it puts out."""
    height, width = arch.input[-2:]
    if min(height, width) < arch.stride:
        problems.add(
            ("input",),
            f"{height}×{width} pixels are too few: the network reduces each side {arch.stride} times; "
            f"at least {arch.stride}×{arch.stride}, or fewer strides",
        )


def stride(arch: Architecture) -> int:
    """That of the stem, its pooling and all stages."""
    return arch.stem.reduces * math.prod(stage.stride for stage in arch.stages)


def stem(t: Trace, x: Tensor, stem: Stem, form: str) -> Tensor:
    """The first convolution, normalised unless the blocks do that, and the pooling."""
    dimensions = len(x.shape) - 1
    images = dimensions == 2
    x = t.conv(
        "conv", x, stem.width, stem.kernel, stem.stride if images else (stem.time_stride, stem.stride, stem.stride)
    )
    if form != "pre":
        x = t.relu("act", t.norm("norm", x))
    if stem.pool == "max":
        x = t.pool("pool", x, "max-pool", pool_window(1, dimensions), 2 if images else (1, 2, 2))
    return x


def into(width: int, index: int) -> int:
    """All of them."""
    return width


def transition(t: Trace, x: Tensor, index: int) -> Tensor:
    """Nothing: the first block of a stage changes the shape."""
    return x


def alike(form: str) -> bool:
    """Improved residual networks have second and last blocks of their own."""
    return form != "ires"


def final(t: Trace, x: Tensor, form: str) -> Tensor:
    """The last normalisation of a network whose blocks begin with theirs."""
    return t.relu("act", t.norm("norm", x)) if form == "pre" else x
