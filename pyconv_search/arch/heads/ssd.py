"""The head of the single-shot detector, with standard or pyramidal convolutions.

Liu et al.: SSD: Single Shot MultiBox Detector, 2016, section 2; its form behind residual networks, and with pyramids,
as in PyConv (supplement, section 1). What the paper leaves open is as its table 1 prints the costs of four detectors:
1×1 convolutions to half the channels, normalisation and activation after every convolution but the predictors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pyconv_search.arch.heads.head import Backbone
from pyconv_search.arch.pyramid import StageKeys, conv
from pyconv_search.arch.spec import Conv, settled_conv
from pyconv_search.arch.trace import Shape, Tensor, Trace, each, window
from pyconv_search.fields import Fields, Path, Problems, integer, integers, nearest

# The aspect ratios that, with their inverses, join the two squares at a position, by its number of default boxes.
RATIOS: dict[int, tuple[int, ...]] = {2: (), 4: (2,), 6: (2, 3)}

# The feature maps behind the backbone's, for images of 300×300.
LEVELS = {"ssd": (1, 1, 1, 1, 1), "pyconvssd": (4, 3, 2, 1, 1)}
WIDTHS = (512, 512, 256, 256, 256)
STRIDES = (2, 2, 2, 1, 1)
BOXES = (4, 6, 6, 6, 4, 4)


@dataclass(frozen=True, slots=True)
class SSD:
    """Predicts boxes and classes on the last features and on one more feature map for each of ``convs``.

    Before the i-th of ``convs`` stands a 1×1 convolution to ``inner[i]`` channels. A convolution of stride 1 is not
    padded, and shrinks its map by that. ``boxes`` counts the default boxes at a position of every map, that of the last
    features first. On each map one 3×3 convolution puts out four numbers a default box and another one a score for
    every class, of which the first is the background; only these have biases.
    """

    inner: tuple[int, ...]
    convs: tuple[Conv, ...]
    strides: tuple[int, ...]
    boxes: tuple[int, ...]
    kind: str = "ssd"

    def __post_init__(self) -> None:
        if len(self.inner) == len(self.convs):
            settled = (settled_conv(own, {n}) for own, n in zip(self.convs, self.inner, strict=True))
            object.__setattr__(self, "convs", tuple(settled))

    def taps(self, stages: int) -> tuple[int, ...]:
        return (stages - 1,)

    def maps(self, features: Shape) -> tuple[Shape, ...]:
        """(height, width) of every map on which boxes are predicted, for last features of shape ``features``."""
        found = [features[1:]]
        for own, stride in zip(self.convs, self.strides, strict=True):
            found.append(_output(found[-1], own, stride))
        return tuple(found)

    def check(self, features: Sequence[Shape], path: Path, problems: Problems) -> None:
        if self._counts_fit(path, problems):
            self._check_convs(path, problems)
            self._check_sizes(features[-1][1:], path, problems)

    def _counts_fit(self, path: Path, problems: Problems) -> bool:
        count = len(self.convs)
        lengths = {"inner": len(self.inner), "strides": len(self.strides), "boxes": len(self.boxes)}
        for key, wanted in (("inner", count), ("strides", count), ("boxes", count + 1)):
            if lengths[key] != wanted:
                what = f"{wanted} feature maps" if key == "boxes" else f"{wanted} convs"
                problems.add((*path, key), f"must have one number for each of the {what}, but got {lengths[key]}")
        for i, n in enumerate(self.boxes):
            if n not in RATIOS:
                problems.add((*path, "boxes", i), f"must be 2, 4 or 6, but got {n}; nearest: {nearest(n, RATIOS)}")
        return lengths["inner"] == lengths["strides"] == count

    def _check_convs(self, path: Path, problems: Problems) -> None:
        from pyconv_search.arch.check import check_conv  # it reads the table of heads, which names this one

        for i, (own, inner, stride) in enumerate(zip(self.convs, self.inner, self.strides, strict=True)):
            check_conv(own, {inner}, 2, (*path, "convs", i), problems)
            levels, pattern = len(own.levels), own.levels[0].pattern
            if stride == 1 and (levels > 1 or len(pattern) > 1):
                got = f"{levels} levels" if levels > 1 else f"the pattern {list(pattern)}"
                problems.add(
                    (*path, "convs", i, "levels"),
                    f"at stride 1, which has no padding, must be one level of one dilation, but got {got}; "
                    "nearest: 1, or stride 2",
                )

    def _check_sizes(self, last: Shape, path: Path, problems: Problems) -> None:
        sides = last
        for i, (own, stride) in enumerate(zip(self.convs, self.strides, strict=True)):
            extent = _extent(own)
            if stride == 1 and min(sides) < extent:
                problems.add(
                    (*path, "convs", i, "stride"),
                    f"{extent}×{extent} without padding does not fit a map of {_by(sides)}; nearest: stride 2, "
                    f"{i} instead of {len(self.convs)} convs, or last features of {_by((self._least_side(),) * 2)} "
                    f"instead of {_by(last)}",
                )
                return
            sides = _output(sides, own, stride)

    def _least_side(self) -> int:
        """The smallest side of the last features that every convolution without padding fits."""
        side = 1
        for own, stride in zip(reversed(self.convs), reversed(self.strides), strict=True):
            side = side + _extent(own) - 1 if stride == 1 else (side - 1) * stride + 1
        return side

    def trace(self, t: Trace, features: Sequence[Tensor], classes: int, image: Shape) -> Sequence[Tensor]:
        """Locations (boxes, 4) and scores (boxes, classes)."""
        t = t.within("head")
        maps = [features[0]]
        for i, (inner, own, stride) in enumerate(zip(self.inner, self.convs, self.strides, strict=True)):
            maps.append(_extra(t.within(f"extra.{i}"), maps[-1], inner, own, stride))
        read = list(zip(maps, self.boxes, strict=True))
        return tuple(
            t.cat([_predicted(t, f"{name}.{i}", x, boxes, numbers) for i, (x, boxes) in enumerate(read)])
            for name, numbers in (("locations", 4), ("scores", classes))
        )


def _extra(t: Trace, x: Tensor, inner: int, own: Conv, stride: int) -> Tensor:
    """The next smaller feature map."""
    x = t.relu("act1", t.norm("norm1", t.conv("reduce", x, inner, 1)))
    return t.relu("act2", t.norm("norm2", t.convolution("conv", x, own, stride, padded=stride > 1)))


def _predicted(t: Trace, name: str, x: Tensor, boxes: int, numbers: int) -> Tensor:
    """``numbers`` for every default box, box by box at every position."""
    y = t.conv(name, x, boxes * numbers, 3, bias=True)
    return t.rearrange(y, (boxes * math.prod(x.shape[1:]), numbers))


def _extent(own: Conv) -> int:
    """How many pixels the bottom level spans."""
    level = own.levels[0]
    return level.pattern[0] * (each(level.kernel, 1)[-1] - 1) + 1


def _output(sides: Shape, own: Conv, stride: int) -> Shape:
    return tuple(window(n, _extent(own), stride, padded=stride > 1) for n in sides)


def _by(sides: Shape) -> str:
    return "×".join(map(str, sides))


def read(kind: str, fields: Fields, backbone: Backbone) -> SSD:
    """The head that a mapping describes; what it leaves out is as published for 300×300 pixels.

    ``extra`` counts the feature maps behind the backbone's. ``width`` (output channels) and ``levels`` are one number
    for all of them or a list of one each, ``boxes`` alike with the backbone's map first; where one number says
    ``levels``, maps that are made without padding still have one. The other keys of a convolution hold for all.
    ``convs`` may give each its own, besides its ``width``, ``inner`` and ``stride``. Published lists are cut, or
    continued with their last entry.
    """
    written = fields.items("convs", None)
    count = fields.integer("extra", len(written) or len(WIDTHS), high=16)
    if written and len(written) != count:
        fields.add("convs", f"must have one entry for each of the {count} extra feature maps, but got {len(written)}")
    levels = fields.take("levels", None)
    if isinstance(levels, (list, tuple)) and len(levels) != count:
        fields.add("levels", f"must be one number, or one for each of the {count} extra feature maps, but got {levels}")
    widths = _one_each(fields, "width", _continued(WIDTHS, count))
    boxes = _one_each(fields, "boxes", _continued(BOXES, count + 1))
    inner, convs, strides = [], [], []
    for i, values in enumerate((written or [{}] * count)[:count]):
        own = Fields(values, (*fields.path, "convs", i), fields.problems)
        width = own.integer("width", widths[i])
        inner.append(own.integer("inner", max(width // 2, 1)))
        strides.append(own.integer("stride", _continued(STRIDES, count)[i]))
        keys = _Keys(own, fields, i, _continued(LEVELS[kind], count)[i], strides[i] > 1)
        convs.append(conv(keys, width, {inner[i]}))
        own.close()
    return SSD(tuple(inner), tuple(convs), tuple(strides), boxes)


class _Keys(StageKeys):
    """The keys of one of the convolutions, which has ``usual`` levels if nothing says how many."""

    def __init__(self, own: Fields, common: Fields, index: int, usual: int, padded: bool) -> None:
        super().__init__(own, common, index)
        self.usual, self.padded = usual, padded

    def pick(self, key: str, default: Any = None) -> tuple[Any, Path]:
        value, path = super().pick(key, default)
        if key != "levels":
            return value, path
        for_all = isinstance(value, int) and path == (*self.common.path, key)
        return (self.usual if value is None else 1 if for_all and not self.padded else value), path


def _continued(published: tuple[int, ...], count: int) -> tuple[int, ...]:
    return (published + published[-1:] * count)[:count]


def _one_each(fields: Fields, key: str, default: tuple[int, ...]) -> tuple[int, ...]:
    """One number for each entry of ``default``, from a list of them or one for all."""
    value = fields.take(key, None)
    if value is None:
        return default
    path = (*fields.path, key)
    if not isinstance(value, (list, tuple)):
        return (integer(value, path, fields.problems),) * len(default)
    numbers = integers(value, path, fields.problems)
    if len(numbers) != len(default):
        fields.problems.add(path, f"must be one number, or one for each of the {len(default)} maps, but got {value}")
        return default
    return numbers
