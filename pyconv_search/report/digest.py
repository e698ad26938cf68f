"""What a store says: the configurations over their seeds, the one selected, the front, the paired differences.

A configuration is an architecture and the recipe that it is trained by; where the study has one recipe for all they are
the architectures. Selection: of those with the most complete seeds (all of the study's seeds, if any has them all) the
one with the lowest mean of the first accuracy objective on the validation split; ties go to fewer MACs. The front is
taken over the same ones, in that objective and the study's cost objectives (MACs when it has none).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pyconv_search.report.stats import Difference, Summary, front, holm, paired_difference, statement, summarize
from pyconv_search.report.words import labels
from pyconv_search.results.row import Row
from pyconv_search.results.store import Store
from pyconv_search.units import prefix_of


@dataclass(frozen=True, slots=True)
class Measure:
    """A quantity of the vocabulary: the Row's field, what a reader calls it, its unit and the digits to print."""

    key: str
    field: str
    title: str
    unit: str
    digits: int = 2
    scale: float = 1.0

    def of(self, row: Row) -> float | None:
        """The validation or cost figure of a row in this unit; None when missing, NaN or infinite."""
        value = getattr(row, self.field)
        return None if value is None or not math.isfinite(value) else value * self.scale

    def of_test(self, row: Row) -> float | None:
        value = getattr(row, self.field.replace("val_", "test_"))
        return None if value is None or not math.isfinite(value) else value


ACCURACY = {
    m.key: m
    for m in (
        Measure("top1_error", "val_top1_error", "top-1 error", "%"),
        Measure("top5_error", "val_top5_error", "top-5 error", "%"),
        Measure("loss", "val_loss", "loss", "nats", digits=4),
    )
}
COSTS = {
    m.key: m
    for m in (
        Measure("gmacs", "macs", "MACs per image", "multiply-adds"),
        Measure("macs", "macs", "MACs per image", "multiply-adds"),
        Measure("params", "params", "Parameters", ""),
        Measure("activations", "activations", "Activations", ""),
        Measure("receptive_field", "receptive_field", "Receptive field", "pixels"),
    )
}
POWERS = {"": "", "k": "thousands", "M": "millions", "G": "billions", "T": "10¹²", "P": "10¹⁵", "E": "10¹⁸"}


def fitted(cost: Measure, rows: Iterable[Row]) -> Measure:
    """The cost in the unit that the largest of the rows asks for: MMACs or GMACs, thousands or millions."""
    if cost.key == "receptive_field":
        return cost
    prefix, factor = prefix_of(value for row in rows if (value := cost.of(row)) is not None)
    title, unit = (prefix + cost.title, cost.unit) if cost.field == "macs" else (cost.title, POWERS[prefix])
    return replace(cost, title=title, unit=unit, scale=1 / factor)


@dataclass(frozen=True, slots=True)
class Candidate:
    """One configuration: its trials, and its complete trials' figures by seed.

    ``values`` are of the accuracy objective on the validation split, ``test`` of the same on the test split.
    """

    config: str
    name: str
    first: Row
    rows: tuple[Row, ...]
    values: dict[int, float]
    test: dict[int, float]
    summary: Summary | None
    test_summary: Summary | None

    @property
    def arch_id(self) -> str:
        """The architecture alone."""
        return self.first.arch_id


@dataclass(frozen=True, slots=True)
class Comparison:
    """A candidate against the baseline on shared seeds; ``p`` is Holm's over all comparisons of the study."""

    candidate: Candidate
    difference: Difference
    p: float | None

    @property
    def statement(self) -> str:
        return statement(self.p)


@dataclass(frozen=True, slots=True)
class Digest:
    """All that the page tells. ``candidates`` stand best first, those with too few seeds last.

    What has left the study since stands in the store's ``left_out``.
    """

    store: Store
    accuracy: Measure
    costs: tuple[Measure, ...]
    candidates: tuple[Candidate, ...]
    eligible: frozenset[str]
    front: frozenset[str]
    baseline: Candidate | None
    comparisons: tuple[Comparison, ...]

    @property
    def selected(self) -> Candidate | None:
        return self.candidates[0] if self.eligible else None

    def name_of(self, row: Row) -> str:
        """What the page calls the configuration of a row."""
        return next((c.name for c in self.candidates if c.config == row.config), row.config[:10])

    @property
    def noun(self) -> str:
        """What a candidate is: an ``architecture``, or a ``configuration`` where recipes differ, too."""
        return "configuration" if any(c.config != c.arch_id for c in self.candidates) else "architecture"

    @property
    def cost(self) -> Measure:
        """The cost on the figure's axis."""
        return self.costs[0] if self.costs else fitted(COSTS["gmacs"], self.store.rows)

    @property
    def baseline_role(self) -> str:
        if isinstance(self.store.study.get("baseline"), dict):
            return "the study’s baseline"
        return "the first row of the study" if _listed(self.store) else f"the first {self.noun} of the run"

    @property
    def baseline_name(self) -> str:
        """What the study calls its baseline, which may have no trial yet; empty where nothing says which it is."""
        if self.baseline is not None:
            return self.baseline.name
        listing, config = self.store.listing, _baseline_config(self.store)
        return listing.configs[config].name if listing and config in listing.configs else ""

    @property
    def counts(self) -> Counter[str]:
        return Counter(row.status for row in self.store.rows)

    @property
    def remaining(self) -> int | None:
        """Trials that are planned and have left no row yet; None when the study plans no number."""
        planned = self.store.study.get("planned")
        return None if planned is None else max(0, planned - len(self.store.rows))


