"""The order of layers in the blocks of a stage, where not all of its blocks have the same (Duta et al. 2020)."""

from __future__ import annotations

from pyconv_search.arch.blocks import Place
from pyconv_search.arch.spec import Architecture
from pyconv_search.report.drawing.anatomy import blocks, is_inception, order
from pyconv_search.report.drawing.pen import (
    EDGE,
    FACE,
    LINE,
    PAPER,
    QUIET,
    WASH,
    Piece,
    arrow,
    lines,
    rect,
    text,
    text_width,
)

HIGH, BETWEEN, LABEL = 20.0, 12.0, 140.0
FILLS = {"conv": FACE, "+": PAPER}


NAMES = {
    Place(True, False, True): "only block",
    Place(True, False, False): "first block",
    Place(False, True, False): "second block",
    Place(False, False, False): "blocks between",
    Place(False, True, True): "second of two blocks",
    Place(False, False, True): "last block",
}


def orders(arch: Architecture) -> dict[str, tuple[str, ...]]:
    """The layers of a stage's first, second, other and last block; nothing where they do not differ."""
    found = {
        place: order(layers)
        for stage, traced in zip(arch.stages, blocks(arch), strict=True)
        if not is_inception(stage)
        for place, layers in traced
    }
    if len(set(found.values())) <= 1:
        return {}
    return {name: found[place] for place, name in NAMES.items() if place in found}


def ordered(arch: Architecture, width: float) -> Piece:
    """A row of small boxes for each kind of block; nothing where all of a network's blocks have the same order."""
    found = orders(arch)
    if not found:
        return Piece("", 0, 0)
    parts = [lines([[(0, 8), (width, 8)]], LINE, 0.7), text(0, 34, "Blocks of a stage", 13, bold=True)]
    y, wide = 50.0, 0.0
    for name, words in found.items():
        parts.append(text(0, y + HIGH / 2 + 4, name, fill=QUIET))
        x = LABEL
        for i, word in enumerate(words):
            own = text_width(word) + 14
            parts.append(arrow([(x - BETWEEN, y + HIGH / 2), (x, y + HIGH / 2)]) if i else "")
            parts.append(rect(x, y, own, HIGH, FILLS.get(word, WASH), EDGE, 4))
            parts.append(text(x + own / 2, y + HIGH / 2 + 4, word, anchor="middle"))
            x += own + BETWEEN
        y, wide = y + HIGH + 8, max(wide, x - BETWEEN)
    return Piece("".join(parts), wide, y + 8)
