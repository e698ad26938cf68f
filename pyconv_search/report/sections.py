"""The page's words and tables as plain values, made from a digest; the template only places them."""

from __future__ import annotations

import base64
import csv
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pyconv_search.report.digest import Candidate, Comparison, Digest
from pyconv_search.report.hours import hours_of
from pyconv_search.report.networks import MOST_DRAWN, Network
from pyconv_search.report.stats import Summary, seeds_needed
from pyconv_search.report.words import (
    NONE,
    REASONS,
    clipped,
    count,
    fixed,
    left_out,
    listed,
    p_value,
    parameters,
    seeds,
    with_interval,
)
from pyconv_search.results.row import Row
from pyconv_search.results.tables import compact, parameter_names, tables
from pyconv_search.units import quantity

_FORMULAS = tuple("=+-@\t\r\n")
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True, slots=True)
class Cell:
    """A table's cell: the text, the number to sort by (None: sort by the text), what hovering tells, where it leads."""

    text: str
    value: float | int | None = None
    title: str = ""
    numeric: bool = False
    link: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """A table's row; ``mark`` is selected, front, short or nothing."""

    cells: tuple[Cell, ...]
    mark: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """``head`` are the columns' texts; ``first`` is the index of the one that names the row."""

    id: str
    caption: str
    head: tuple[str, ...]
    lines: tuple[Line, ...]


def value(d: Digest, summary: Summary) -> str:
    """``12.34 ± 0.56 %``."""
    return f"{with_interval(summary, d.accuracy.digits)} {d.accuracy.unit}"


def spread(summary: Summary) -> str:
    """``mean ± 95 % t interval, 5 seeds``; ``1 seed, no interval``."""
    return seeds(summary.n) if summary.n == 1 else f"mean ± 95 % t interval, {seeds(summary.n)}"


def standing(d: Digest) -> str:
    """How far the study is, in one sentence."""
    counts, planned = d.counts, d.store.study.get("planned")
    done = len(d.store.rows)
    last = d.store.state
    of = f"{done:,} of {planned:,} trials finished" if planned is not None else f"{count(done, 'trial')} finished"
    parts = [f"{counts[status]:,} {status}" for status in ("complete", "stopped", "failed")]
    if d.remaining is not None:
        parts.append(f"{d.remaining:,} remaining")
    over = last == "finished" or (planned is not None and done >= planned)
    late = "" if over else " when the run was interrupted" if last == "interrupted" else " so far"
    gone = left_out(d.store.left_out)
    return f"{of}{late}: {', '.join(parts)}.{f' {gone}.' if gone else ''}"


def against_baseline(d: Digest) -> str:
    """The paired difference of the selected configuration from the baseline, in words that do not overstate it."""
    if d.selected is None or not d.baseline_name or len(d.candidates) < 2:
        return ""
    name = f"{clipped(d.baseline_name, 80)} ({d.baseline_role})"
    if d.baseline is None:
        return f"The baseline, {name}, has no trial yet."
    if d.selected is d.baseline:
        return f"The selected {d.noun} is the baseline itself, {name}."
    own = next((c for c in d.comparisons if c.candidate is d.selected), None)
    if own is None:
        return f"It shares no complete seed with the baseline, {name}."
    return f"Against the baseline, {name}, {difference(d, own)}."


def difference(d: Digest, comparison: Comparison) -> str:
    """``on 5 shared seeds: −0.40 ± 0.20 points, p = 0.012 …: differs``."""
    found, unit = comparison.difference, "points" if d.accuracy.unit == "%" else d.accuracy.unit
    half = "" if found.half_width is None else f" ± {fixed(found.half_width, d.accuracy.digits)}"
    start = f"on {count(found.n, 'shared seed')}: {fixed(found.mean, d.accuracy.digits)}{half} {unit}"
    if found.p is None:
        why = "one seed has no interval" if found.n == 1 else "no spread between the seeds"
        return f"{start}, not resolved at n = {found.n} ({why})"
    tests = sum(c.difference.p is not None for c in d.comparisons)
    holm = f", Holm-corrected for {tests} comparisons" if tests > 1 else ""
    if comparison.statement == "differs":
        return f"{start}, {p_value(comparison.p)}{holm}: differs"
    more = seeds_needed(found, tests)
    hint = f"; at least {more} seeds would be needed, were the true difference as seen" if more else ""
    return f"{start}, {p_value(comparison.p)}{holm}: not resolved at n = {found.n}{hint}"