def digest(store: Store) -> Digest:
    """The digest of a store, which may hold no row at all."""
    store = store.current()
    objectives = store.study["objectives"]
    accuracy = next((ACCURACY[key] for key in objectives if key in ACCURACY), ACCURACY["top1_error"])
    costs = tuple(fitted(COSTS[key], store.rows) for key in objectives if key in COSTS)
    found = _candidates(store, accuracy)
    baseline = _baseline(store, found)
    most = max((len(c.values) for c in found), default=0)
    eligible = frozenset(c.config for c in found if most and len(c.values) == most)
    ordered = tuple(sorted(found, key=lambda c: _rank(c, eligible)))
    comparisons = _comparisons(ordered, baseline)
    members = _front([c for c in ordered if c.config in eligible], costs or (COSTS["gmacs"],), objectives)
    return Digest(store, accuracy, costs, ordered, eligible, members, baseline, comparisons)


def _candidates(store: Store, accuracy: Measure) -> list[Candidate]:
    grouped: dict[str, list[Row]] = {}
    for row in store.rows:
        grouped.setdefault(row.config, []).append(row)
    names = labels(store.rows)
    found = []
    for config, rows in grouped.items():
        complete = [row for row in rows if row.status == "complete"]
        values = {row.seed: value for row in complete if (value := accuracy.of(row)) is not None}
        test = {row.seed: value for row in complete if (value := accuracy.of_test(row)) is not None}
        summaries = [summarize(list(v.values())) if v else None for v in (values, test)]
        found.append(Candidate(config, names[config], rows[0], tuple(rows), values, test, *summaries))
    return found


def _baseline(store: Store, found: list[Candidate]) -> Candidate | None:
    """The one that the study names, or its first in its order, once it has a trial.

    A folder of an earlier version says no order of networks that a search chose: there what was started first.
    """
    config = _baseline_config(store)
    if config:
        return next((c for c in found if c.config == config), None)
    listed = _listed(store)
    if listed:
        return candidate_of(found, listed)
    return min(found, key=lambda c: min(row.started for row in c.rows), default=None)


def _baseline_config(store: Store) -> str:
    named = store.study.get("baseline")
    if isinstance(named, dict):
        return str(named.get("config"))
    return next(iter(store.listing.configs), "") if store.listing else ""


def _listed(store: Store) -> dict[str, Any]:
    rows = store.study["search"].get("rows")
    first = rows[0] if isinstance(rows, list) and rows else None
    return first if isinstance(first, dict) else {}


def candidate_of(found: Sequence[Candidate], listed: dict[str, Any]) -> Candidate | None:
    """The configuration of a row that the study lists; names do not count, since they may be changed at any time."""
    wanted = [(name, value) for name, value in listed.items() if name != "name"]
    return next((c for c in found if any(all(r.parameters.get(n) == v for n, v in wanted) for r in c.rows)), None)


def _rank(candidate: Candidate, eligible: frozenset[str]) -> tuple[bool, int, float, int, str]:
    # A clock decides none of it: rows stand in the study's order, but not those of a folder that does not say it.
    mean = candidate.summary.mean if candidate.summary else math.inf
    seeds = len(candidate.values)
    return candidate.config not in eligible, -seeds, mean, candidate.first.macs, candidate.config


def _comparisons(ordered: tuple[Candidate, ...], baseline: Candidate | None) -> tuple[Comparison, ...]:
    if baseline is None:
        return ()
    pairs = [(c, paired_difference(c.values, baseline.values)) for c in ordered if c is not baseline]
    shared = [(c, difference) for c, difference in pairs if difference is not None]
    corrected = holm([difference.p for _, difference in shared])
    return tuple(Comparison(c, d, p) for (c, d), p in zip(shared, corrected, strict=True))


def _front(among: list[Candidate], costs: tuple[Measure, ...], objectives: dict[str, str]) -> frozenset[str]:
    signs = [-1 if objectives.get(cost.key) == "max" else 1 for cost in costs]
    points = []
    for c in among:
        summary = c.summary
        if summary is not None:
            points.append((summary.mean, *(s * (cost.of(c.first) or 0) for s, cost in zip(signs, costs, strict=True))))
    return frozenset(among[index].config for index in front(points))
