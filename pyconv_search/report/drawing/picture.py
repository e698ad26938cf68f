"""A network as one picture: its stages from the input to the head, their blocks, their costs, its dilations.

Drawn by hand as SVG: small, the same bytes each time, on its own white ground so that it reads in a dark page as well.
"""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

from pyconv_search.arch.cost import Cost, cost
from pyconv_search.arch.spec import Architecture, Stage
from pyconv_search.errors import UserError
from pyconv_search.files import expanded
from pyconv_search.report.drawing.anatomy import (
    form_words,
    head_words,
    is_inception,
    kernel_text,
    shortcut_text,
    stride_words,
    used,
)
from pyconv_search.report.drawing.cards import cards
from pyconv_search.report.drawing.lattice import drawn, lattices, legend, letters, places, rates
from pyconv_search.report.drawing.order import ordered, orders
from pyconv_search.report.drawing.pen import (
    INK,
    LINE,
    PAPER,
    QUIET,
    SIZE,
    Piece,
    at,
    kernel_face,
    lines,
    number,
    rect,
    text,
    text_width,
    wrapped,
)
from pyconv_search.report.drawing.row import rows
from pyconv_search.report.drawing.slab import label
from pyconv_search.report.svg import ROOT, printable
from pyconv_search.report.words import clipped, count
from pyconv_search.results.files import replace
from pyconv_search.units import quantity

__all__ = ["draw", "write_drawing"]

MARGIN, HEAD = 20.0, 52.0
SMALL = 9.5
LEAST_WIDTH = 640.0


def write_drawing(arch: Architecture, file: Path | str, name: str = "") -> Path:
    """Write the drawing to ``file``, whole or not at all, and return where.

    UserError when the name does not end in .svg or the file cannot be written.
    """
    path = expanded(file)
    if path.suffix != ".svg":
        raise UserError(f"{path}: must end in .svg, the only format that drawings have")
    return replace(path, draw(arch, name).encode())


def draw(arch: Architecture, name: str = "") -> str:
    """The network as one ``<svg>`` element without ids, which may stand alone or any number of times in a page."""
    found = cost(arch)
    row = rows(cards(arch, found))
    width = max(row.width, LEAST_WIDTH)
    pieces = [row, _note(arch, width), ordered(arch, width), _dilations(arch, width)]
    width = max(piece.width for piece in pieces) + 2 * MARGIN
    height = MARGIN + HEAD + sum(piece.height for piece in pieces) + MARGIN
    title = clipped(printable(name), 80) or "Network"
    attributes = {**ROOT, "viewBox": f"0 0 {number(width)} {number(height)}", "font-size": number(SIZE), "fill": INK}
    attributes |= {"width": number(width), "height": number(height)}
    del attributes["xmlns:xlink"]
    opening = " ".join(f"{key}={quoteattr(value)}" for key, value in attributes.items())
    parts = [
        f"<title>{escape(title)}</title><desc>{escape(_description(arch, found))}</desc>",
        rect(0, 0, width, height, PAPER, radius=6),
        text(MARGIN, MARGIN + 14, title, 16, bold=True),
        text(MARGIN, MARGIN + 32, _facts(arch, found), 10, fill=QUIET),
    ]
    y = MARGIN + HEAD
    for piece in pieces:
        parts.append(at(piece, MARGIN, y))
        y += piece.height
    return f"<svg {opening}>{''.join(parts)}</svg>\n"


def _facts(arch: Architecture, found: Cost) -> str:
    form = f" · {form_words(arch)}" if form_words(arch) else ""
    return (
        f"{quantity(found.params)} parameters · {quantity(found.macs, 'MACs')} per "
        f"{'image' if arch.dimensions == 2 else 'clip'} · "
        f"receptive field {found.receptive_field:,} px{form} · id {arch.arch_id[:8]}"
    )


def _description(arch: Architecture, found: Cost) -> str:
    """The picture in words, for those who listen to it."""
    family = "A residual network" if arch.family == "resnet" else "An Inception-ResNet"
    stages = " ".join(_stage(arch, *found) for found in enumerate(arch.walk(), 1))
    size = " × ".join(map(str, arch.input))
    return f"{family} for {size} input. {stages} Head: {head_words(arch)}. {_facts(arch, found)}."