def architectures(d: Digest, drawings: Sequence[Network] = ()) -> Table:
    """One line a configuration, the selected first; its name leads to its network's drawing, where there is one."""
    anchors = {network.candidate.arch_id: network.anchor for network in drawings}
    names = parameter_names(d.store)
    unit = d.accuracy.unit
    head: tuple[str, ...] = (
        d.noun.capitalize(),
        f"Validation {d.accuracy.title} ({unit})",
        f"Test {d.accuracy.title} ({unit})",
        "Seeds",
    )
    head += ("MACs", "Parameters", "Activations", "Receptive field (px)", *names, "Mark", "Id")
    lines = tuple(_architecture(d, c, names, anchors.get(c.arch_id, "")) for c in d.candidates)
    article = "a" if d.noun == "configuration" else "an"
    return Table("architectures", f"One line {article} {d.noun}: mean ± 95 % t interval over seeds", head, lines)


def trials(d: Digest) -> Table:
    """Every trial of the study, in its order."""
    head: tuple[str, ...] = ("Trial", d.noun.capitalize(), "Seed", "Status", "Epochs", "Validation top-1 error (%)")
    head += ("Validation loss", "Test top-1 error (%)", "Training (s)", "Images/s", "Device", "Resumed")
    names = {c.config: c.name for c in d.candidates}
    lines = tuple(_trial(row, names[row.config]) for row in d.store.rows)
    return Table("trials", "Every trial of the study", head, lines)


def differences(d: Digest) -> Table | None:
    """Every configuration against the baseline; None when none shares two seeds with it and so has an interval."""
    if all(c.difference.n < 2 for c in d.comparisons):
        return None
    digits, unit = d.accuracy.digits, "points" if d.accuracy.unit == "%" else d.accuracy.unit
    tests = sum(c.difference.p is not None for c in d.comparisons)
    head = (d.noun.capitalize(), f"Difference ({unit})", "Shared seeds", "p", "p (Holm)", "Statement")
    lines = []
    for c in d.comparisons:
        found = c.difference
        half = "" if found.half_width is None else f" ± {fixed(found.half_width, digits)}"
        more = seeds_needed(found, tests) if c.statement != "differs" else None
        said = c.statement + (f" (at least {more} seeds needed)" if more else "")
        cells = (
            Cell(c.candidate.name),
            Cell(fixed(found.mean, digits) + half, found.mean, numeric=True),
            Cell(str(found.n), found.n, numeric=True),
            Cell(_p(found.p), found.p, numeric=True),
            Cell(_p(c.p), c.p, numeric=True),
            Cell(said),
        )
        lines.append(Line(cells, "selected" if c.candidate is d.selected else ""))
    name = clipped(d.baseline.name, 80) if d.baseline else ""
    return Table("differences", f"Paired difference from the baseline, {name}, on shared seeds", head, tuple(lines))


def unfinished(d: Digest) -> list[dict[str, str]]:
    """The failed and the stopped trials, failures first, with their reasons."""
    rows = sorted((r for r in d.store.rows if r.status != "complete"), key=lambda r: r.status)
    return [_unfinished(row, d.name_of(row)) for row in rows]


def superseded(d: Digest) -> list[dict[str, str]]:
    """Earlier attempts at trials that were run again."""
    return [_unfinished(row, d.name_of(row)) for row in d.store.superseded]


