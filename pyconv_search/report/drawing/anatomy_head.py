"""What a head holds, layer by layer in words, with the convolutions that are drawn between the lines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pyconv_search.arch.heads.fpn import FPN
from pyconv_search.arch.heads.segmentation import AUXILIARY_WIDTH, SegmentationHead
from pyconv_search.arch.heads.ssd import SSD
from pyconv_search.arch.network import parts, tapped
from pyconv_search.arch.spec import Architecture, Conv
from pyconv_search.arch.trace import Shape
from pyconv_search.report.drawing.anatomy import reads, size_words, stages_text


@dataclass(frozen=True, slots=True)
class Line:
    """A line about a head, and the convolution that it introduces, fed ``in_width`` channels."""

    words: str
    conv: Conv | None = None
    in_width: int = 0


def results(arch: Architecture) -> tuple[Shape, ...]:
    """The shapes of what the head puts out."""
    *_, last = parts(arch)
    return tuple(x.shape for x in last.units[0].results)


def head_lines(arch: Architecture) -> list[Line]:
    """What the head holds; nothing for a classifier, which needs no more than one line."""
    head = arch.head
    if isinstance(head, SegmentationHead):
        return list(_segmentation(arch, head))
    if isinstance(head, SSD):
        return list(_ssd(arch, head))
    return list(_fpn(arch, head)) if isinstance(head, FPN) else []


def _segmentation(arch: Architecture, head: SegmentationHead) -> Iterator[Line]:
    last = f"1×1 to {arch.classes}, resized to {size_words(arch.input[1:])}"
    if head.kind == "conv3x3":
        yield Line(f"3×3 to {head.width}, {last}")
    elif head.kind == "aspp":
        rates = ", ".join(map(str, head.rates or ()))
        yield Line(f"branches to {head.branch}: 1×1; 3×3 of dilation {rates}; global average pool, 1×1")
        yield Line(f"concatenated, 1×1 to {head.width}, {last}")
    elif head.kind == "ppm":
        averages = ", ".join(f"{n}×{n}" for n in head.bins or ())
        yield Line(f"branches: averages to {averages}, each 1×1 to {head.branch}, resized")
        yield Line(f"concatenated with the features, 3×3 to {head.width}, {last}")
    else:
        side, around = (head.bins or (1,))[0], f"1×1 to {head.branch}, pyramid, 1×1 to {head.branch}"
        yield Line(f"local: {around}", head.local_pyramid, head.branch or 0)
        yield Line(f"global: averages to {side}×{side}, {around}, resized", head.global_pyramid, head.branch or 0)
        yield Line(f"concatenated, 3×3 to {head.width}, {last}")
    if head.auxiliary:
        where = stages_text(reads(arch)[1])
        yield Line(f"auxiliary, in training, on {where}: 3×3 to {AUXILIARY_WIDTH}, {last}")


def _ssd(arch: Architecture, head: SSD) -> Iterator[Line]:
    features = tapped(arch)[-1]
    maps = head.maps(features)
    yield Line(f"{size_words(features)} features: {head.boxes[0]} boxes a position")
    for i, (conv, inner, stride) in enumerate(zip(head.convs, head.inner, head.strides, strict=True), 1):
        how = f"stride {stride}" if stride > 1 else "unpadded"
        size = size_words((conv.width, *maps[i]))
        yield Line(f"1×1 to {inner}, {how} to {size}: {head.boxes[i]} boxes a position", conv, inner)
    boxes = results(arch)[0][0]
    yield Line(f"on each, 3×3 to 4 numbers a box, 3×3 to {arch.classes} scores a box: {boxes} boxes")


def _fpn(arch: Architecture, head: FPN) -> Iterator[Line]:
    extra = ", every second pixel of the last" if head.extra else ""
    yield Line(f"1×1 to {head.width}, plus the next smaller map resized, 3×3 to {head.width}{extra}")
    yield Line(f"puts out {', '.join(map(size_words, results(arch)))}")
