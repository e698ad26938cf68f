"""Residual blocks, call by call: which convolutions a block holds, and where normalisation and activation stand.

``post``: He et al. 2016a, figure 5. ``pre``: He et al. 2016b, figure 4e, with the shortcut's projection on the block's
raw input. ``ires``: Duta et al. 2020 (Improved residual networks), section 3.1: the first block of a stage ends with
normalisation before the addition, the last one after it, and those between begin with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from pyconv_search.arch.spec import Conv, SqueezeExcite, Stage, pointwise
from pyconv_search.arch.trace import Size, Tensor, Trace


class Use(NamedTuple):
    """One convolution on the main branch of a block: what it is, how many channels reach it, its stride.

    ``own`` says that it is the stage's convolution, and not one that the block puts around it.
    """

    conv: Conv
    in_width: int
    stride: int = 1
    time_stride: int = 1
    own: bool = False

    def strides(self, dimensions: int) -> Size:
        """The stride as a layer is given it."""
        return self.stride if dimensions == 2 else (self.time_stride, self.stride, self.stride)


class Place(NamedTuple):
    """Where a block stands in its stage."""

    first: bool
    second: bool
    last: bool


@dataclass(frozen=True, slots=True)
class Block:
    """A kind of block: its convolutions from (stage, input channels, stride, time stride), and what they are made of.

    ``expansion`` is the usual ratio of the block's output channels to those of its spatial convolution and ``layers``
    how many layers it counts in a network's depth. ``widens`` says whether the two may differ.
    """

    branch: Callable[[Stage, int, int, int], tuple[Use, ...]]
    layers: int
    expansion: int
    widens: bool


def _basic(stage: Stage, in_width: int, stride: int, time: int) -> tuple[Use, ...]:
    return Use(stage.conv, in_width, stride, time, own=True), Use(stage.conv, stage.out, own=True)


def _basic_pointwise(stage: Stage, in_width: int, stride: int, time: int) -> tuple[Use, ...]:
    inner = stage.conv.width
    return Use(stage.conv, in_width, stride, time, own=True), Use(pointwise(stage.out), inner)


def _bottleneck(stage: Stage, in_width: int, stride: int, time: int) -> tuple[Use, ...]:
    inner = stage.conv.width
    return (
        Use(pointwise(inner), in_width),
        Use(stage.conv, inner, stride, time, own=True),
        Use(pointwise(stage.out), inner),
    )


BLOCKS = {
    "basic": Block(_basic, layers=2, expansion=1, widens=False),
    "basic-pointwise": Block(_basic_pointwise, layers=2, expansion=1, widens=True),
    "bottleneck": Block(_bottleneck, layers=3, expansion=4, widens=True),
}


def main_branch(stage: Stage, in_width: int, first: bool, blocks: Mapping[str, Block] = BLOCKS) -> tuple[Use, ...]:
    """The convolutions of one block of the stage; ``first`` is the block that changes the shape."""
    branch = blocks[stage.block].branch
    return branch(stage, in_width, stage.stride, stage.time_stride) if first else branch(stage, stage.out, 1, 1)


def fed(stage: Stage, in_width: int, blocks: Mapping[str, Block] = BLOCKS) -> set[int]:
    """The numbers of channels that reach the stage's convolution, wherever it stands in one of the ``blocks``."""
    places = (True, False) if stage.blocks > 1 else (True,)
    uses = [use for first in places for use in main_branch(stage, in_width, first, blocks)]
    return {use.in_width for use in uses if use.own}


def shrinks(stage: Stage) -> bool:
    """Whether the stage's first block has a stride."""
    return (stage.stride, stage.time_stride) != (1, 1)


def shortcut_pools(stage: Stage) -> bool:
    """Whether the first block's shortcut begins with a max pooling."""
    return stage.shortcut == "max+conv" and (shrinks(stage) or stage.keeps_pool)


def shortcut_projects(stage: Stage, in_width: int) -> bool:
    """Whether the first block's shortcut holds a 1×1 convolution."""
    return in_width != stage.out or (shrinks(stage) and not shortcut_pools(stage))


def pool_window(time_stride: int, dimensions: int) -> Size:
    """The window of a pooling of stride 2 along height and width; along time only where it has a stride there."""
    return 3 if dimensions == 2 else (3 if time_stride > 1 else 1, 3, 3)