def settings(values: dict[str, Any]) -> list[tuple[str, str]]:
    """Keys and values of one level of the study, a list or an object as compact JSON, None as a dash."""
    return [(str(key), NONE if item is None else compact(item)) for key, item in values.items()]


def csv_text(d: Digest) -> str:
    """The table of rows (see :func:`pyconv_search.results.tables.tables`) as CSV, without rounding.

    A text that a spreadsheet would compute has an apostrophe before it, which spreadsheets show as the text alone.
    """
    rows, _ = tables(d.store)
    rows = rows.copy()
    for name in rows.select_dtypes("string").columns:
        rows[name] = rows[name].map(_inert, na_action="ignore")
    return str(rows.to_csv(index=False, lineterminator="\n", quoting=csv.QUOTE_MINIMAL))


def _inert(text: str) -> str:
    """The text with an apostrophe before it, where a spreadsheet would take it for a formula; not before a number."""
    return text if _NUMBER.fullmatch(text) or not text.startswith(_FORMULAS) else f"'{text}"


def starts(d: Digest) -> list[dict[str, str]]:
    """Each start of the run: when, with which command, code and machine."""
    found = []
    for event in d.store.events:
        if event["name"] == "start":
            git = event.get("git")
            sha = f"{git.get('sha')}{', with uncommitted changes' if git.get('dirty') else ', clean'}" if git else NONE
            environment = ", ".join(f"{k} {v}" for k, v in (event.get("environment") or {}).items())
            found.append(
                {
                    "time": str(event.get("time", NONE)),
                    "command": str(event.get("command", NONE)),
                    "code": sha,
                    "environment": environment or NONE,
                }
            )
    return found


def spending(d: Digest) -> list[tuple[str, str]]:
    """What the run was to take, and what it took."""
    return list(hours_of(d.store).items())


def environments(d: Digest) -> list[str]:
    """The distinct environments that the rows were made in."""
    texts = dict.fromkeys(json.dumps(row.environment, sort_keys=True) for row in d.store.rows if row.environment)
    return [", ".join(f"{k} {v}" for k, v in json.loads(text).items()) for text in texts]


def front_members(d: Digest) -> list[dict[str, str]]:
    """The front, cheapest first; empty when no cost is an objective."""
    members = [c for c in d.candidates if c.config in d.front] if d.costs else []
    members.sort(key=lambda c: d.cost.of(c.first) or 0)
    found = []
    for c in members:
        if c.summary is not None:
            found.append(
                {"name": c.name, "error": f"{value(d, c.summary)} ({seeds(c.summary.n)})", "costs": costs(d, c)}
            )
    return found


def drawn(d: Digest, drawings: Sequence[Network]) -> str:
    """Which networks are drawn, in one sentence."""
    if not drawings:
        return "None is drawn: the folder of the run does not hold the space that makes these networks."
    different = len({c.arch_id for c in d.candidates})
    if len(drawings) == different:
        return "Every architecture of the table is drawn."
    most = f"Drawn are {len(drawings):,} of {count(different, 'architecture')}"
    return f"{most}, {MOST_DRAWN} at most: the selected one, the baseline, the front, then the best of the table."


def network_summary(d: Digest, network: Network) -> str:
    """What stands beside a drawing's name: its role, its error and its costs."""
    c = network.candidate
    error = [f"validation {d.accuracy.title} {value(d, c.summary)}"] if c.summary else []
    return ", ".join([*([network.role] if network.role else []), *error, costs(d, c)])


def costs(d: Digest, c: Candidate) -> str:
    """``3.88 GMACs per image and 24.9 M parameters``, and the study's other costs."""
    parts = [f"{quantity(c.first.macs, 'MACs')} per image", f"{quantity(c.first.params)} parameters"]
    if any(cost.key == "activations" for cost in d.costs):
        parts.append(f"{quantity(c.first.activations)} activations")
    if any(cost.key == "receptive_field" for cost in d.costs):
        parts.append(f"a receptive field of {c.first.receptive_field} pixels")
    return listed(parts)