def _stage(arch: Architecture, i: int, walked: tuple[Stage, int]) -> str:
    stage, in_width = walked
    levels = [(label(v, False, arch.dimensions), ", ".join(map(str, v.pattern))) for v in stage.conv.levels]
    words = [count(stage.blocks, stage.block + " block")]
    if not is_inception(stage):
        words[0] += " of " + "; ".join(f"{words}, dilations {pattern}" for words, pattern in levels)
        words.append(stride_words(stage.stride, stage.time_stride, arch.dimensions))
    words += ["squeeze-and-excitation"] * (stage.se is not None) + ["a non-local block behind them"] * stage.non_local
    return f"Stage {i}: {'; '.join([*words, f'shortcut {shortcut_text(stage, in_width)}'])}."


def _note(arch: Architecture, width: float) -> Piece:
    """How to read the rows: of the marks, those that this network has."""
    told = wrapped(" ".join(_notes(arch)), width, SMALL)
    parts = [text(0, 22 + 13 * i, line, SMALL, fill=QUIET) for i, line in enumerate(told)]
    return Piece("".join(parts), width, 18 + 13 * len(told))


def _notes(arch: Architecture) -> list[str]:
    levels = [place.level for place in places(arch)]
    several = any(len(use.conv.levels) > 1 for use in used(arch))
    inception = arch.family == "inception-resnet"
    first = "its first block; its other blocks have stride 1 and an identity shortcut"
    first += ", and their layers in the order below" if orders(arch) else ""
    found = [f"Each stage shows {'one of its blocks' if inception else first}."]
    if any(level.kernel != 1 for level in levels):
        depth = "Face of a slab: the kernel. Depth: the input channels that one output channel reads"
        found.append(depth + (", faint the other groups." if any(level.groups > 1 for level in levels) else "."))
    if several:
        found.append("Bar under a label: the level's output channels.")
    if any(len(level.pattern) > 1 for level in levels):
        found.append("Chips: the dilations, in turn; letter: the lattice below.")
    if arch.dimensions == 3:
        found.append("Kernels and strides are time×height×width; a face shows height×width.")
    if any(stage.se for stage in arch.stages):
        found.append("SE: squeeze-and-excitation with 1 / r of the channels inside.")
    if any(stage.non_local for stage in arch.stages):
        pool = "2×2" if arch.dimensions == 2 else "1×2×2"
        found.append(f"Non-local block: queries, keys, values of half the channels, keys and values pooled {pool}.")
    if inception:
        found.append("/2: stride 2. V: no padding. In stem, transitions, branches BN and ReLU follow each convolution.")
        found.append("The costs of a stage include its transition.")
    if any(is_inception(stage) for stage in arch.stages):
        found.append("The concatenated branches pass a biased 1×1 convolution and are scaled down.")
    if is_inception(arch.stages[-1]):
        found.append(f"The last block of stage {len(arch.stages)} neither scales them nor rectifies the sum.")
    return found


def _dilations(arch: Architecture, width: float) -> Piece:
    """The legend of the dilation rates and the distinct lattices, on lines as wide as the row; nothing without them."""
    found, seen = rates(arch), lattices(arch)
    if not found:
        return Piece("", 0, 0)
    kernels = [kernel_face(place.level.kernel) for place in places(arch) if place.level.pattern != (1,)]
    kernel = min(kernels)
    first = legend(kernel, found)
    named = letters(seen)
    heading = f"Dilation rates, with the taps of a {kernel_text(kernel)} kernel"
    pieces = [
        Piece(
            text(0, 11, heading, SMALL, fill=QUIET) + at(first, 0, 24),
            max(first.width, text_width(heading, SMALL)),
            first.height + 24,
        ),
        *(drawn(lattice, named[lattice], where, arch.dimensions) for lattice, where in seen.items()),
    ]
    parts = [lines([[(0, 8), (width, 8)]], LINE, 0.7), text(0, 34, "Dilations", 13, bold=True)]
    x, y, tall, wide = 0.0, 50.0, 0.0, 0.0
    for piece in pieces:
        if x and x + piece.width > width:
            x, y, tall = 0.0, y + tall + 20, 0.0
        parts.append(at(piece, x, y))
        x, tall, wide = x + piece.width + 36, max(tall, piece.height), max(wide, x + piece.width)
    return Piece("".join(parts), wide, y + tall + 4)
