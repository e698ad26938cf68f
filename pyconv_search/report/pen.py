"""What the drawings of networks are made of: pieces of SVG text that know their size, colours, widths of texts.

Every shape is written with presentation attributes and without ids, so that any number of drawings stand in one page
under a strict Content-Security-Policy. Lengths are in pixels of the drawing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from xml.sax.saxutils import escape

from pyconv_search.arch.trace import each
from pyconv_search.report.svg import printable

INK, QUIET, LINE, WASH, PAPER, ACCENT = "#16181d", "#5a6270", "#c3cad4", "#f4f6f8", "#ffffff", "#005a94"
SIZE = 11.0
# The colours of dilation rates 1, 2, 4, 8, 16; others lie between. They go from light to dark, yellow over green to
# blue, so that the order survives grey print and every colour vision.
RAMP = ("#e8f3a8", "#86cfae", "#2f95bd", "#27489d", "#0a1647")
# Widths of characters in em, of a wide sans serif: a drawing cannot know which one its reader has.
NARROW, WIDE = frozenset(" ,.;:·'|()[]/iIjlft"), frozenset("mwMWGQ×=+→%")
NARROW_EM, USUAL_EM, WIDE_EM, BOLD = 0.4, 0.64, 0.86, 1.1


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a drawing: SVG text that fills ``width`` by ``height`` pixels from its own origin at the top left."""

    svg: str
    width: float
    height: float


def at(piece: Piece, x: float, y: float) -> str:
    """The piece, moved to (x, y)."""
    return f'<g transform="translate({number(x)} {number(y)})">{piece.svg}</g>'


def number(value: float) -> str:
    """A length with two decimals at most: ``12``, ``3.25``."""
    return f"{round(value, 2) + 0.0:.2f}".rstrip("0").rstrip(".")


def text(
    x: float,
    y: float,
    words: str,
    size: float = SIZE,
    anchor: str = "start",
    fill: str = INK,
    bold: bool = False,
    turned: bool = False,
) -> str:
    """One line of text with its baseline at y; ``turned`` reads upwards."""
    more = "" if anchor == "start" else f' text-anchor="{anchor}"'
    more += "" if fill == INK else f' fill="{fill}"'
    more += "" if size == SIZE else f' font-size="{number(size)}"'
    more += ' font-weight="600"' if bold else ""
    more += f' transform="rotate(-90 {number(x)} {number(y)})"' if turned else ""
    return f'<text x="{number(x)}" y="{number(y)}"{more}>{escape(printable(words))}</text>'


def text_width(words: str, size: float = SIZE, bold: bool = False) -> float:
    """How wide the text is at most in a common sans-serif font."""
    em = sum(NARROW_EM if c in NARROW else WIDE_EM if c in WIDE else USUAL_EM for c in words)
    return em * size * (BOLD if bold else 1.0)


def wrapped(words: str, width: float, size: float) -> list[str]:
    """The words on lines that are ``width`` pixels wide at most, where single words allow it."""
    lines = [""]
    for word in words.split(" "):
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and text_width(longer, size) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def rect(
    x: float, y: float, width: float, height: float, fill: str = "none", stroke: str = "", radius: float = 0
) -> str:
    """A rectangle; without ``stroke`` it has no outline."""
    more = (f' rx="{number(radius)}"' if radius else "") + (f' stroke="{stroke}"' if stroke else "")
    sides = f'x="{number(x)}" y="{number(y)}" width="{number(width)}" height="{number(height)}"'
    return f'<rect {sides} fill="{fill}"{more}/>'


def polygon(points: Iterable[tuple[float, float]], fill: str, stroke: str = "", width: float = 0.7) -> str:
    """A closed shape."""
    corners = " ".join(f"{number(x)},{number(y)}" for x, y in points)
    more = f' stroke="{stroke}" stroke-width="{number(width)}"' if stroke else ""
    return f'<polygon points="{corners}" fill="{fill}"{more}/>'


def lines(strokes: Iterable[Iterable[tuple[float, float]]], colour: str = QUIET, width: float = 1.0) -> str:
    """Open lines, each through its points."""
    d = "".join("M" + "L".join(f"{number(x)} {number(y)}" for x, y in points) for points in strokes)
    return f'<path d="{d}" fill="none" stroke="{colour}" stroke-width="{number(width)}"/>' if d else ""


def arrow(points: list[tuple[float, float]], colour: str = QUIET) -> str:
    """A line through the points with a head at its end; the last part runs down or to the right."""
    (x0, y0), (x, y) = points[-2:]
    head = [(x, y), (x - 3, y - 5), (x + 3, y - 5)] if x == x0 else [(x, y), (x - 5, y - 3), (x - 5, y + 3)]
    neck = (x, y - 4) if x == x0 and y > y0 else (x - 4, y)
    return lines([[*points[:-1], neck]], colour) + polygon(head, colour)


def dilation_colour(rate: int) -> str:
    """The colour of a dilation rate, the same in every drawing: darker is farther; rates above 16 share the darkest."""
    place = min(math.log2(rate), len(RAMP) - 1)
    low = min(int(place), len(RAMP) - 2)
    share, light, dark = place - low, RAMP[low], RAMP[low + 1]
    mixed = ((1 - share) * int(light[i : i + 2], 16) + share * int(dark[i : i + 2], 16) for i in (1, 3, 5))
    return "#" + "".join(f"{round(channel):02x}" for channel in mixed)


def ink_on(colour: str) -> str:
    """Dark or white ink, whichever stands out more on the colour (WCAG 2 contrast)."""
    light = luminance(colour)
    return INK if (light + 0.05) / (luminance(INK) + 0.05) >= 1.05 / (light + 0.05) else PAPER


def luminance(colour: str) -> float:
    """The relative luminance of ``#rrggbb`` as WCAG 2 defines it, 0 (black) to 1 (white)."""
    channels = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    linear = (c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def kernel_text(kernel: int | tuple[int, ...], dimensions: int = 2) -> str:
    """``3×3``; in a network for video ``3×3×3``, or ``3×7×7`` for (time, height, width)."""
    return "×".join(map(str, each(kernel, dimensions)))


def kernel_face(kernel: int | tuple[int, ...]) -> tuple[int, int]:
    """(height, width) of a kernel."""
    return (kernel, kernel) if isinstance(kernel, int) else (kernel[-2], kernel[-1])