def plane(d: Digest) -> str:
    """What the front is taken over: ``top-1 error and GMACs per image``."""
    return listed(
        [d.accuracy.title, *((c.title if "MAC" in c.title else c.title.lower()) for c in d.costs or (d.cost,))]
    )


def data_uri(text: str) -> str:
    """CSV text as a link that needs no file."""
    return "data:text/csv;charset=utf-8;base64," + base64.b64encode(text.encode("utf-8", "replace")).decode("ascii")


def _architecture(d: Digest, c: Candidate, names: list[str], anchor: str) -> Line:
    short_of_seeds = c.config not in d.eligible
    mark = "selected" if c is d.selected else "front" if c.config in d.front else "short" if short_of_seeds else ""
    words = {"selected": "selected", "front": "front", "short": "fewer seeds", "": ""}[mark]
    if c is d.selected and c.config in d.front:
        words = "selected, front"
    if c is d.baseline:
        words = ", ".join(w for w in (words, "baseline") if w)
    first = c.first
    cells = [
        Cell(c.name, title=parameters(first.parameters), link=anchor),
        _mean(d, c.summary),
        _mean(d, c.test_summary),
        Cell(f"{len(c.values)} of {len({r.seed for r in c.rows})}", len(c.values), "complete of started", True),
        Cell(quantity(first.macs), first.macs, f"{first.macs:,} multiply-adds", True),
        Cell(quantity(first.params), first.params, f"{first.params:,}", True),
        Cell(quantity(first.activations), first.activations, f"{first.activations:,}", True),
        Cell(str(first.receptive_field), first.receptive_field, numeric=True),
        *(_parameter(first, name) for name in names),
        Cell(words),
        Cell(c.config[:8], title=c.config if c.config == c.arch_id else f"{c.config}, architecture {c.arch_id}"),
    ]
    return Line(tuple(cells), mark)


def _mean(d: Digest, summary: Summary | None) -> Cell:
    if summary is None:
        return Cell(NONE, numeric=True)
    title = "" if summary.sd is None else f"standard deviation {fixed(summary.sd, d.accuracy.digits)}"
    return Cell(with_interval(summary, d.accuracy.digits), summary.mean, title, True)


def _parameter(row: Row, name: str) -> Cell:
    found = row.parameters.get(name)
    if found is None:
        return Cell(NONE)
    if isinstance(found, (int, float)) and not isinstance(found, bool):
        return Cell(str(found), found, numeric=True)
    return Cell(compact(found))


def _trial(row: Row, name: str) -> Line:
    status = row.status if not row.reason else f"{row.status}: {REASONS[row.reason]}"
    numbers = (
        (row.epochs, 0),
        (row.val_top1_error, 2),
        (row.val_loss, 4),
        (row.test_top1_error, 2),
        (row.train_seconds, 1),
        (row.images_per_second, 0),
    )
    cells = (
        Cell(row.trial),
        Cell(name, title=row.config),
        Cell(str(row.seed), row.seed, numeric=True),
        Cell(status, title=row.detail),
        *(Cell(fixed(number, digits), number, numeric=True) for number, digits in numbers),
        Cell(row.device, title=row.host),
        Cell(str(row.resumed), row.resumed, numeric=True),
    )
    return Line(cells, "" if row.status == "complete" else row.status)


def _unfinished(row: Row, name: str) -> dict[str, str]:
    return {
        "trial": row.trial,
        "name": name,
        "seed": str(row.seed),
        "status": row.status,
        "reason": REASONS[row.reason] or NONE,
        "detail": row.detail,
        "epochs": str(row.epochs),
        "error": fixed(row.val_top1_error),
    }


def _p(p: float | None) -> str:
    return NONE if p is None else p_value(p).removeprefix("p = ").removeprefix("p ")
