"""One residual block as the PyConv paper draws it: its convolutions as slabs, its shortcut at the side.

A slab is the kernel of one output channel. Its face is the kernel's grid, its depth the input channels that it reads,
drawn as a share of all that reach the layer; the rest stands faint behind it, cut into the other groups. The levels of
a pyramid stand one above the other, the smallest kernel at the bottom (PyConv, figures 2 and 3).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pyconv_search.arch.blocks import main_branch, shortcut_pools, shortcut_projects
from pyconv_search.arch.dilation import dilation_matrix
from pyconv_search.arch.families import FAMILIES
from pyconv_search.arch.inception import BRANCHES
from pyconv_search.arch.spec import Conv, Level, Stage
from pyconv_search.report.drawing_lattice import Lattice, lattice_of
from pyconv_search.report.pen import (
    INK,
    LINE,
    PAPER,
    QUIET,
    SIZE,
    WASH,
    Piece,
    arrow,
    at,
    dilation_colour,
    ink_on,
    kernel_face,
    kernel_text,
    lines,
    number,
    polygon,
    rect,
    text,
    text_width,
)

DEEP = (40.0, -13.0)  # where the back of a full-depth slab lies, seen from its front
FACE, SIDE_FACE, TOP_FACE, EDGE = "#dfe8f1", "#aec2d6", "#c8d7e6", "#46586b"
MOST_LINES = 15
FINEST = 2.4
CHIP = 11.0
MOST_CHIPS = 8
BOX = 22.0
PAD, STEP, GUTTER = 8.0, 13.0, 38.0


@dataclass(frozen=True, slots=True)
class Scale:
    """What all blocks of one drawing share: pixels for one kernel tap, letters of the lattices, sides of kernels."""

    tap: float
    letters: Mapping[Lattice, str]
    dimensions: int


def label(level: Level, alone: bool, dimensions: int) -> str:
    """``9×9, 16, G=16``: kernel, output channels, groups; a convolution that stands alone leaves out a single group."""
    words = f"{kernel_text(level.kernel, dimensions)}, {level.width}"
    return words if alone and level.groups == 1 else f"{words}, G={level.groups}"


def is_pointwise(conv: Conv) -> bool:
    """Whether the convolution is a plain 1×1 one, which is drawn as a box."""
    return len(conv.levels) == 1 and set(kernel_face(conv.levels[0].kernel)) == {1} and conv.levels[0].groups == 1


def box(words: str, width: float = 0.0) -> Piece:
    """A labelled box: whatever is no spatial convolution."""
    wide = max(width, text_width(words) + 2 * PAD)
    return Piece(rect(0, 0, wide, BOX, PAPER, EDGE, 4) + text(wide / 2, BOX / 2 + 4, words, anchor="middle"), wide, BOX)


def convolution(conv: Conv, in_width: int, scale: Scale) -> Piece:
    """A convolution: a labelled box when it is 1×1, otherwise its levels as slabs, the bottom level at the bottom."""
    alone = len(conv.levels) == 1
    if is_pointwise(conv):
        return box(label(conv.levels[0], alone, scale.dimensions))
    faces = max(kernel_face(level.kernel)[1] for level in conv.levels) * scale.tap
    most = max(level.width for level in conv.levels)
    rows, y, wide = [], PAD, 0.0
    for level in reversed(conv.levels):
        row = _level(level, in_width, faces, 0 if alone else level.width / most, scale)
        rows.append(at(row, PAD, y))
        y, wide = y + row.height + 5, max(wide, row.width)
    return Piece(rect(0, 0, wide + 2 * PAD, y - 5 + PAD, WASH, LINE, 6) + "".join(rows), wide + 2 * PAD, y - 5 + PAD)


def _level(level: Level, in_width: int, faces: float, share: float, scale: Scale) -> Piece:
    """A slab, centred in the column of faces, and beside it what it is; a bar for its share of the output channels."""
    slab = _slab(level, in_width, scale.tap)
    words = label(level, share == 0, scale.dimensions)
    chips = _chips(level, in_width, scale)
    x, width = faces + DEEP[0] + 10, text_width(words)
    beside = 12 + (15 if chips.width else 0) + (6 if share else 0)
    height = max(slab.height, beside)
    face_width = kernel_face(level.kernel)[1] * scale.tap
    y = (height - beside) / 2 + 10
    parts = [at(slab, (faces - face_width) / 2, (height - slab.height) / 2), text(x, y, words)]
    if chips.width:
        parts.append(at(chips, x, y + 5))
    if share:
        parts.append(rect(x, y + (21 if chips.width else 5), 60 * share, 3, SIDE_FACE))
    return Piece("".join(parts), x + max(width, chips.width, 60 if share else 0), height)


def _slab(level: Level, in_width: int, tap: float) -> Piece:
    high, wide = (side * tap for side in kernel_face(level.kernel))
    depth, rise = DEEP[0], -DEEP[1]
    shape = (wide, high)
    own = 1 / level.groups
    rest = _faint(shape, level.groups) if level.groups > 1 else ""
    front = rect(0, 0, wide, high, _front(level), EDGE) + _grid(level, tap)
    body = f'<g stroke-width="0.7">{rest}{_sides(level, in_width, shape, own)}{front}</g>'
    return Piece(at(Piece(body, 0, 0), 0, rise), wide + depth, high + rise)


def _front(level: Level) -> str:
    return FACE if level.pattern == (1,) else dilation_colour(level.pattern[0])


def _grid(level: Level, tap: float) -> str:
    high, wide = kernel_face(level.kernel)
    if max(high, wide) > MOST_LINES:
        return ""
    across = [[(0, i * tap), (wide * tap, i * tap)] for i in range(1, high)]
    down = [[(i * tap, 0), (i * tap, high * tap)] for i in range(1, wide)]
    colour = EDGE if ink_on(_front(level)) == INK else PAPER
    return lines([*across, *down], colour, 0.4)


def _sides(level: Level, in_width: int, shape: tuple[float, float], own: float) -> str:
    """Top and side; along the depth the dilations of the first output channel's kernels, where they can be seen."""
    top, side = [TOP_FACE], [SIDE_FACE]
    if level.pattern != (1,):
        fan_in = in_width // level.groups
        shown = min(fan_in, 2 * len(level.pattern), max(1, int(own * DEEP[0] / FINEST)))
        whole = dilation_matrix(in_width, level.width, level.pattern, level.axes, level.groups)[0]
        top = side = [dilation_colour(rate) for rate in whole[:shown]]
    n = len(top)
    spans = [(own * i / n, own * (i + 1) / n) for i in range(n)]
    edge = EDGE if n == 1 else ""
    parts = [_skin(shape, a, b, top[i], side[i], edge) for i, (a, b) in enumerate(spans)]
    return "".join(parts) + ("" if n == 1 else _skin(shape, 0, own, "none", "none", EDGE))


