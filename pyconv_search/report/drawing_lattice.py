"""Dilation lattices in colour, as in PSConv, figures 2, 3 and 5: output by input channels, a cell for each kernel."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pyconv_search.arch.blocks import main_branch
from pyconv_search.arch.dilation import dilation_matrix
from pyconv_search.arch.families import FAMILIES
from pyconv_search.arch.spec import Architecture, Level
from pyconv_search.report.pen import (
    INK,
    LINE,
    QUIET,
    WASH,
    Piece,
    at,
    dilation_colour,
    ink_on,
    kernel_text,
    number,
    rect,
    text,
    text_width,
    wrapped,
)
from pyconv_search.report.words import count

MOST_CELLS = 32
MOST_TOLD = 16
SIDE, CELL = 136.0, 16.0
FOOTPRINT = 52.0
CAPTION = 9.5
LEGEND, LEGEND_GAP, LEFT, TOP, BESIDE, DOTS = 420.0, 22.0, 18.0, 36.0, 132.0, 20.0
VARIES = {
    "both": "shifted by one from each filter to the next",
    "input": "along the input channels alone",
    "output": "along the output channels alone",
    "groups": "over the groups (depthwise)",
}


@dataclass(frozen=True, slots=True)
class Lattice:
    """The corner of a dilation matrix that is drawn: two periods, or one in each of two groups.

    ``matrix`` is laid out as by :func:`pyconv_search.arch.dilation.dilation_matrix` for ``groups`` groups. Equal
    lattices are drawn once.
    """

    pattern: tuple[int, ...]
    axes: str
    groups: int
    matrix: tuple[tuple[int, ...], ...]
    depthwise: bool

    @property
    def inputs(self) -> int:
        """Input channels of a group that are drawn."""
        return len(self.matrix[0])

    @property
    def outputs(self) -> int:
        """Output channels of a group that are drawn."""
        return len(self.matrix) // self.groups


@dataclass(frozen=True, slots=True)
class Place:
    """A level in its stage (from 1), fed ``in_width`` channels."""

    stage: int
    level: Level
    in_width: int


def lattice_of(level: Level, in_width: int) -> Lattice | None:
    """What is drawn of the level that is fed ``in_width`` channels; None where all its kernels have one dilation."""
    t = len(level.pattern)
    if t == 1:
        return None
    fan_in, fan_out = in_width // level.groups, level.width // level.groups
    depthwise = level.groups == in_width > 1
    if depthwise:
        groups, side = min(level.groups, 2 * t, MOST_CELLS), 1
    elif level.groups > 1:
        groups, side = 2, min(t, MOST_CELLS // 2)
    else:
        groups, side = 1, min(2 * t, MOST_CELLS)
    inputs, outputs = min(fan_in, side), min(fan_out, side)
    matrix = dilation_matrix(groups * inputs, groups * outputs, level.pattern, level.axes, groups)
    return Lattice(level.pattern, level.axes, groups, matrix, depthwise)


def places(arch: Architecture) -> Iterator[Place]:
    """Every level in the first block of each stage."""
    for i, (stage, in_width) in enumerate(arch.walk(), 1):
        for use in main_branch(stage, in_width, True, FAMILIES[arch.family].BLOCKS):
            yield from (Place(i, level, use.in_width) for level in use.conv.levels)


def lattices(arch: Architecture) -> dict[Lattice, list[Place]]:
    """The distinct lattices in the order of the network, each with where it is."""
    found: dict[Lattice, list[Place]] = {}
    for place in places(arch):
        lattice = lattice_of(place.level, place.in_width)
        if lattice is not None:
            found.setdefault(lattice, []).append(place)
    return found


def letters(found: Mapping[Lattice, object]) -> dict[Lattice, str]:
    """What the drawing calls each lattice: A, B, …, Z, A1, B1, …"""
    return {lattice: chr(65 + i % 26) + (str(i // 26) if i >= 26 else "") for i, lattice in enumerate(found)}


def rates(arch: Architecture) -> list[int]:
    """Every dilation rate of the levels that are coloured, ascending."""
    found: set[int] = set()
    for place in places(arch):
        lattice = lattice_of(place.level, place.in_width)
        if lattice is not None:
            found.update(*lattice.matrix)
        elif place.level.pattern != (1,):
            found.update(place.level.pattern)
    return sorted(found)


def legend(kernel: tuple[int, int], found: list[int]) -> Piece:
    """The colour of each rate, and below it where a kernel of (height, width) taps its input at that rate."""
    cell = min(6.0, FOOTPRINT / ((max(kernel) - 1) * found[-1] + 1))
    tall = 22 + ((kernel[0] - 1) * found[-1] + 1) * cell
    parts, x, y, wide = [], 0.0, 0.0, 0.0
    for rate in found:
        chip = rect(0, 0, 12, 12, dilation_colour(rate), INK) + text(17, 10, f"d = {rate}")
        taps = _footprint(kernel, rate, cell)
        width = max(taps.width, 17 + text_width(f"d = {rate}"))
        if x + width > LEGEND:
            x, y = 0.0, y + tall + 16
        parts.append(at(Piece(chip + at(taps, 0, 22), width, tall), x, y))
        x, wide = x + width + LEGEND_GAP, max(wide, x + width)
    return Piece("".join(parts), wide, y + tall)


def _footprint(kernel: tuple[int, int], rate: int, cell: float) -> Piece:
    height, width = (((side - 1) * rate + 1) * cell for side in kernel)
    taps = "".join(
        rect(column * rate * cell, row * rate * cell, cell, cell, dilation_colour(rate), INK)
        for row in range(kernel[0])
        for column in range(kernel[1])
    )
    return Piece(f'<g stroke-width="0.4">{rect(0, 0, width, height, WASH, LINE)}{taps}</g>', width, height)


def drawn(lattice: Lattice, letter: str, seen: list[Place]) -> Piece:
    """The lattice under its letter and pattern, with its axes, and beside it what it is and which levels have it."""
    across, down = lattice.groups * lattice.inputs, len(lattice.matrix)
    cell = min(CELL, SIDE / max(across, down))
    width, height = across * cell, down * cell
    tall, wide = max(height, text_width("output channels", CAPTION)), max(width, text_width("input channels", CAPTION))
    told = ", ".join(map(str, lattice.pattern[:MOST_TOLD])) + (", …" if len(lattice.pattern) > MOST_TOLD else "")
    heading = f"pattern {told}"
    parts = [
        text(0, 11, letter, 13, bold=True),
        text(LEFT, 11, heading),
        text(LEFT, TOP - 6, "input channels", CAPTION, fill=QUIET),
        text(LEFT - 7, TOP + tall, "output channels", CAPTION, fill=QUIET, turned=True),
        f'<g data-lattice="{letter}" transform="translate({number(LEFT)} {number(TOP)})">{_cells(lattice, cell)}</g>',
        _beyond(lattice, seen, width, height),
    ]
    x, y = LEFT + wide + 30, TOP + 9
    for line in (line for words in _caption(lattice, seen) for line in wrapped(words, BESIDE, CAPTION)):
        parts.append(text(x, y, line, CAPTION, fill=QUIET))
        y += 13
    room = max(x + BESIDE, LEFT + text_width(heading))
    return Piece("".join(parts), room, max(TOP + tall + DOTS, y - 9))


def _cells(lattice: Lattice, cell: float) -> str:
    """The groups along the diagonal, in each a coloured and, where there is room, numbered cell for every kernel."""
    fan_in, fan_out = lattice.inputs, lattice.outputs
    cells: list[str] = []
    digits: dict[str, list[str]] = {}
    for c, row in enumerate(lattice.matrix):
        for k, rate in enumerate(row):
            x, y = (c // fan_out * fan_in + k) * cell, c * cell
            colour = dilation_colour(rate)
            cells.append(rect(x, y, cell, cell, colour))
            digits.setdefault(ink_on(colour), []).append(
                f'<text x="{number(x + cell / 2)}" y="{number(y + cell * 0.5 + 3.2)}">{rate}</text>'
            )
    outlines = "".join(
        rect(g * fan_in * cell, g * fan_out * cell, fan_in * cell, fan_out * cell, "none", INK)
        for g in range(lattice.groups)
    )
    back = rect(0, 0, lattice.groups * fan_in * cell, len(lattice.matrix) * cell, WASH, LINE)
    small = cell < 11 or max(lattice.pattern) > 9
    numbers = (
        ""
        if small
        else "".join(
            f'<g font-size="9" text-anchor="middle" fill="{ink}">{"".join(found)}</g>' for ink, found in digits.items()
        )
    )
    return f'{back}<g stroke="#ffffff" stroke-width="0.8">{"".join(cells)}</g>{outlines}{numbers}'


def _beyond(lattice: Lattice, seen: list[Place], width: float, height: float) -> str:
    """Three dots on each side where the convolution goes on, down the diagonal where it has more groups."""
    steps = [5.0 * (i + 1) for i in range(3)]
    if lattice.groups > 1:
        more = any(place.level.groups > lattice.groups for place in seen)
        dots = [(LEFT + width + step, TOP + height + step) for step in steps if more]
    else:
        dots = [(LEFT + width + step, TOP + height / 2) for step in steps if _more_inputs(lattice, seen)]
        dots += [(LEFT + width / 2, TOP + height + step) for step in steps if _more_outputs(lattice, seen)]
    return "".join(rect(x - 1, y - 1, 2, 2, QUIET) for x, y in dots)


def _more_inputs(lattice: Lattice, seen: list[Place]) -> bool:
    return any(place.in_width // place.level.groups > lattice.inputs for place in seen)


def _more_outputs(lattice: Lattice, seen: list[Place]) -> bool:
    return any(place.level.width // place.level.groups > lattice.outputs for place in seen)


def _caption(lattice: Lattice, seen: list[Place]) -> list[str]:
    found = [VARIES["groups" if lattice.depthwise else lattice.axes]]
    corner = f"{lattice.outputs} × {lattice.inputs} channels"
    cut = _more_inputs(lattice, seen) or _more_outputs(lattice, seen)
    if lattice.groups > 1:
        more = any(place.level.groups > lattice.groups for place in seen)
        found.append(f"first {lattice.groups} groups" if more else count(lattice.groups, "group"))
    if cut:
        found.append(f"{corner} of each" if lattice.groups > 1 else f"first {corner}")
    kernels: dict[str, list[int]] = {}
    for place in seen:
        kernels.setdefault(kernel_text(place.level.kernel), []).append(place.stage)
    return [*found, *(f"{kernel} in {stages_text(sorted(set(stages)))}" for kernel, stages in kernels.items())]


def stages_text(stages: list[int]) -> str:
    """``stage 1``, ``stages 1–4``, ``stages 1, 3``."""
    if len(stages) == 1:
        return f"stage {stages[0]}"
    whole = stages == list(range(stages[0], stages[-1] + 1)) and len(stages) > 2
    return f"stages {stages[0]}–{stages[-1]}" if whole else f"stages {', '.join(map(str, stages))}"
