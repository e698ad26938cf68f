"""The feature pyramid network as a module; :mod:`pyconv_search.arch.heads.fpn` is its closed form."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from pyconv_search.arch.heads.fpn import FPN
from pyconv_search.arch.trace import Shape
from pyconv_search.models.dimensions import conv
from pyconv_search.models.heads.start import xavier


class FPNHead(nn.Module):
    """The features of several stages, N×channels×h×w each, to a list of as many maps N×width×h×w, or one more."""

    def __init__(self, head: FPN, shapes: Sequence[Shape], classes: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(conv(2, shape[0], head.width, 1, bias=True) for shape in shapes)
        self.output = nn.ModuleList(conv(2, head.width, head.width, 3, bias=True) for _ in shapes)
        self.extra = nn.MaxPool2d(1, 2) if head.extra else None

    def reset_head(self) -> None:
        xavier(self)

    def forward(self, features: Sequence[Tensor], size: Sequence[int]) -> list[Tensor]:
        maps = [lateral(x) for lateral, x in zip(self.lateral, features, strict=True)]
        for i in reversed(range(len(maps) - 1)):
            maps[i] = maps[i] + _resized(maps[i + 1], maps[i].shape[2:])
        maps = [output(x) for output, x in zip(self.output, maps, strict=True)]
        return maps if self.extra is None else [*maps, self.extra(maps[-1])]


def _resized(x: Tensor, sides: Sequence[int]) -> Tensor:
    """The nearest neighbours; stages of stride 1 leave the sides as they are."""
    return x if x.shape[2:] == sides else nn.functional.interpolate(x, tuple(sides), mode="nearest")
