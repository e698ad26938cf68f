"""What ``bench ops`` shows while it measures, and prints at the end, as text and as plain values."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pyconv_search.arch.plans.choice import key_of
from pyconv_search.cli.columns import table
from pyconv_search.report.words import count
from pyconv_search.units import duration, quantity, size_text

if TYPE_CHECKING:
    from pyconv_search.ops.bench import Place, Row
    from pyconv_search.ops.roofline import Roofline

Timed = TypeVar("Timed")

# A share of the rate of multiply-adds above this is not the machine's usual variation (Roofline.share).
NOISE = 1.05


def follow(comparisons: Iterable[list[Timed]], total: int, name: Callable[[Timed], str]) -> tuple[list[Timed], bool]:
    """The rows of all comparisons, and whether they are all: Ctrl-C ends with those measured so far.

    Progress goes to standard error: a bar on a terminal, a line with the ``name`` of each comparison elsewhere.
    """
    rows: list[Timed] = []
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("measuring", total=total)
        try:
            for done, found in enumerate(comparisons, 1):
                rows += found
                progress.update(task, advance=1, description=name(found[0]))
                if not console.is_terminal:
                    console.print(f"{done}/{total} {name(found[0])}", highlight=False, markup=False, soft_wrap=True)
        except KeyboardInterrupt:
            return rows, False
    return rows, True


def bench_dict(rows: Sequence[Row], roofline: Roofline, place: Place, complete: bool) -> dict[str, Any]:
    """The measurements as plain values: seconds, multiply-adds and bytes of the whole batch."""
    return {
        "device": roofline.device,
        "threads": roofline.threads,
        "versions": versions(),
        "dtype": roofline.dtype,
        "channels_last": place.channels_last,
        "batch": place.batch,
        "roofline": {**dataclasses.asdict(roofline), "bandwidth": roofline.bandwidth, "rate": roofline.rate},
        "complete": complete,
        "totals": totals(rows),
        "rows": [_row_dict(row) for row in rows],
    }


def _row_dict(row: Row) -> dict[str, Any]:
    return {
        "operator": row.operator.name,
        "operation": key_of(row.operator.operation),
        "size": [row.operator.height, row.operator.width],
        "times": row.operator.times,
        "mode": row.mode,
        "executed_as": row.what,
        "plans": {d: {"plan": choice.plan.name, "reason": choice.reason} for d, choice in row.choices.items()},
        "nominal": dataclasses.asdict(row.nominal),
        "executed": dataclasses.asdict(row.executed),
        "rounds": row.rounds,
        "seconds": dataclasses.asdict(row.seconds),
        "ratio": dataclasses.asdict(row.ratio),
        "share": row.share,
        "disturbed": row.disturbed,
    }


def versions() -> dict[str, str]:
    """Of what the times depend on."""
    import torch

    from pyconv_search import __version__

    return {"pyconv-search": __version__, "torch": torch.__version__, **_triton()}


def _triton() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return {"triton": version("triton")}
    except PackageNotFoundError:
        return {}


def bench_text(rows: Sequence[Row], roofline: Roofline, place: Place, complete: bool) -> str:
    """The measurements as a table, and what to know about it."""
    layout = "channels_last" if place.channels_last else "contiguous"
    head = f"{roofline}\n{layout}, {count(place.batch, 'image')}; {', '.join(' '.join(v) for v in versions().items())}"
    cells: list[tuple[str, ...]] = [
        (
            "operator",
            "",
            "MACs",
            "executed",
            "bytes",
            "moved",
            "time",
            "middle half",
            "ratio",
            "middle half",
            "share",
            "",
        ),
        *(_cells(row) for row in rows),
    ]
    parts = [head, table(cells, range(2, 11)), *_totals(rows), *_operations(rows), *_notes(rows, roofline)]
    return "\n\n".join(parts if complete else [*parts, "stopped before the end"])


def _cells(row: Row) -> tuple[str, ...]:
    seconds, ratio = row.seconds, row.ratio
    return (
        row.operator.name,
        row.mode,
        quantity(row.nominal.macs, digits=4),
        f"{row.executed.macs / row.nominal.macs:.2f}",
        size_text(row.nominal.bytes),
        size_text(row.executed.bytes),
        duration(seconds.median, 4),
        f"{duration(seconds.lower_quartile, 4)}–{duration(seconds.upper_quartile, 4)}{' ~' * row.disturbed}",
        f"{ratio.median:.2f}",
        f"{ratio.lower_quartile:.2f}–{ratio.upper_quartile:.2f}",
        f"{row.share:.0%}",
        row.what,
    )


def totals(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """By mode the seconds of all operators, as often as each occurs, and of the standard convolutions in their place.

    Of an operator that was timed by several plans the first counts: the chosen one, or the one that was forced.
    """
    found: dict[str, dict[str, float]] = {}
    seen = set()
    for row in rows:
        key = (row.operator.name, row.mode, row.what == "nn.Conv2d 3×3")
        if key not in seen:
            seen.add(key)
            sums = found.setdefault(row.mode, {"calls": 0, "seconds": 0.0, "standard": 0.0})
            sums["standard" if key[2] else "seconds"] += row.operator.times * row.seconds.median
            sums["calls"] += 0 if key[2] else row.operator.times
    return found


def _totals(rows: Sequence[Row]) -> list[str]:
    """Lines for a network; operators by name occur once, and their sum means nothing."""
    if all(row.operator.times == 1 for row in rows):
        return []
    return [
        f"all {sums['calls']} calls, {mode}: {duration(sums['seconds'], 4)}, {sums['seconds'] / sums['standard']:.2f} "
        "of standard convolutions"
        for mode, sums in totals(rows).items()
    ]


def _operations(rows: Sequence[Row]) -> list[str]:
    """What the operators are, and why their plans."""
    found = {row.operator.name: row.operator for row in rows}
    lines = [
        f"{name}: {key_of(one.operation)} at {one.height}×{one.width}" + f", {one.times} times" * (one.times > 1)
        for name, one in found.items()
    ]
    reasons = dict.fromkeys(choice.reason for row in rows for choice in row.choices.values())
    return ["\n".join(lines), *(["plans: " + "; ".join(reasons)] if reasons else [])]


def _notes(rows: Sequence[Row], roofline: Roofline) -> list[str]:
    notes = [
        "MACs and bytes: nominal; executed: multiply-adds over the nominal ones; moved: bytes that the plan reads and "
        "writes at least; ratio: to nn.Conv2d 3×3 of the same width in the same rounds; share: the least time for the "
        "nominal work on this machine over the median"
    ]
    disturbed = sum(row.disturbed for row in rows)
    if disturbed:
        notes.append(
            f"~ {disturbed} of {count(len(rows), 'row')}: other work used the machine, or it changed its speed; trust "
            "the ratios there more than the times, or measure again"
        )
    if any(row.share > NOISE and roofline.bound(row.nominal.macs, row.nominal.bytes) == "compute" for row in rows):
        notes.append("shares far above 100 %: the roofline itself was measured while other work ran; measure again")
    return notes
