"""The parts of a network side by side, with arrows between them and their costs below, on as many rows as they need."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from pyconv_search.report.drawing.pen import (
    ACCENT,
    EDGE,
    INK,
    LINE,
    PAPER,
    QUIET,
    Piece,
    arrow,
    at,
    lines,
    rect,
    text,
    text_width,
)
from pyconv_search.units import quantity

GAP, BELOW = 24.0, 30.0
CARD_HEAD = 24.0
NUMBER, LEAST_BAR = 44.0, 48.0
BARS = ("#8aa0b6", "#5b7896")
COSTS = ("parameters", "MACs")
WIDEST = 1560.0
LABELS, COSTS_HIGH = 74.0, 30.0


@dataclass(frozen=True, slots=True)
class Card:
    """One column of the picture: what it is called, how often it repeats, facts about it, its layers, its costs.

    ``layers`` is None for the input. ``numbers`` are (params, MACs). ``read`` says that the head reads it, and how.
    """

    name: str
    facts: tuple[str, ...]
    layers: Piece | None
    numbers: tuple[int, int] | None = None
    times: int = 1
    read: str = ""

    @property
    def width(self) -> float:
        title = text_width(self.name, 13, True) + (text_width(f" × {self.times}", 13, True) if self.times > 1 else 0)
        facts = max(text_width(fact, 10) for fact in (*self.facts, self.read))
        least = LABELS if self.numbers is None else NUMBER + LEAST_BAR
        return max(title, facts, self.layers.width if self.layers else 0.0, least)


def rows(cards: Sequence[Card]) -> Piece:
    """All cards; those that do not fit beside the others stand on the next row."""
    most = [max(card.numbers[i] for card in cards if card.numbers) for i in (0, 1)]
    room = min(card.width for card in cards if card.numbers) - NUMBER
    found, begin = [], 0
    for n in _fitting([card.width for card in cards]):
        found.append(_row(cards[begin : begin + n], most, room, begin > 0, begin + n < len(cards)))
        begin += n
    width, y, parts = max(row.width for row in found), -BELOW, []
    for row in found:
        y += BELOW
        parts.append(at(row, 0, y))
        y += row.height
        parts.append(lines([[(0, y - COSTS_HIGH - 12), (width, y - COSTS_HIGH - 12)]], LINE, 0.7))
    return Piece("".join(parts), width, y)


def _fitting(widths: Sequence[float]) -> list[int]:
    """How many cards stand on each row: as few rows as WIDEST lets; the head has the last one if that costs none."""
    fewest = len(_filled(widths, WIDEST))
    if fewest > 1 and len(_filled(widths[:-1], WIDEST)) < fewest:
        return [*_even(widths[:-1], fewest - 1), 1]
    return _even(widths, fewest)


def _even(widths: Sequence[float], fewest: int) -> list[int]:
    """The cards of each row, on so many rows, none wider than it must be."""
    runs = itertools.combinations(range(len(widths) + 1), 2)
    sums = {sum(widths[i:j]) + (j - i - 1) * GAP + (LABELS + GAP if i else 0) for i, j in runs}
    found = (_filled(widths, limit + 0.01) for limit in sorted(sums))
    return next(sizes for sizes in found if len(sizes) <= fewest)


def _filled(widths: Sequence[float], limit: float) -> list[int]:
    """The cards of each row when each takes as many as ``limit`` lets; rows after the first begin with the labels."""
    sizes, x = [0], 0.0
    for width in widths:
        if sizes[-1] and x + width > limit:
            sizes.append(0)
            x = LABELS + GAP
        sizes[-1] += 1
        x += width + GAP
    return sizes


def _row(cards: Sequence[Card], most: list[int], room: float, goes_on: bool, continues: bool) -> Piece:
    top = CARD_HEAD + 14 * max(len(card.facts) + bool(card.read) for card in cards)
    tall = max([60.0, *(card.layers.height for card in cards if card.layers)])
    y, x, parts = top + tall + 26, 0.0, []
    if goes_on:
        parts += [_labels(0, y), arrow([(LABELS + GAP - 20, 9), (LABELS + GAP - 5, 9)])]
        x = LABELS + GAP
    for i, card in enumerate(cards):
        parts.append(at(Piece(_heading(card), 0, 0), x, 0))
        if card.layers:
            parts.append(at(card.layers, x + (card.width - card.layers.width) / 2, top))
            parts.append(at(Piece(_costs(card, most, room), 0, 0), x, y))
        else:
            parts += [at(_sheets(), x, top), _labels(x, y)]
        x += card.width + GAP
        if continues or i < len(cards) - 1:
            parts.append(arrow([(x - GAP + 4, 9), (x - 5, 9)]))
    width = x - (0 if continues else GAP)
    return Piece("".join(parts), width, y + COSTS_HIGH)


def _labels(x: float, y: float) -> str:
    return "".join(text(x, y + 9 + 18 * i, words, 10, fill=QUIET) for i, words in enumerate(COSTS))


def _heading(card: Card) -> str:
    parts = [text(0, 13, card.name, 13, bold=True)]
    if card.times > 1:
        parts.append(text(text_width(card.name, 13, True) + 4, 13, f"× {card.times}", 13, fill=ACCENT, bold=True))
    parts += [text(0, 29 + 14 * i, fact, 10, fill=INK if i == 0 else QUIET) for i, fact in enumerate(card.facts)]
    parts.append(text(0, 29 + 14 * len(card.facts), card.read, 10, fill=ACCENT) if card.read else "")
    return "".join(parts)


def _costs(card: Card, most: list[int], room: float) -> str:
    parts = []
    for i, value in enumerate(card.numbers or ()):
        parts.append(text(0, 9 + 18 * i, quantity(value), 10))
        parts.append(rect(NUMBER, 1 + 18 * i, max(0.5, room * value / max(most[i], 1)), 9, BARS[i]))
    return "".join(parts)


def _sheets() -> Piece:
    """Feature maps, as three sheets one behind the other."""
    sheets = "".join(rect(10 - 5 * i, 14 + 5 * i, 34, 34, PAPER, EDGE) for i in range(3))
    return Piece(f'<g stroke-width="0.7">{sheets}</g>', 50, 60)