def _skin(
    shape: tuple[float, float], start: float, end: float, top: str, side: str, edge: str, width: float = 0.7
) -> str:
    """The top and the right side of the slab between two depths, as shares of the full depth."""
    (wide, high), (x, y) = shape, DEEP
    over = [(start * x, start * y), (end * x, end * y), (wide + end * x, end * y), (wide + start * x, start * y)]
    beside = [*over[3:1:-1], (wide + end * x, high + end * y), (wide + start * x, high + start * y)]
    return polygon(over, top, edge, width) + polygon(beside, side, edge, width)


def _faint(shape: tuple[float, float], groups: int) -> str:
    """The other groups' depth: an outline, its side cut at every group where the cuts can be told apart."""
    (wide, high), (x, y) = shape, DEEP
    cuts = [i / groups for i in range(2, groups)] if DEEP[0] / groups >= FINEST else []
    uprights = [[(wide + a * x, a * y), (wide + a * x, high + a * y)] for a in cuts]
    return _skin(shape, 1 / groups, 1.0, PAPER, PAPER, LINE) + lines(uprights, LINE, 0.6)


def _chips(level: Level, in_width: int, scale: Scale) -> Piece:
    """The dilations of the pattern as coloured chips, and the letter of the lattice that shows them."""
    if level.pattern == (1,):
        return Piece("", 0, 0)
    parts, x = [], 0.0
    for rate in level.pattern[:MOST_CHIPS]:
        colour = dilation_colour(rate)
        wide = max(CHIP, text_width(str(rate), 8.5) + 3)
        parts.append(rect(x, 0, wide, CHIP, colour, EDGE))
        parts.append(text(x + wide / 2, CHIP - 2.5, str(rate), 8.5, "middle", ink_on(colour)))
        x += wide
    if len(level.pattern) > MOST_CHIPS:
        parts.append(text(x + 2, CHIP - 2, "…"))
        x += 12
    lattice = lattice_of(level, in_width)
    if lattice is not None:
        parts.append(text(x + 6, CHIP - 1.5, scale.letters[lattice], SIZE, bold=True))
        x += 6 + text_width(scale.letters[lattice], SIZE, True)
    return Piece(f'<g stroke-width="0.5">{"".join(parts)}</g>', x, CHIP)


