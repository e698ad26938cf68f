"""The printed results that a study refers to beside its own, and in words what keeps the two from being compared.

A difference is formed only where data set, input size and network are alike. The recipe need not be: what differs in it
is named. Operations are compared under one convention or not at all: a run's rows count multiply-adds (``macs``), and
those of another convention are counted on the network, where the run's folder lets it be made again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from pyconv_search.arch.cost import cost
from pyconv_search.arch.published.networks import MACS, NetworkRow, as_printed
from pyconv_search.arch.published.results import Metric, Result, ResultTable, result_tables
from pyconv_search.report.digest import ACCURACY, Candidate, Digest, candidate_of
from pyconv_search.report.networks import architectures
from pyconv_search.report.recipes import differences
from pyconv_search.report.sections import Cell, Line, Table
from pyconv_search.report.stats import Summary, summarize
from pyconv_search.report.words import NONE, clipped, fixed, listed, with_interval
from pyconv_search.study import datasets
from pyconv_search.study.published import Published, from_dict

Pairs = list[tuple[Result, Candidate | None]]
Operations = dict[str, int]  # by arch_id, under the table's convention


@dataclass(frozen=True, slots=True)
class Section:
    """``refusals`` say why no difference is formed (empty: some may be), ``caveats`` what to keep in mind.

    ``errors`` is None where this version does not know the reference, ``costs`` where the paper prints none.
    """

    reference: str
    source: str = ""
    refusals: tuple[str, ...] = ()
    caveats: tuple[str, ...] = ()
    errors: Table | None = None
    costs: Table | None = None


def section(d: Digest) -> Section | None:
    """The section on published results; None when the study refers to none."""
    published = from_dict(d.store.study.get("published"))
    if published is None:
        return None
    table = result_tables().get(published.reference)
    if table is None:
        return Section(published.reference)
    pairs = _pairs(d, published, table)
    refusals = tuple(_refusals(d, table))
    operations = _operations(d, table, pairs)
    caveats = tuple(_caveats(d, table, pairs, operations))
    errors = _errors(d, table, pairs, operations, not refusals)
    costs = _costs(table, pairs, operations, not refusals)
    return Section(published.reference, table.source, refusals, caveats, errors, costs)


def _pairs(d: Digest, published: Published, table: ResultTable) -> Pairs:
    """Every printed row with each configuration that stands for it, or with None."""
    standing: dict[str | None, list[Candidate]] = {}
    for name, candidate in _named(d):
        if candidate is not None:
            standing.setdefault(published.row_of(name, table), []).append(candidate)
    found: Pairs = []
    for result in table.rows:
        found += [(result, c) for c in standing.get(result.row, ())] or [(result, None)]
    return found


def _operations(d: Digest, table: ResultTable, pairs: Pairs) -> Operations:
    """Those of every network whose operations under the table's convention are known."""
    found = {c.arch_id: c for _, c in pairs if c is not None}
    if table.convention == MACS:
        return {arch_id: c.first.macs for arch_id, c in found.items()}
    made = architectures(d.store)
    networks = ((arch_id, made(c)) for arch_id, c in found.items())
    return {arch_id: cost(arch).thop for arch_id, arch in networks if arch is not None}


def _named(d: Digest) -> list[tuple[str, Candidate | None]]:
    """The study's rows by their names; of a study that lists none, the configurations by what the page calls them."""
    rows = d.store.study["search"].get("rows")
    if not isinstance(rows, list) or not rows:
        return [(c.name, c) for c in d.candidates]
    return [(str(row.get("name", "")), candidate_of(d.candidates, row)) for row in rows if isinstance(row, dict)]


def _refusals(d: Digest, table: ResultTable) -> Iterator[str]:
    """What makes every row of the table something else than what this study measured."""
    name, size = d.store.study["data"].get("name"), tuple(d.store.study.get("input") or ())
    if name != table.data:
        yield f"Other data: the paper measured on {table.data}, this study on {name}."
    if size != table.input:
        here = f"this study at {_times(size)}" if size else "the run’s folder does not tell this study’s"
        yield f"Other input size: the paper measured at {_times(table.input)}, {here}."
    if not any(metric.key in ACCURACY for metric in table.metrics):
        yield f"Other measures: {listed([m.title for m in table.metrics])} are not measured here."


def _caveats(d: Digest, table: ResultTable, pairs: Pairs, operations: Operations) -> Iterator[str]:
    """What differs besides, and what the table does not tell."""
    differing = differences(table.rows[0].recipe, d.store.study["recipe"])
    yield f"Recipe: {'; '.join(differing)}." if differing else "Recipe: as published, as far as the paper states it."
    yield f"Split: the paper’s numbers are of the {table.split} split of {table.data}, those here of the test split."
    held_out = _held_out(d)
    if held_out:
        yield f"Training images: {held_out:,} are held out here to select by."
    if table.convention != MACS and not operations and any(table.counts(result) for result in table.rows):
        yield (
            f"Operations: the paper’s GFLOPs follow {table.convention}, which counts more than multiply-adds; "
            "this run’s folder tells multiply-adds alone, so the two are not set beside each other."
        )
    if not any(table.counts(result) for result, c in pairs if c is not None):
        yield "Networks: the paper prints no cost of these rows, so nothing shows whether the networks are the same."
    shown = {c.config for _, c in pairs if c is not None}
    others = [clipped(c.name, 80) for c in d.candidates if c.config not in shown]
    if others:
        rest = f" and {len(others) - 10} more" if len(others) > 10 else ""
        yield f"Not in the published table: {', '.join(others[:10])}{rest}."


