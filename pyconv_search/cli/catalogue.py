"""What ``networks`` prints: every published network with its printed and its computed cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

from pyconv_search.arch.cost import cost
from pyconv_search.arch.presets import HEADS, PRESETS, preset
from pyconv_search.arch.published.networks import VERDICTS, Counts, NetworkRow, Verdict, network_rows, verdict
from pyconv_search.cli.columns import table
from pyconv_search.report.drawing.anatomy import size_words

# The cost of the preset of that name, at another input size where one is given.
CostOf = Callable[[str, tuple[int, ...] | None], Counts]
Judged = list[tuple[NetworkRow, Verdict]]


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
    return {
        "networks": [_row_dict(row, said) for row, said in found],
        **_totals(found),
        "names": list(PRESETS),
        "heads": list(HEADS),
    }


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
    shown = {row.network for row, _ in found}
    others = [name for name in PRESETS if name not in shown]
    names = [
        f"Other names: {', '.join(others)}.",
        f"Heads, as in ps-resnet-50+fpn: {', '.join(HEADS)}.",
    ]
    return "\n".join([*text, "", *below, *([""] if below else []), *names, "", _last(found)])


def _line(row: NetworkRow, said: Verdict, notes: list[str]) -> tuple[str, ...]:
    mark = f"{said.word} [{notes.index(row.note) + 1}]" if row.note else said.word
    network = row.network + (f" at {size_words(row.input)}" if row.input else "")
    printed = [_text(number) or "–" for number in (row.params, row.gflops)]
    return f"  {row.row}", network, printed[0], str(said.params), printed[1], str(said.gflops), mark


def _last(found: Judged) -> str:
    n = _totals(found)
    differ = "differs" if n["differs"] == 1 else "differ"
    return (
        f"{n['match']} of {n['printed']} printed rows match to every digit; "
        f"{n['differs']} {differ}; {n['ours']} ours; {n['not_printed']} not printed"
    )