def column(pieces: list[Piece], width: float = 0.0) -> Piece:
    """Pieces one below the other, centred, with an arrow from each to the next."""
    wide = max([width, *(piece.width for piece in pieces)])
    parts, y = [], 0.0
    for i, piece in enumerate(pieces):
        if i:
            parts.append(arrow([(wide / 2, y), (wide / 2, y + STEP)]))
            y += STEP
        parts.append(at(piece, (wide - piece.width) / 2, y))
        y += piece.height
    return Piece("".join(parts), wide, y)


def block(family: str, stage: Stage, in_width: int, scale: Scale) -> Piece:
    """The first block of a stage: its convolutions downwards, its shortcut on the left, their sum at the bottom."""
    blocks = FAMILIES[family].BLOCKS
    found = [convolution(use.conv, use.in_width, scale) for use in main_branch(stage, in_width, True, blocks)]
    if stage.block in BRANCHES:
        found.insert(0, box(f"{len(BRANCHES[stage.block])} branches, concatenated"))
    if stage.se:
        found.append(box(f"squeeze-excite, 1/{stage.se.reduction}"))
    main = column(found)
    centre, top = GUTTER + main.width / 2, PAD + 14
    end = top + main.height + STEP + 7
    layers = ["max"] * shortcut_pools(stage) + ["1×1"] * shortcut_projects(stage, in_width)
    gutter = PAD + 11
    parts = [
        rect(0, 0, GUTTER + main.width + PAD, end + 7 + PAD + 8, PAPER, LINE, 8),
        arrow([(centre, 0), (centre, top)]),
        arrow([(centre, 7), (gutter, 7), (gutter, end), (centre - 7, end)]),
        at(main, GUTTER, top),
        arrow([(centre, top + main.height), (centre, end - 7)]),
        f'<circle cx="{number(centre)}" cy="{number(end)}" r="7" fill="{PAPER}" stroke="{QUIET}"/>',
        lines([[(centre - 4, end), (centre + 4, end)], [(centre, end - 4), (centre, end + 4)]], QUIET),
        arrow([(centre, end + 7), (centre, end + 7 + PAD + 8)]),
    ]
    for i, words in enumerate(layers):
        y = (7 + end) / 2 + (i - len(layers) / 2) * 20
        parts.append(rect(gutter - 13, y, 26, 15, PAPER, EDGE, 3))
        parts.append(text(gutter, y + 10.5, words, 8.5, "middle"))
    return Piece("".join(parts), GUTTER + main.width + PAD, end + 7 + PAD + 8)


def shortcut_text(stage: Stage, in_width: int) -> str:
    """``identity``; ``1×1 conv``; ``max pool, 1×1 conv``: what the first block's shortcut does."""
    layers = ["max pool"] * shortcut_pools(stage) + ["1×1 conv"] * shortcut_projects(stage, in_width)
    return ", ".join(layers) or "identity"
