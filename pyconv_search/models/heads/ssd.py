"""The head of the single-shot detector as a module; :mod:`pyconv_search.arch.heads.ssd` is its closed form."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pyconv_search.arch.heads.ssd import SSD
from pyconv_search.arch.spec import Conv
from pyconv_search.arch.trace import Shape
from pyconv_search.models.dimensions import conv, norm
from pyconv_search.models.heads.start import xavier
from pyconv_search.ops.build import build_conv
from pyconv_search.ops.plain import Conv2d


class SSDHead(nn.Module):
    """The last features N×channels×h×w to (locations N×boxes×4, scores N×boxes×classes) of all default boxes.

    The boxes are in the order of :func:`pyconv_search.models.boxes.default_boxes`: map by map, row by row, position by
    position. Locations are relative to their boxes (:func:`pyconv_search.models.boxes.decode`), scores before softmax.
    """

    def __init__(self, head: SSD, shapes: Sequence[Shape], classes: int) -> None:
        super().__init__()
        width = shapes[0][0]
        widths = [width, *(own.width for own in head.convs)]
        self.extra = nn.ModuleList(
            _extra(*one) for one in zip(widths[:-1], head.inner, head.convs, head.strides, strict=True)
        )
        pairs = list(zip(widths, head.boxes, strict=True))
        self.locations = nn.ModuleList(conv(2, width, boxes * 4, 3, bias=True) for width, boxes in pairs)
        self.scores = nn.ModuleList(conv(2, width, boxes * classes, 3, bias=True) for width, boxes in pairs)
        self.classes = classes

    def reset_head(self) -> None:
        xavier(self)

    def forward(self, features: Sequence[Tensor], size: Sequence[int]) -> tuple[Tensor, Tensor]:
        maps = [features[0]]
        for extra in self.extra:
            maps.append(extra(maps[-1]))
        return _predicted(self.locations, maps, 4), _predicted(self.scores, maps, self.classes)


def _extra(in_width: int, inner: int, own: Conv, stride: int) -> nn.Sequential:
    """From one feature map to the next smaller one."""
    parts = nn.Sequential()
    parts.add_module("reduce", conv(2, in_width, inner, 1))
    parts.add_module("norm1", norm(2, inner))
    parts.add_module("act1", nn.ReLU(inplace=True))
    parts.add_module("conv", build_conv(own, inner, stride) if stride > 1 else _unpadded(own, inner))
    parts.add_module("norm2", norm(2, own.width))
    parts.add_module("act2", nn.ReLU(inplace=True))
    return parts


def _unpadded(own: Conv, in_width: int) -> Conv2d:
    (level,) = own.levels
    kernel = level.kernel
    return Conv2d(in_width, level.width, kernel, dilation=level.pattern[0], groups=level.groups, bias=False)  # type: ignore[arg-type]


def _predicted(layers: nn.ModuleList, maps: Sequence[Tensor], numbers: int) -> Tensor:
    """``numbers`` for every default box of every map: N×boxes×numbers."""
    found = (layer(x).permute(0, 2, 3, 1) for layer, x in zip(layers, maps, strict=True))
    # Not len(y), which an export would take for a constant.
    return torch.cat([y.reshape(y.shape[0], -1, numbers) for y in found], 1)
