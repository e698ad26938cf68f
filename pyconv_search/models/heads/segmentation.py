"""Segmentation heads as modules; :mod:`pyconv_search.arch.heads.segmentation` describes each and cites its paper."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pyconv_search.arch.heads.segmentation import AUXILIARY_WIDTH, SegmentationHead, spatial
from pyconv_search.arch.spec import Conv, pointwise
from pyconv_search.arch.trace import Shape
from pyconv_search.models.dimensions import average
from pyconv_search.ops.build import build_conv
from pyconv_search.ops.plain import Conv2d

DROPOUT = 0.1


class Segmentation(nn.Module):
    """Classifies every pixel: features of which the last is N×channels×h×w, to N×classes×``size``.

    In training, a head with an auxiliary one puts out a pair: its logits, and those of the auxiliary head from the
    first of two features.

    Raises:
        ValueError: (batch normalisation's) in training with one image where features are averaged to one position.
    """

    def __init__(self, head: SegmentationHead, shapes: Sequence[Shape], classes: int) -> None:
        super().__init__()
        self.context = CONTEXTS[head.kind](head, shapes[-1][0])
        self.dropout = nn.Dropout2d(DROPOUT)
        self.classify = Conv2d(head.width, classes, 1)
        self.auxiliary = Auxiliary(shapes[0][0], classes) if head.auxiliary else None

    def forward(self, features: Sequence[Tensor], size: Sequence[int]) -> Tensor | tuple[Tensor, Tensor]:
        logits = resized(self.classify(self.dropout(self.context(features[-1]))), size)
        if self.auxiliary is None or not self.training:
            return logits
        return logits, resized(self.auxiliary(features[0]), size)


class Auxiliary(nn.Sequential):
    """The classification of an earlier stage: N×in_width×h×w to N×classes×h×w (PSPNet, section 3.3)."""

    def __init__(self, in_width: int, classes: int) -> None:
        super().__init__()
        self.context = unit(spatial(AUXILIARY_WIDTH), in_width)
        self.dropout = nn.Dropout2d(DROPOUT)
        self.classify = Conv2d(AUXILIARY_WIDTH, classes, 1)


# Which fields of the head below are there depends on its kind; the Architecture has seen that they are.
class Conv3x3(nn.Module):
    """One convolution: N×in_width×h×w to N×width×h×w, as those below."""

    def __init__(self, head: Any, in_width: int) -> None:
        super().__init__()
        self.out = unit(spatial(head.width), in_width)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(x)


class ASPP(nn.Module):
    """Parallel dilated convolutions and the average of all positions."""

    def __init__(self, head: Any, in_width: int) -> None:
        super().__init__()
        width, rates = head.branch, head.rates
        self.pointwise = unit(pointwise(width), in_width)
        self.atrous = nn.ModuleList(unit(spatial(width, rate), in_width) for rate in rates)
        self.pool = average(2)
        self.image = unit(pointwise(width), in_width)
        self.out = unit(pointwise(head.width), (len(rates) + 2) * width)

    def forward(self, x: Tensor) -> Tensor:
        branches = [self.pointwise(x), *(branch(x) for branch in self.atrous)]
        return self.out(torch.cat([*branches, resized(self.image(self.pool(x)), x.shape[2:])], 1))


class PPM(nn.Module):
    """The features beside their averages over grids of several sizes."""

    def __init__(self, head: Any, in_width: int) -> None:
        super().__init__()
        width, bins = head.branch, head.bins
        self.pools = nn.ModuleList(nn.AdaptiveAvgPool2d(n) for n in bins)
        self.branches = nn.ModuleList(unit(pointwise(width), in_width) for _ in bins)
        self.out = unit(spatial(head.width), in_width + len(bins) * width)

    def forward(self, x: Tensor) -> Tensor:
        pairs = zip(self.pools, self.branches, strict=True)
        return self.out(torch.cat([x, *(resized(branch(pool(x)), x.shape[2:]) for pool, branch in pairs)], 1))


class PyConvPH(nn.Module):
    """Pyramidal convolutions over the features and over their averages on a small grid, merged."""

    def __init__(self, head: Any, in_width: int) -> None:
        super().__init__()
        self.local_branch = _surrounded(head.local_pyramid, in_width, head.branch)
        self.pool = nn.AdaptiveAvgPool2d(head.bins[0])
        self.global_branch = _surrounded(head.global_pyramid, in_width, head.branch)
        self.out = unit(spatial(head.width), 2 * head.branch)

    def forward(self, x: Tensor) -> Tensor:
        whole = resized(self.global_branch(self.pool(x)), x.shape[2:])
        return self.out(torch.cat([self.local_branch(x), whole], 1))


CONTEXTS: dict[str, Callable[[Any, int], nn.Module]] = {
    "conv3x3": Conv3x3,
    "aspp": ASPP,
    "ppm": PPM,
    "pyconvph": PyConvPH,
}


def unit(conv: Conv, in_width: int) -> nn.Sequential:
    """A convolution, normalised and rectified."""
    parts = nn.Sequential()
    parts.add_module("conv", build_conv(conv, in_width, 1))
    parts.add_module("norm", nn.BatchNorm2d(conv.width))
    parts.add_module("act", nn.ReLU(inplace=True))
    return parts


def _surrounded(pyramid: Conv, in_width: int, width: int) -> nn.Sequential:
    parts = nn.Sequential()
    parts.add_module("reduce", unit(pointwise(width), in_width))
    parts.add_module("pyramid", unit(pyramid, width))
    parts.add_module("fuse", unit(pointwise(width), pyramid.width))
    return parts


def resized(x: Tensor, size: Sequence[int]) -> Tensor:
    """Interpolated to height and width ``size``, corners aligned as in the released PSPNet and PyConvSegNet."""
    if tuple(x.shape[2:]) == tuple(size):
        return x
    return nn.functional.interpolate(x, tuple(size), mode="bilinear", align_corners=True)