def _held_out(d: Digest) -> int:
    data = d.store.study["data"]
    info = datasets.DATA_SETS.get(str(data.get("name")))
    return data.get("validation") or (info.validation if info else 0)


def _errors(d: Digest, table: ResultTable, pairs: Pairs, operations: Operations, alike: bool) -> Table:
    """Printed and measured errors; ``alike`` says whether there are differences at all."""
    head = ["Printed row", "In this study"]
    for metric in table.metrics:
        head.append(f"Printed {metric.title} ({metric.unit})")
        head += [f"Measured {metric.title}, test ({metric.unit})"] if metric.key in ACCURACY else []
        head += ["Difference (points)"] if metric.key in ACCURACY and alike else []
    lines = []
    for result, c in pairs:
        counts = table.counts(result)
        other = alike and c is not None and counts is not None and not _same(counts, c, operations)
        cells = [Cell(result.row), Cell(c.name if c else NONE)]
        for metric in table.metrics:
            cells += _metric(metric, result, c, alike, other)
        n = len(c.test) if c else None
        cells.append(Cell(NONE if n is None else str(n), n, numeric=True))
        lines.append(Line((*cells, Cell("; ".join(_remarks(d, table, result, c, other))))))
    caption = f"{table.source}: {table.title}"
    return Table("published-errors", caption, (*head, "Seeds", "Remarks"), tuple(lines))


def _metric(metric: Metric, result: Result, c: Candidate | None, alike: bool, other: bool) -> Iterator[Cell]:
    printed = result.values.get(metric.key)
    yield _number(printed, "" if result.sd is None else f" (sd {result.sd})")
    if metric.key in ACCURACY:
        measured = _measured(c, metric.key) if c else None
        yield Cell(with_interval(measured), measured.mean if measured else None, numeric=True)
        if alike:
            yield _difference(None if other else printed, measured)


def _remarks(d: Digest, table: ResultTable, result: Result, c: Candidate | None, other: bool) -> Iterator[str]:
    if c is None:
        yield "not in this study"
    elif not c.test:
        yield "no test figure yet"
    elif other:
        yield "not compared: another network, by the counts below"
    if c is not None and (c.first.recipe or result.recipe != table.rows[0].recipe):
        differing = differences(result.recipe, d.store.study["recipe"] | c.first.recipe)
        yield f"recipe: {'; '.join(differing)}" if differing else "recipe as published"
    if result.note:
        yield result.note


def _costs(table: ResultTable, pairs: Pairs, operations: Operations, alike: bool) -> Table | None:
    """Printed costs and those of this study's networks, operations only under the paper's convention."""
    if not any(table.counts(result) for result in table.rows):
        return None
    head = ["Printed row", "In this study", "Printed params (M)", "Params here (M)"]
    head.append(f"Printed GFLOPs ({table.convention})")
    head += [f"GFLOPs here ({table.convention})"] if operations else []
    head += ["Counts"] if alike else []
    lines = tuple(Line(tuple(_cost(table, result, c, operations, alike))) for result, c in pairs)
    return Table("published-costs", "Costs of the same rows", tuple(head), lines)


def _cost(
    table: ResultTable, result: Result, c: Candidate | None, operations: Operations, alike: bool
) -> Iterator[Cell]:
    counts, counted = table.counts(result), operations.get(c.arch_id) if c else None
    params, gflops = (counts.params, counts.gflops) if counts else (None, None)
    yield Cell(result.row)
    yield Cell(c.name if c else NONE)
    yield _number(params)
    yield _number(as_printed(c.first.params, 6, params) if c else None)
    yield _number(gflops)
    if operations:
        yield _number(None if counted is None else as_printed(counted, 9, gflops))
    if alike:
        what = "params" if counted is None else "params and GFLOPs"
        equal = f"{what} equal in every printed digit"
        yield Cell(NONE if not (counts and c) else equal if _same(counts, c, operations) else "not equal")


def _same(counts: NetworkRow, c: Candidate, operations: Operations) -> bool:
    """Whether parameters, and operations where they are known, round to what is printed."""
    counted = operations.get(c.arch_id)
    params = as_printed(c.first.params, 6, counts.params) == counts.params
    return params and (counted is None or as_printed(counted, 9, counts.gflops) == counts.gflops)


def _measured(c: Candidate, key: str) -> Summary | None:
    values = [ACCURACY[key].of_test(row) for row in c.rows if row.status == "complete"]
    known = [value for value in values if value is not None]
    return summarize(known) if known else None


def _difference(printed: Decimal | None, measured: Summary | None) -> Cell:
    """The measured mean less the printed number, with the interval of the mean: the printed one has none."""
    if printed is None or measured is None:
        return Cell(NONE, numeric=True)
    found = measured.mean - float(printed)
    half = "" if measured.half_width is None else f" ± {fixed(measured.half_width)}"
    return Cell(fixed(found) + half, found, numeric=True)


def _number(printed: Decimal | None, more: str = "") -> Cell:
    return Cell(NONE, numeric=True) if printed is None else Cell(f"{printed}{more}", float(printed), numeric=True)


def _times(size: tuple[Any, ...]) -> str:
    return "×".join(map(str, size))
