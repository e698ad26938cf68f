"""The residual blocks as modules; :mod:`pyconv_search.arch.blocks` says what each holds and cites its paper."""

from __future__ import annotations

from torch import Tensor, nn

from pyconv_search.arch.blocks import (
    Place,
    Use,
    ends,
    main_branch,
    pool_window,
    shortcut_pools,
    shortcut_projects,
)
from pyconv_search.arch.spec import Stage, pointwise
from pyconv_search.models.attention import SqueezeExcitation
from pyconv_search.models.dimensions import max_pool, norm
from pyconv_search.ops.build import build_conv


class ResidualBlock(nn.Module):
    """A main branch around a shortcut: N×in_width×H×W to N×stage.out×⌈H/stride⌉×⌈W/stride⌉, alike with time.

    ``place`` says where the block stands in its stage: the first one changes the shape, the others have stride 1 and
    take ``stage.out`` channels. The stride is that of the spatial convolution ("ResNet v1.5").
    """

    def __init__(self, stage: Stage, in_width: int, place: Place, dimensions: int = 2) -> None:
        super().__init__()
        uses = main_branch(stage, in_width, place.first)
        self.depth = len(uses)
        for i, use in enumerate(uses, 1):
            self.add_module(f"conv{i}", build_conv(use.conv, use.in_width, use.strides(dimensions)))
            width = self._norm_width(i, use, place)
            if width:
                self.add_module(f"norm{i}", norm(dimensions, width))
        self.se = SqueezeExcitation(stage.out, stage.se, dimensions) if stage.se else None
        self.shortcut = shortcut(stage, in_width, dimensions) if place.first else nn.Identity()
        self._activations(stage, place, dimensions)

    @property
    def last_norm(self) -> nn.Module | None:
        """The normalisation that ends the main branch, if one does."""
        return getattr(self, f"norm{self.depth}", None)

    def _norm_width(self, i: int, use: Use, place: Place) -> int:
        """Channels of the normalisation beside the i-th convolution (from 1), 0 for none."""
        return use.conv.width

    def _activations(self, stage: Stage, place: Place, dimensions: int) -> None:
        self.act = nn.ReLU(inplace=True)

    def _normed(self, i: int, x: Tensor) -> Tensor:
        return self.get_submodule(f"norm{i}")(x)

    def _convolved(self, i: int, x: Tensor) -> Tensor:
        return self.get_submodule(f"conv{i}")(x)

    def _attended(self, x: Tensor) -> Tensor:
        return x if self.se is None else self.se(x)


class PostBlock(ResidualBlock):
    """Normalisation and activation after each convolution, the last activation after the addition."""

    def forward(self, x: Tensor) -> Tensor:
        out = x
        for i in range(1, self.depth):
            out = self.act(self._normed(i, self._convolved(i, out)))
        out = self._attended(self._normed(self.depth, self._convolved(self.depth, out)))
        return self.act(out + self.shortcut(x))


class PreBlock(ResidualBlock):
    """Normalisation and activation before each convolution, nothing after the addition."""

    @property
    def last_norm(self) -> None:
        """None: a convolution ends the branch."""

    def _norm_width(self, i: int, use: Use, place: Place) -> int:
        return use.in_width

    def _activations(self, stage: Stage, place: Place, dimensions: int) -> None:
        for i in range(1, self.depth + 1):
            self.add_module(f"act{i}", nn.ReLU(inplace=True))

    def forward(self, x: Tensor) -> Tensor:
        out = x
        for i in range(1, self.depth + 1):
            out = self._convolved(i, self.get_submodule(f"act{i}")(self._normed(i, out)))
        return self._attended(out) + self.shortcut(x)


class IResBlock(ResidualBlock):
    """The first, a middle or the last block of a stage of an improved residual network."""

    def _norm_width(self, i: int, use: Use, place: Place) -> int:
        return use.conv.width if place.first or i < self.depth else 0

    def _activations(self, stage: Stage, place: Place, dimensions: int) -> None:
        self.place = place
        if not place.first and not place.second:
            self.norm0 = norm(dimensions, stage.out)
        if ends("ires", place):
            self.norm_out = norm(dimensions, stage.out)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out = x
        if not self.place.first:
            # The block before ends with an addition alone, and the shortcut needs that sum unrectified.
            out = nn.functional.relu(x) if self.place.second else self.act(self.norm0(x))
        for i in range(1, self.depth):
            out = self.act(self._normed(i, self._convolved(i, out)))
        out = self._convolved(self.depth, out)
        out = self._attended(self._normed(self.depth, out) if self.place.first else out) + self.shortcut(x)
        return self.act(self.norm_out(out)) if ends("ires", self.place) else out


def shortcut(stage: Stage, in_width: int, dimensions: int) -> nn.Module:
    """The shortcut of the first block of a stage: pooling, projection, both or neither (PyConv, section 4)."""
    parts = nn.Sequential()
    stride = Use(pointwise(stage.out), in_width, stage.stride, stage.time_stride).strides(dimensions)
    if shortcut_pools(stage):
        parts.add_module("pool", max_pool(dimensions, pool_window(stage.time_stride, dimensions), stride))
        stride = 1 if dimensions == 2 else (1, 1, 1)
    if shortcut_projects(stage, in_width):
        parts.add_module("conv", build_conv(pointwise(stage.out), in_width, stride))
        parts.add_module("norm", norm(dimensions, stage.out))
    return parts if len(parts) else nn.Identity()


FORMS: dict[str, type[ResidualBlock]] = {"post": PostBlock, "pre": PreBlock, "ires": IResBlock}
