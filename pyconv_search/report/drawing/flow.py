"""Layers in a row and side by side: labelled boxes, columns with arrows, parallel branches, frames around them."""

from __future__ import annotations

from collections.abc import Sequence

from pyconv_search.report.drawing.pen import (
    EDGE,
    LINE,
    PAPER,
    QUIET,
    Piece,
    arrow,
    at,
    lines,
    number,
    rect,
    text,
    text_width,
)

BOX = 22.0
PAD, STEP, TOLD_STEP = 8.0, 13.0, 19.0
MARK = 8.5
BETWEEN, FAN = 12.0, 18.0


def box(words: str, width: float = 0.0) -> Piece:
    """A labelled box: whatever is no spatial convolution of the specification."""
    wide = max(width, text_width(words) + 2 * PAD)
    return Piece(rect(0, 0, wide, BOX, PAPER, EDGE, 4) + text(wide / 2, BOX / 2 + 4, words, anchor="middle"), wide, BOX)


def mark(x: float, y: float, words: str) -> str:
    """What happens on the way down at x, written right of it: ``BN, ReLU``."""
    return text(x + 7, y, words, MARK, fill=QUIET) if words else ""


def mark_width(words: str) -> float:
    """How far a mark reaches to the right of its arrow."""
    return 7 + text_width(words, MARK) if words else 0.0


def step(words: str) -> float:
    """How long an arrow is that carries a mark of these words."""
    return TOLD_STEP if words else STEP


def column(pieces: Sequence[Piece], marks: Sequence[str] = (), end: str = "") -> Piece:
    """Pieces one below the other on one axis, with an arrow from each to the next that carries one of the ``marks``.

    ``end`` is a mark behind the last piece, on an arrow that leads to what comes next.
    """
    told = [*marks, *[""] * (len(pieces) - 1 - len(marks))]
    x = max(piece.centre for piece in pieces)
    right = max(*(piece.width - piece.centre for piece in pieces), *(mark_width(words) for words in (*told, end)))
    parts, y = [], 0.0
    for i, piece in enumerate(pieces):
        if i:
            below = y + step(told[i - 1])
            parts.append(lines([[(x, y), (x, below)]]) if piece.open else arrow([(x, y), (x, below)]))
            parts.append(mark(x, y + 11, told[i - 1]))
            y = below
        parts.append(at(piece, x - piece.centre, y))
        y += piece.height
    if end:
        parts += [arrow([(x, y), (x, y + TOLD_STEP)]), mark(x, y + 11, end)]
        y += TOLD_STEP
    return Piece("".join(parts), x + right, y, pieces[0].open, x)


def parallel(pieces: Sequence[Piece]) -> Piece:
    """Branches side by side between a line that splits and one that joins."""
    if len(pieces) == 1:
        return pieces[0]
    tall = max(piece.height for piece in pieces)
    centres, x = [], 0.0
    for piece in pieces:
        centres.append(x + piece.centre)
        x += piece.width + BETWEEN
    width = x - BETWEEN
    middle, end = width / 2, FAN + tall + 7
    parts = [lines([[(middle, 0), (middle, 6)], [(centres[0], 6), (centres[-1], 6)]])]
    for piece, centre in zip(pieces, centres, strict=True):
        parts += [lines([[(centre, 6), (centre, FAN)]]) if piece.open else arrow([(centre, 6), (centre, FAN)])]
        parts += [at(piece, centre - piece.centre, FAN), lines([[(centre, FAN + piece.height), (centre, end)]])]
    parts.append(lines([[(centres[0], end), (centres[-1], end)]]))
    return Piece("".join(parts), width, end, open=True)


def plus(x: float, y: float) -> str:
    """Where two branches are added."""
    circle = f'<circle cx="{number(x)}" cy="{number(y)}" r="7" fill="{PAPER}" stroke="{QUIET}"/>'
    return circle + lines([[(x - 4, y), (x + 4, y)], [(x, y - 4), (x, y + 4)]], QUIET)


def framed(piece: Piece, *titles: str, through: bool = True) -> Piece:
    """The piece in a frame under its titles; ``through`` lets one line in at the top and, at the bottom, out."""
    wide = max([piece.width, *(text_width(words, 10) for words in titles)]) + 2 * PAD
    left = (wide - piece.width) / 2
    top = PAD + max(14 * len(titles) + 4, 6)
    x, end = left + piece.centre, top + piece.height + PAD
    parts = [rect(0, 0, wide, end, PAPER, LINE, 8)]
    parts += [text(PAD, PAD + 9 + 14 * i, words, 10, fill=QUIET) for i, words in enumerate(titles)]
    if through:
        parts.append(lines([[(x, 0), (x, top)]]) if piece.open else arrow([(x, 0), (x, top)]))
        parts.append(lines([[(x, end - PAD), (x, end)]]))
    return Piece("".join([*parts, at(piece, left, top)]), wide, end, through, x)


def beside(pieces: Sequence[Piece], gap: float = BETWEEN) -> Piece:
    """Pieces side by side without connections."""
    parts, x = [], 0.0
    for piece in pieces:
        parts.append(at(piece, x, 0))
        x += piece.width + gap
    return Piece("".join(parts), x - gap, max(piece.height for piece in pieces))
