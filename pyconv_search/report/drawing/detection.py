"""The heads of detectors: the maps of SSD with their boxes, the pathways of a feature pyramid network."""

from __future__ import annotations

from pyconv_search.arch.heads.fpn import FPN
from pyconv_search.arch.heads.ssd import SSD
from pyconv_search.arch.network import tapped
from pyconv_search.arch.spec import Architecture
from pyconv_search.report.drawing.anatomy import reads, size_words, stages_text
from pyconv_search.report.drawing.anatomy_head import results
from pyconv_search.report.drawing.flow import BOX, MARK, STEP, box, column, framed, mark, plus
from pyconv_search.report.drawing.pen import (
    INK,
    LINE,
    QUIET,
    WASH,
    Piece,
    arrow,
    at,
    rect,
    text,
    text_width,
)
from pyconv_search.report.drawing.slab import Scale, convolution

UNIT = "BN, ReLU"
GAP, HEADING = 22.0, 50.0
APART = 48.0


def single_shot(arch: Architecture, head: SSD, scale: Scale) -> Piece:
    """A column for every feature map, from which the next one is made: its size, its boxes, its layers, its predictors.

    The predictors are two 3×3 convolutions: four numbers that place each box, and a score for every class.
    """
    features = tapped(arch)[-1]
    widths = [features[0], *(conv.width for conv in head.convs)]
    sizes = [size_words((width, *sides)) for width, sides in zip(widths, head.maps(features), strict=True)]
    how = [stages_text(reads(arch)[0]), *(f"stride {n}" if n > 1 else "stride 1, unpadded" for n in head.strides)]
    made: list[Piece | None] = [None]
    for conv, inner in zip(head.convs, head.inner, strict=True):
        made.append(column([box(f"1×1, {inner}"), convolution(conv, inner, scale)], [UNIT]))
    tall = max((piece.height for piece in made if piece), default=0.0) + HEADING + 6
    parts, x = [], 0.0
    for i, layers in enumerate(made):
        told = [(sizes[i].replace("×", " × "), True), (how[i], False), (f"{head.boxes[i]} boxes a position", False)]
        found = _predictors(head.boxes[i], arch.classes)
        width = max(found.width, layers.width if layers else 0.0, *(text_width(w, 10, bold) for w, bold in told))
        middle, begin = x + width / 2, HEADING + (layers.height if layers else -4.0)
        parts += [
            text(x, 10 + 14 * j, words, 10, fill=QUIET if j else INK, bold=bold) for j, (words, bold) in enumerate(told)
        ]
        parts.append(at(layers, middle - layers.centre, HEADING) if layers else "")
        parts.append(arrow([(middle, begin), (middle, tall + STEP)]))
        parts.append(mark(middle, begin + 11, UNIT) if layers else "")
        parts.append(at(found, middle - found.width / 2, tall + STEP))
        parts.append(arrow([(x - GAP + 3, 6), (x - 4, 6)]) if i else "")
        x += width + GAP
    return Piece("".join(parts), x - GAP, tall + STEP + found.height)


def _predictors(boxes: int, classes: int) -> Piece:
    rows = [box(f"locations: 3×3, {boxes * 4}"), box(f"scores: 3×3, {boxes * classes}")]
    wide = max(row.width for row in rows)
    rows = [box(f"locations: 3×3, {boxes * 4}", wide), box(f"scores: 3×3, {boxes * classes}", wide)]
    tall = 2 * BOX + 3 * 5
    frame = rect(0, 0, wide + 10, tall, WASH, LINE, 6)
    return Piece(frame + at(rows[0], 5, 5) + at(rows[1], 5, 10 + BOX), wide + 10, tall)


def pyramid_network(arch: Architecture, head: FPN) -> Piece:
    """A column for every stage, largest map first: down its own pathway, and from the right what is resized to it."""
    stages, sizes = reads(arch)[0], [size_words(size).replace("×", " × ") for size in results(arch)]
    lateral, output = box(f"1×1, {head.width}"), box(f"3×3, {head.width}")
    extra = box("1×1 max pool, /2")
    wide = max(lateral.width, output.width, *(text_width(size, 10) for size in sizes))
    node, below = 20 + BOX + 26, 20 + BOX + 50
    last, parts = len(stages) - 1, []
    for i, stage in enumerate(stages):
        x = i * (wide + APART) + wide / 2
        parts += [text(x, 9, f"stage {stage}", 10, "middle", QUIET), at(lateral, x - lateral.width / 2, 20)]
        if i < last:
            parts += [plus(x, node), arrow([(x, 20 + BOX), (x, node - 7)]), arrow([(x, node + 7), (x, below)])]
            parts.append(arrow([(x + wide + APART - (7 if i + 1 < last else 0), node), (x + 7, node)]))
            parts.append(text(x + (wide + APART) / 2, node - 5, "resize", MARK, "middle", QUIET))
        else:
            parts.append(arrow([(x, 20 + BOX), (x, below)]))
        parts += [at(output, x - output.width / 2, below), arrow([(x, below + BOX), (x, below + BOX + STEP)])]
        parts.append(text(x, below + BOX + STEP + 12, sizes[i], 10, "middle"))
    width, bottom = len(stages) * (wide + APART) - APART, below + BOX + STEP + 16
    if head.extra:
        x, own = width + APART / 2, max(extra.width, text_width(sizes[-1], 10))
        middle = x + own / 2
        parts += [
            arrow([(width - (wide - output.width) / 2, below + BOX / 2), (middle - extra.width / 2, below + BOX / 2)])
        ]
        parts += [at(extra, middle - extra.width / 2, below), arrow([(middle, below + BOX), (middle, bottom - 16)])]
        parts.append(text(middle, bottom - 4, sizes[-1], 10, "middle"))
        width = x + own
    return framed(Piece("".join(parts), width, bottom), through=False)