def block(t: Trace, x: Tensor, stage: Stage, form: str, place: Place) -> Tensor:
    """One residual block on ``x``."""
    uses = main_branch(stage, x.shape[0], place.first)
    y = FORMS[form](t, x, uses, place)
    y = squeeze_excite(t.within("se"), y, stage.se) if stage.se else y
    y = t.add(y, shortcut(t.within("shortcut"), x, stage) if place.first else x)
    y = t.norm("norm_out", y) if ends(form, place) else y
    return t.relu("act", y) if form == "post" or ends(form, place) else y


def ends(form: str, place: Place) -> bool:
    """Whether the block normalises what it puts out, after the addition."""
    return form == "ires" and place.last and not place.first


def _post(t: Trace, x: Tensor, uses: tuple[Use, ...], place: Place) -> Tensor:
    for i, use in enumerate(uses, 1):
        x = t.convolution(f"conv{i}", x, use.conv, use.strides(len(x.shape) - 1))
        x = t.norm(f"norm{i}", x)
        x = t.relu("act", x) if i < len(uses) else x
    return x


def _pre(t: Trace, x: Tensor, uses: tuple[Use, ...], place: Place) -> Tensor:
    for i, use in enumerate(uses, 1):
        x = t.relu(f"act{i}", t.norm(f"norm{i}", x))
        x = t.convolution(f"conv{i}", x, use.conv, use.strides(len(x.shape) - 1))
    return x


def _ires(t: Trace, x: Tensor, uses: tuple[Use, ...], place: Place) -> Tensor:
    if not place.first:
        # The block before ends with an addition alone, and the shortcut needs that sum unrectified.
        x = t.relu("", x, in_place=False) if place.second else t.relu("act", t.norm("norm0", x))
    for i, use in enumerate(uses, 1):
        x = t.convolution(f"conv{i}", x, use.conv, use.strides(len(x.shape) - 1))
        if i < len(uses):
            x = t.relu("act", t.norm(f"norm{i}", x))
    return t.norm(f"norm{len(uses)}", x) if place.first else x


FORMS = {"post": _post, "pre": _pre, "ires": _ires}


def squeeze_excite(t: Trace, x: Tensor, se: SqueezeExcite) -> Tensor:
    """Squeeze-and-excitation (Hu, Shen, Sun 2018, figure 3)."""
    channels = x.shape[0]
    s = t.linear("reduce", t.adaptive_pool("pool", x), channels // se.reduction, se.bias)
    s = t.linear("expand", t.relu("act", s), channels, se.bias)
    return t.mul(x, t.sigmoid("gate", s))


def non_local(t: Trace, x: Tensor) -> Tensor:
    """A non-local block with embedded Gaussian attention (Wang et al. 2018, figure 2), subsampled (section 3.3)."""
    half, positions = x.shape[0] // 2, x.size // x.shape[0]
    few = t.pool("pool", x, "max-pool", *non_local_pool(len(x.shape) - 1), padded=False)
    query, key, value = (t.conv(n, y, half, 1, bias=True) for n, y in (("query", x), ("key", few), ("value", few)))
    weights = t.softmax(t.matmul(query, key, (positions, key.size // half), half))
    y = t.view(t.matmul(value, weights, (half, positions), key.size // half), (half, *x.shape[1:]))
    return t.add(x, t.norm("norm", t.conv("out", y, x.shape[0], 1, bias=True)))


def non_local_pool(dimensions: int) -> tuple[Size, Size]:
    """Window and stride of the subsampling of keys and values: a quarter of the positions."""
    return (2, 2) if dimensions == 2 else ((1, 2, 2), (1, 2, 2))


def shortcut(t: Trace, x: Tensor, stage: Stage) -> Tensor:
    """The shortcut of the first block of a stage: pooling, projection, both or neither (PyConv, section 4)."""
    dimensions = len(x.shape) - 1
    use = Use(pointwise(stage.out), x.shape[0], stage.stride, stage.time_stride)
    stride = use.strides(dimensions)
    if shortcut_pools(stage):
        x, stride = t.pool("pool", x, "max-pool", pool_window(stage.time_stride, dimensions), stride), 1
    if shortcut_projects(stage, use.in_width):
        x = t.norm("norm", t.convolution("conv", x, use.conv, stride))
    return x
