"""Residual networks (He et al. 2016) and all that share their stem, for images and video."""

from __future__ import annotations

from pyconv_search.arch.blocks import block, pool_window
from pyconv_search.arch.spec import Stem
from pyconv_search.arch.trace import Tensor, Trace

__all__ = ["block", "final", "into", "stem", "transition"]


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


def final(t: Trace, x: Tensor, form: str) -> Tensor:
    """The last normalisation of a network whose blocks begin with theirs."""
    return t.relu("act", t.norm("norm", x)) if form == "pre" else x
