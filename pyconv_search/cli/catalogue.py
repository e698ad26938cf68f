"""What ``networks`` prints: every published network with its printed and its computed cost, or one network drawn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from decimal import Decimal
from itertools import islice
from typing import Any

from pyconv_search.arch.canonical import to_dict
from pyconv_search.arch.cost import Cost, Part, cost
from pyconv_search.arch.presets import preset
from pyconv_search.arch.published.networks import VERDICTS, Counts, NetworkRow, Verdict, network_rows, verdict
from pyconv_search.arch.spec import Architecture, Level, Stage
from pyconv_search.arch.trace import each
from pyconv_search.cli.columns import table
from pyconv_search.results.tables import compact

# The cost of the preset of that name, at another input size where one is given.
CostOf = Callable[[str, tuple[int, ...] | None], Counts]
Judged = list[tuple[NetworkRow, Verdict]]

EIGHTHS = " ▏▎▍▌▋▊▉"
DEPTH = 16  # characters of the bar of a kernel that sees every channel


def judged(rows: Sequence[NetworkRow], cost_of: CostOf) -> Judged:
    """Every row with its verdict; each (network, input) is counted once."""
    costs = {place: cost_of(*place) for place in dict.fromkeys((row.network, row.input) for row in rows)}
    return [(row, verdict(row, costs[row.network, row.input])) for row in rows]


def published() -> Judged:
    """Every published network with the cost of the preset of its name."""
    return judged(network_rows(), _cost_of)


def _cost_of(name: str, size: tuple[int, ...] | None) -> Counts:
    arch = preset(name)
    return cost(arch if size is None else replace(arch, input=size))


def networks_dict(found: Judged) -> dict[str, Any]:
    """The table as plain values; numbers are texts in the printed digits."""
    return {"networks": [_row_dict(row, said) for row, said in found], **_totals(found)}


def _row_dict(row: NetworkRow, said: Verdict) -> dict[str, Any]:
    return {
        "paper": row.paper,
        "table": row.table,
        "row": row.row,
        "network": row.network,
        "input": row.input and list(row.input),
        "convention": row.convention,
        "params_millions": {"printed": _text(row.params), "computed": str(said.params)},
        "gflops": {"printed": _text(row.gflops), "computed": str(said.gflops)},
        "verdict": said.word,
        "note": row.note,
    }


def _text(number: Decimal | None) -> str | None:
    return None if number is None else str(number)


def _totals(found: Judged) -> dict[str, int]:
    words = Counter(said.word for _, said in found)
    printed = sum(row.printed for row, _ in found)
    return {"rows": len(found), "printed": printed, **{word.replace(" ", "_"): words[word] for word in VERDICTS}}


def networks_text(found: Judged) -> str:
    """The table for people, under a heading for every printed table; below it the notes, and how many rows match."""
    notes = list(dict.fromkeys(row.note for row, _ in found if row.note))
    head = ("row", "network", "params M", "computed", "GFLOPs", "computed", "verdict")
    top, *lines = table([head, *(_line(row, said, notes) for row, said in found)], (2, 3, 4, 5)).splitlines()
    text = [top]
    headings = [f"{row.paper}, {row.table}  (GFLOPs: {row.convention})" for row, _ in found]
    for i, (heading, line) in enumerate(zip(headings, lines, strict=True)):
        text += ["", heading] if i == 0 or heading != headings[i - 1] else []
        text.append(line)
    below = [f"[{number}] {note}" for number, note in enumerate(notes, 1)]
    return "\n".join([*text, "", *below, *([""] if below else []), _last(found)])


def _line(row: NetworkRow, said: Verdict, notes: list[str]) -> tuple[str, ...]:
    mark = f"{said.word} [{notes.index(row.note) + 1}]" if row.note else said.word
    network = row.network + (f" at {_times(row.input)}" if row.input else "")
    printed = [_text(number) or "–" for number in (row.params, row.gflops)]
    return f"  {row.row}", network, printed[0], str(said.params), printed[1], str(said.gflops), mark


def _last(found: Judged) -> str:
    n = _totals(found)
    differ = "differs" if n["differs"] == 1 else "differ"
    return (
        f"{n['match']} of {n['printed']} printed rows match to every digit; "
        f"{n['differs']} {differ}; {n['ours']} ours; {n['not_printed']} not printed"
    )


def network_text(name: str, arch: Architecture, found: Cost) -> str:
    """One network from the stem to the head: of every stage its blocks, its pyramid of levels and its cost.

    A level's line shows the kernel to scale, its output channels, its groups, and the depth of its kernels (channels
    of one group; the bar is its share of all) to scale: the two pyramids that face opposite ways (PyConv, figure 2).
    """
    lines = [f"{name}   input {_times(arch.input)}   {_cost_words(found.params, found.macs).strip()}", ""]
    stages = {f"stage{i}": stage for i, stage in enumerate(arch.stages, 1)}
    levels = iter(_levels(arch))
    words = {name: _words(stage) for name, stage in stages.items()} | {"stem": _stem_words(arch)}
    room = max(48, *map(len, words.values()))
    for part in found.parts:
        stage = stages.get(part.name)
        lines.append(_heading(part, words.get(part.name, "").ljust(room)))
        lines += islice(levels, len(stage.conv.levels) if stage else 0)
    more = {key: value for key, value in to_dict(arch).items() if key not in KNOWN_OF_NETWORK}
    lines += ["", *(f"{key} {compact(value)}" for key, value in more.items())] if more else []
    return "\n".join([*lines, "", f"receptive field {found.receptive_field} px; arch_id {arch.arch_id[:16]}"])


KNOWN_OF_NETWORK = {"stem", "stages", "classes", "input", "family"}
KNOWN_OF_STAGE = {"block", "blocks", "conv", "out", "stride", "shortcut"}


def _heading(part: Part, words: str) -> str:
    return f"{part.name:<8} {_times(part.size):<13} {words} {_cost_words(part.params, part.macs):>30}"


def _cost_words(params: int, macs: int) -> str:
    return f"{params / 1e6:.3f} M params {macs / 1e9:8.3f} GMACs"


def _stem_words(arch: Architecture) -> str:
    stem = arch.stem
    pool = ", then 3×3 max pooling" if stem.pool == "max" else ""
    return f"{_times(each(stem.kernel, arch.dimensions))} convolution, stride {stem.stride}{pool}"


def _words(stage: Stage) -> str:
    """``3 × bottleneck, stride 2, shortcut max+conv``, and whatever else the stage sets."""
    more = [f"{key} {compact(value)}" for key, value in to_dict(stage).items() if key not in KNOWN_OF_STAGE]
    return ", ".join([f"{stage.blocks} × {stage.block}, stride {stage.stride}, shortcut {stage.shortcut}", *more])


def _levels(arch: Architecture) -> list[str]:
    """One line for every level of every stage, the top (largest kernel) of each stage first, in aligned columns."""
    levels = [(stage, level) for stage in arch.stages for level in stage.conv.levels[::-1]]
    widest = max(_side(level) for _, level in levels)
    rows = []
    for stage, level in levels:
        depth = stage.conv.width // level.groups
        channels, groups = f"{level.width} channels", f"{level.groups} group{'s' if level.groups > 1 else ' '}"
        picture = ("█" * _side(level)).center(widest)
        bar = _bar(1 / level.groups)
        rows.append(
            (
                _times(each(level.kernel, arch.dimensions)),
                picture,
                channels,
                groups,
                f"depth {depth}",
                bar,
                _dilations(level),
            )
        )
    return [f"  {line}" for line in table(rows, (0, 2, 3, 4)).splitlines()]


def _dilations(level: Level) -> str:
    pattern = ",".join(map(str, level.pattern))
    return f"dilations {{{pattern}}}, axes {level.axes}" if level.pattern != (1,) else ""


def _bar(share: float) -> str:
    """A bar of this share of the full length, in eighths of a character, at least one of them."""
    whole, eighths = divmod(max(1, round(8 * DEPTH * share)), 8)
    return "█" * whole + (EIGHTHS[eighths] if eighths else "")


def _side(level: Level) -> int:
    kernel = level.kernel
    return kernel[-1] if isinstance(kernel, tuple) else kernel


def _times(size: Sequence[int]) -> str:
    return "×".join(map(str, size))
