"""A network as one picture: its stages from the input to the classifier, their blocks, their costs, its dilations.

Drawn by hand as SVG: small, the same bytes each time, on its own white ground so that it reads in a dark page as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

from pyconv_search.arch import inception
from pyconv_search.arch.cost import Cost, Part, cost
from pyconv_search.arch.inception_settings import FAMILY as INCEPTION
from pyconv_search.arch.spec import Architecture, Conv, Level
from pyconv_search.errors import UserError
from pyconv_search.report.drawing_block import EDGE, Scale, block, box, column, convolution, label, shortcut_text
from pyconv_search.report.drawing_lattice import drawn, lattices, legend, letters, places, rates
from pyconv_search.report.pen import (
    ACCENT,
    INK,
    LINE,
    PAPER,
    QUIET,
    SIZE,
    Piece,
    arrow,
    at,
    kernel_face,
    kernel_text,
    lines,
    number,
    rect,
    text,
    text_width,
    wrapped,
)
from pyconv_search.report.svg import ROOT, printable
from pyconv_search.report.words import clipped, count, short
from pyconv_search.results.files import replace

MARGIN, GAP = 20.0, 24.0
HEAD, CARD_HEAD = 52.0, 66.0
TAP, MOST_FACE = 4.6, 48.0
NUMBER, LEAST_BAR = 44.0, 30.0
SMALL = 9.5
PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
BARS = ("#8aa0b6", "#5b7896")
LEAST_WIDTH = 640.0


@dataclass(frozen=True, slots=True)
class Card:
    """One column of the picture: what it is called, how often it repeats, facts about it, its layers, its costs.

    ``layers`` is None for the input. ``numbers`` are (params, MACs).
    """

    name: str
    facts: tuple[str, ...]
    layers: Piece | None
    numbers: tuple[int, int] | None = None
    times: int = 1

    @property
    def width(self) -> float:
        title = text_width(self.name, 13, True) + (text_width(f" × {self.times}", 13, True) if self.times > 1 else 0)
        facts = max(text_width(fact, 10) for fact in self.facts)
        return max(title, facts, self.layers.width if self.layers else 0.0, NUMBER + LEAST_BAR)


def write_drawing(arch: Architecture, file: Path | str, name: str = "") -> Path:
    """Write the drawing to ``file``, whole or not at all, and return where.

    UserError when the name does not end in .svg or the file cannot be written.
    """
    path = Path(file)
    if path.suffix != ".svg":
        raise UserError(f"{path}: must end in .svg, the only format that drawings have")
    return replace(path, draw(arch, name).encode())


def draw(arch: Architecture, name: str = "") -> str:
    """The network as one ``<svg>`` element without ids, which may stand alone or any number of times in a page."""
    found = cost(arch)
    row = _row(_cards(arch, found), _note(arch))
    below = _dilations(arch, row.width)
    width = max(row.width, below.width) + 2 * MARGIN
    height = MARGIN + HEAD + row.height + below.height + MARGIN
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
        at(row, MARGIN, MARGIN + HEAD),
        at(below, MARGIN, MARGIN + HEAD + row.height),
    ]
    return f"<svg {opening}>{''.join(parts)}</svg>\n"


def _facts(arch: Architecture, found: Cost) -> str:
    return (
        f"{short(found.params / 1e6)} M parameters · {short(found.gmacs)} GMACs per image · "
        f"receptive field {found.receptive_field:,} px · id {arch.arch_id[:8]}"
    )


def _description(arch: Architecture, found: Cost) -> str:
    """The picture in words, for those who listen to it."""
    stages = []
    for i, (stage, in_width) in enumerate(arch.walk(), 1):
        levels = "; ".join(
            f"{label(v, False, arch.dimensions)}, dilations {', '.join(map(str, v.pattern))}" for v in stage.conv.levels
        )
        shortcut = shortcut_text(stage, in_width)
        stages.append(f"Stage {i}: {count(stage.blocks, stage.block + ' block')} of {levels}; shortcut {shortcut}.")
    return f"A residual network for {_size(arch.input)} input. {' '.join(stages)} {_facts(arch, found)}."


def _size(size: tuple[int, ...]) -> str:
    return " × ".join(map(str, size))


def _cards(arch: Architecture, found: Cost) -> list[Card]:
    parts = {part.name: part for part in found.parts}
    kernels = [arch.stem.kernel, *(v.kernel for stage in arch.stages for v in stage.conv.levels)]
    widest = max(max(kernel_face(kernel)) for kernel in kernels)
    scale = Scale(min(TAP, MOST_FACE / widest), letters(lattices(arch)), arch.dimensions)
    cards = [Card("Input", (_size(arch.input),), None), _stem(arch, parts["stem"], scale)]
    for i, (stage, in_width) in enumerate(arch.walk(), 1):
        part = parts[f"stage{i}"]
        facts = (
            _size(part.size),
            f"{stage.block}, stride {stage.stride}",
            f"shortcut: {shortcut_text(stage, in_width)}",
        )
        layers = block(arch.family, stage, in_width, scale)
        if stage.non_local:
            layers = column([layers, box("non-local block, once")])
        cards.append(Card(f"Stage {i}", facts, layers, (part.params, part.macs), stage.blocks))
    return [*cards, *_final(arch, parts), _head(arch, parts["head"])]


def _stem(arch: Architecture, part: Part, scale: Scale) -> Card:
    stem = arch.stem
    if arch.family == INCEPTION:
        layers = [box(_step_words(step)) for step in inception.STEM]
        return Card("Stem", (_size(part.size),), column(layers), (part.params, part.macs))
    layers = [convolution(Conv((Level(stem.kernel, stem.width),)), arch.input[0], scale)]
    if stem.pool == "max":
        layers.append(box("3×3 max pool"))
    return Card("Stem", (_size(part.size), f"stride {stem.stride}"), column(layers), (part.params, part.macs))


def _step_words(step: inception.Step | inception.Pool) -> str:
    if isinstance(step, inception.Pool):
        return f"3×3 {step.kind.replace('-', ' ')}"
    return f"{kernel_text(step.kernel)}, {step.width}"


def _final(arch: Architecture, parts: Mapping[str, Part]) -> list[Card]:
    """What stands between the last stage and the head: a card, or none."""
    if "final" not in parts:
        return []
    part = parts["final"]
    words = [_step_words(step) for step in inception.FINAL] if arch.family == INCEPTION else ["norm, ReLU"]
    return [Card("Final", (_size(part.size),), column([box(w) for w in words]), (part.params, part.macs))]


def _head(arch: Architecture, part: Part) -> Card:
    if arch.head is not None:
        return Card("Head", (_size(part.size),), box(arch.head.kind), (part.params, part.macs))
    layers = column([box("global average pool"), box(f"linear, {arch.classes}")])
    return Card("Head", (count(arch.classes, "class").replace("classs", "classes"),), layers, (part.params, part.macs))


def _row(cards: list[Card], note: str) -> Piece:
    """The cards side by side with arrows between them, their costs on common lines with bars on common scales."""
    tall = max(card.layers.height for card in cards if card.layers)
    most = [max(card.numbers[i] for card in cards if card.numbers) for i in (0, 1)]
    room = min(card.width for card in cards if card.numbers) - NUMBER
    parts, x = [], 0.0
    y = CARD_HEAD + tall + 26
    for i, card in enumerate(cards):
        parts.append(at(Piece(_heading(card), 0, 0), x, 0))
        if card.layers:
            parts.append(at(card.layers, x + (card.width - card.layers.width) / 2, CARD_HEAD))
            parts.append(at(Piece(_costs(card, most, room), 0, 0), x, y))
        else:
            parts += [at(_sheets(), x, CARD_HEAD), text(x, y + 9, "parameters", 10, fill=QUIET)]
            parts.append(text(x, y + 27, "MACs", 10, fill=QUIET))
        x += card.width + GAP
        if i < len(cards) - 1:
            parts.append(arrow([(x - GAP + 4, 9), (x - 5, 9)], QUIET))
    parts.append(lines([[(0, y - 12), (x - GAP, y - 12)]], LINE, 0.7))
    width = max(x - GAP, LEAST_WIDTH)
    told = wrapped(note, width, SMALL)
    parts += [text(0, y + 54 + 13 * i, line, SMALL, fill=QUIET) for i, line in enumerate(told)]
    return Piece("".join(parts), width, y + 50 + 13 * len(told))


def _note(arch: Architecture) -> str:
    """How to read the row: of the marks, those that this network has."""
    levels = [place.level for place in places(arch)]
    parts = ["Each stage shows its first block; its other blocks have stride 1 and an identity shortcut."]
    depth = "Face of a slab: the kernel. Depth: the input channels that one output channel reads"
    parts.append(depth + (", faint the other groups." if any(level.groups > 1 for level in levels) else "."))
    if any(len(stage.conv.levels) > 1 for stage in arch.stages):
        parts.append("Bar under a label: the level's output channels.")
    if any(level.pattern != (1,) for level in levels):
        parts.append("Chips: the dilations, in turn; letter: the lattice below.")
    return " ".join(parts)


def _heading(card: Card) -> str:
    parts = [text(0, 13, card.name, 13, bold=True)]
    if card.times > 1:
        parts.append(text(text_width(card.name, 13, True) + 4, 13, f"× {card.times}", 13, fill=ACCENT, bold=True))
    parts += [text(0, 29 + 14 * i, fact, 10, fill=INK if i == 0 else QUIET) for i, fact in enumerate(card.facts)]
    return "".join(parts)


def _costs(card: Card, most: list[int], room: float) -> str:
    parts = []
    for i, value in enumerate(card.numbers or ()):
        parts.append(text(0, 9 + 18 * i, si(value), 10))
        parts.append(rect(NUMBER, 1 + 18 * i, max(0.5, room * value / max(most[i], 1)), 9, BARS[i]))
    return "".join(parts)


def si(value: int) -> str:
    """A count with three digits and a prefix: ``15.0 M``, ``1.36 G``, ``928``."""
    factor, prefix = next(((f, p) for f, p in PREFIXES if value >= 0.9995 * f), (1, ""))
    return f"{short(value / factor)} {prefix}" if prefix else str(value)


def _sheets() -> Piece:
    """Feature maps, as three sheets one behind the other."""
    sheets = "".join(rect(10 - 5 * i, 14 + 5 * i, 34, 34, PAPER, EDGE) for i in range(3))
    return Piece(f'<g stroke-width="0.7">{sheets}</g>', 50, 60)


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
        *(drawn(lattice, named[lattice], where) for lattice, where in seen.items()),
    ]
    parts = [lines([[(0, 8), (width, 8)]], LINE, 0.7), text(0, 34, "Dilations", 13, bold=True)]
    x, y, tall, wide = 0.0, 50.0, 0.0, 0.0
    for piece in pieces:
        if x and x + piece.width > width:
            x, y, tall = 0.0, y + tall + 20, 0.0
        parts.append(at(piece, x, y))
        x, tall, wide = x + piece.width + 36, max(tall, piece.height), max(wide, x + piece.width)
    return Piece("".join(parts), wide, y + tall + 4)
