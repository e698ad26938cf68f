"""The heads of networks: what reads the features of the stages, as a classifier, for segmentation, for detection."""

from __future__ import annotations

from pyconv_search.arch.heads.fpn import FPN
from pyconv_search.arch.heads.segmentation import AUXILIARY_WIDTH, SegmentationHead
from pyconv_search.arch.heads.ssd import SSD
from pyconv_search.arch.network import tapped
from pyconv_search.arch.spec import Architecture, Conv
from pyconv_search.arch.trace import Shape
from pyconv_search.report.drawing.anatomy import KINDS, reads, size_words, stages_text
from pyconv_search.report.drawing.anatomy_head import results
from pyconv_search.report.drawing.detection import pyramid_network, single_shot
from pyconv_search.report.drawing.flow import beside, box, column, framed, parallel
from pyconv_search.report.drawing.pen import Piece
from pyconv_search.report.drawing.slab import Scale, convolution
from pyconv_search.report.words import count

UNIT = "BN, ReLU"


def head_facts(arch: Architecture) -> tuple[str, ...]:
    """What it puts out, what it is, which stages it reads."""
    head, found = arch.head, results(arch)
    classes = count(arch.classes, "class")
    if isinstance(head, SSD):
        puts_out = f"{count(found[0][0], 'box')}, {classes}"
    elif isinstance(head, FPN):
        puts_out = f"{count(len(found), 'map')} of {count(head.width, 'channel')}"
    elif isinstance(head, SegmentationHead):
        puts_out = size_words(found[0]).replace("×", " × ")
    else:
        return (classes,)
    return puts_out, f"{KINDS[head.kind]}, reads {stages_text(reads(arch)[0])}"


def head_layers(arch: Architecture, scale: Scale) -> Piece:
    """The layers of the head."""
    head = arch.head
    if isinstance(head, SegmentationHead):
        return _segmentation(arch, head, scale)
    if isinstance(head, SSD):
        return single_shot(arch, head, scale)
    if isinstance(head, FPN):
        return pyramid_network(arch, head)
    return column([box("global average pool"), box(f"linear, {arch.classes}")])


def _segmentation(arch: Architecture, head: SegmentationHead, scale: Scale) -> Piece:
    features = tapped(arch)
    pieces, told = _context(head, features[-1], scale)
    own = column([*pieces, *_classified(arch, features[-1])], [*told, f"{UNIT}, dropout"])
    if not head.auxiliary:
        return own
    unit = [box(f"3×3, {AUXILIARY_WIDTH}"), *_classified(arch, features[0])]
    where = f"reads {stages_text(reads(arch)[1])}"
    auxiliary = framed(column(unit, [f"{UNIT}, dropout"]), "auxiliary, in training", where, through=False)
    return beside([framed(own, through=True), auxiliary])


def _classified(arch: Architecture, features: Shape) -> list[Piece]:
    return [box(f"1×1, {arch.classes}"), *_resized(features[1:], arch.input[1:])]


def _resized(sides: Shape, wanted: Shape) -> list[Piece]:
    return [box(f"resize to {size_words(wanted)}")] if sides != wanted else []


def _context(head: SegmentationHead, features: Shape, scale: Scale) -> tuple[list[Piece], list[str]]:
    """What stands before the classification, with the marks between."""
    sides, branch = features[1:], f"1×1, {head.branch}"
    if head.kind == "conv3x3":
        return [box(f"3×3, {head.width}")], []
    if head.kind == "aspp":
        found = [column([box(branch)], end=UNIT)]
        for rate in head.rates or ():
            dilated = f", dilation {rate}" if rate > 1 else ""
            found.append(column([box(f"3×3, {head.branch}{dilated}")], end=UNIT))
        found.append(_averaged(1, [box(branch)], [UNIT], sides))
        return [parallel(found), box("concatenate"), box(f"1×1, {head.width}")], ["", ""]
    if head.kind == "ppm":
        found = [box("identity")]
        found += [_averaged(n, [box(branch)], [UNIT], sides) for n in head.bins or ()]
        return [parallel(found), box("concatenate"), box(f"3×3, {head.width}")], ["", ""]
    local = _surrounded(head, head.local_pyramid, scale)
    averages = _surrounded(head, head.global_pyramid, scale)
    whole = _averaged((head.bins or (1,))[0], averages, [UNIT] * 3, sides)
    found = [framed(column(local, [UNIT, UNIT], end=UNIT), "local"), framed(whole, "global")]
    return [parallel(found), box("concatenate"), box(f"3×3, {head.width}")], ["", ""]


def _averaged(bins: int, pieces: list[Piece], told: list[str], sides: Shape) -> Piece:
    """Layers on averages of the features; ``told`` are the marks behind each."""
    average = "global average pool" if bins == 1 else f"average to {bins}×{bins}"
    resized = _resized((bins, bins), sides)
    marks = ["", *told]
    return column([box(average), *pieces, *resized], marks, end="" if resized else told[-1])


def _surrounded(head: SegmentationHead, pyramid: Conv | None, scale: Scale) -> list[Piece]:
    """A pyramid between 1×1 convolutions (PyConv, figure 6)."""
    width = head.branch or 0
    middle = [convolution(pyramid, width, scale)] if pyramid else []
    return [box(f"1×1, {width}"), *middle, box(f"1×1, {width}")]
