"""What the commands print: each value as text for people, and as plain values for ``--json``."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pyconv_search.cli import estimates
from pyconv_search.cli.columns import table
from pyconv_search.cli.remarks import remarks
from pyconv_search.report.hours import hours_of
from pyconv_search.results import verdicts
from pyconv_search.results.spent import planned, spent
from pyconv_search.results.store import Store
from pyconv_search.results.tables import compact
from pyconv_search.space.describe import Description, Spread
from pyconv_search.space.space import COSTS, Space, assignment_text
from pyconv_search.study.plan import candidates, planned_trials
from pyconv_search.study.study import Study, most_epochs

if TYPE_CHECKING:
    from pyconv_search.training.data import CheckReport, ListingRow

BAR = 40


def amount(name: str, value: float) -> str:
    """A cost with its unit."""
    if name == "gmacs":
        return f"{value:.4g} GMACs"
    if name == "receptive_field":
        return f"{value:g} px"
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.4g} {unit}"
    return f"{value:g}"


def description_dict(space: Space, d: Description) -> dict[str, Any]:
    """The description as plain values."""
    return {
        "space": space.name,
        "about": space.about,
        "parameters": {
            p.name: {"values": len(p.domain), "domain": str(p.domain), "when": p.when and p.when.source}
            for p in space.parameters
        },
        "size": d.size,
        "exact": d.exact,
        "looked_at": d.looked_at,
        "networks": d.networks,
        "accepted": d.accepted,
        "acceptance": dict(d.acceptance),
        "costs": {name: dataclasses.asdict(spread) for name, spread in d.spreads.items()},
        "recipe": dict(space.recipe),
        "samples": [
            {
                "parameters": s.values,
                "recipe": space.overrides(s.values),
                "arch_id": s.architecture.arch_id,
                **{name: getattr(s.cost, name) for name in COSTS},
            }
            for s in d.samples
        ],
    }


def description_text(space: Space, d: Description) -> str:
    """The description for people."""
    basis = "all of them" if d.exact else f"{d.looked_at:,} of them drawn at random"
    found = f"{d.networks:,} different networks" if d.exact else f"{d.networks:,} different networks among those drawn"
    lines = [
        space.name,
        *([space.about] if space.about else []),
        "",
        f"size         {d.size:,} assignments, exactly, before constraints; figures from {basis}",
    ]
    lines += [f"accepted     {d.accepted:.1%} satisfy every constraint: {found}", "", "parameters"]
    lines += [f"  {p.name:<12} {p.domain}{f'   when {p.when.source}' if p.when else ''}" for p in space.parameters]
    if space.recipe:
        shown = table([(f"  {name}", compact(value)) for name, value in space.recipe.items()])
        lines += ["", "recipe, over the study's", shown]
    if d.acceptance:
        lines += ["", "constraints and the share of assignments that satisfy each"]
        lines += [f"  {share:6.1%}  {source}" for source, share in d.acceptance]
    if d.spreads:
        rows: list[tuple[str, ...]] = [("", "lowest", "median", "highest")]
        rows += [(name, *(amount(name, v) for v in (s.low, s.median, s.high))) for name, s in d.spreads.items()]
        size = "×".join(map(str, space.input))
        lines += [
            "",
            f"costs of the accepted networks, per image of {size} (a study has its data's)",
            table(rows, (1, 2, 3)),
            "",
            "GMACs",
        ]
        lines += histogram(d.spreads["gmacs"])
    lines += ["", "samples"] if d.samples else []
    lines += [
        f"  {amount('gmacs', s.cost.gmacs):>12}  {amount('params', s.cost.params):>8}  {s.architecture.arch_id[:12]}  "
        f"{assignment_text(s.values)}"
        for s in d.samples
    ]
    return "\n".join(lines)


def histogram(spread: Spread) -> list[str]:
    """One bar a bin."""
    step, most = (spread.high - spread.low) / len(spread.counts), max(spread.counts)
    if not step:
        return [f"  {spread.low:8.4g}  {'█' * BAR} {most} (all the same)"]
    return [
        f"  {spread.low + step * i:8.4g} – {spread.low + step * (i + 1):<8.4g} "
        f"{'█' * max(round(BAR * n / most), n > 0)} {n}"
        for i, n in enumerate(spread.counts)
    ]


def plan_dict(study: Study, found: estimates.Found) -> dict[str, Any]:
    """The plan as plain values. ``training_macs`` counts forward and backward (three times forward) over all epochs."""
    rows, images, seeds = candidates(study), study.data.train, len(study.seeds)
    trials = planned_trials(study, len(rows))
    return {
        "study": study.name,
        "data": study.data.info.name,
        "search": study.search.kind,
        "scheduler": study.scheduler.kind,
        "seeds": list(study.seeds),
        "trials": trials,
        "epochs_at_most": seeds * sum(row.recipe.epochs for row in rows) if rows else trials * most_epochs(study),
        "training_macs": 3 * images * seeds * sum(row.cost.macs * row.recipe.epochs for row in rows) if rows else None,
        "resources_per_trial": dataclasses.asdict(study.resources),
        "estimate": estimates.found_dict(found),
        "networks": [
            {
                "name": row.name,
                "arch_id": row.architecture.arch_id,
                "parameters": row.values,
                "recipe": row.overrides,
                **{name: getattr(row.cost, name) for name in COSTS},
                **estimates.rate_dict(found, i),
            }
            for i, row in enumerate(rows)
        ],
    }


def plan_text(study: Study, found: estimates.Found) -> str:
    """The plan for people."""
    plan = plan_dict(study, found)
    processes = f" in {study.resources.workers} processes" if study.resources.workers > 1 else ""
    kind = "configurations" if study.space.recipe else "networks"
    lines = [
        study.name,
        *([study.about] if study.about else []),
        "",
        f"{plan['trials']} trials: {plan['trials'] // len(study.seeds)} {kind} ({plan['search']}) × "
        f"{len(study.seeds)} seeds, at most {plan['epochs_at_most']:,} epochs of {study.data.train:,} images "
        f"({plan['data']})",
        f"each takes {study.resources.cpu} CPU and {study.resources.gpu:g} GPU{processes}; "
        f"scheduler {plan['scheduler']}; "
        f"objectives {', '.join(f'{name} ({to})' for name, to in study.objectives.items())}",
    ]
    if plan["training_macs"] is not None:
        lines.append(f"{plan['training_macs']:.3g} multiply-adds of training in all, if no trial is stopped early")
    lines += estimates.found_lines(found)
    shown = plan["networks"][:50]
    if shown:
        rows = [("network", "GMACs", "params", "arch_id", *estimates.rate_head(found))]
        rows += [
            (n["name"], f"{n['gmacs']:.4g}", amount("params", n["params"]), n["arch_id"][:12], *estimates.rate_cells(n))
            for n in shown
        ]
        lines += ["", table(rows, (1, 2, 4))]
    if len(plan["networks"]) > len(shown):
        lines.append(f"… and {len(plan['networks']) - len(shown):,} more (--json lists all)")
    return "\n".join(lines)


def status_dict(store: Store) -> dict[str, Any]:
    """How a run stands, as plain values."""
    store = store.current()
    counts = Counter(row.status for row in store.rows)
    ended = {row.trial for row in store.rows}
    plan, taken = planned(store), spent(store)
    under_way = {epoch.trial: epoch.epoch for epoch in store.epochs if epoch.trial not in ended}
    return {
        "study": store.study["name"],
        "planned": store.study.get("planned"),
        "ended": len(store.rows),
        **{status: counts[status] for status in ("complete", "stopped", "failed")},
        "under_way": under_way,
        "last_event": store.state or "nothing",
        "planned_device_seconds": plan and plan["device_seconds"],
        "spent_device_seconds": taken.everything,
        "spent_training_device_seconds": taken.training,
        "device_unit": taken.unit,
        "together": [verdict.told() for verdict in verdicts.read(store.folder).values()],
    }


def status_text(store: Store) -> str:
    """How a run stands, for people."""
    s, store = status_dict(store), store.current()
    words = {"start": "running, or ended without a word (killed)", "interrupted": "interrupted", "finished": "finished"}
    lines = [
        f"{s['study']}: {words.get(s['last_event'], s['last_event'])}",
        f"{s['ended']} of {s['planned']} trials ended: {s['complete']} complete, {s['stopped']} stopped, "
        f"{s['failed']} failed",
    ]
    lines += [f"{name} {said}" for name, said in hours_of(store).items()]
    lines += [f"  seeds together? {verdict}" for verdict in verdicts.read(store.folder).values()]
    lines += [f"  under way: {trial} at epoch {epoch}" for trial, epoch in s["under_way"].items()]
    lines += [
        f"  failed: {row.name} (seed {row.seed}): {row.reason}: {row.detail}"
        for row in store.rows
        if row.status == "failed"
    ]
    return "\n".join(lines)


def data_list_text(rows: Sequence[ListingRow]) -> str:
    """The known data sets for people."""
    cells: list[tuple[object, ...]] = [("name", "input", "classes", "train", "validation", "test", "found at")]
    for row in rows:
        cells.append(
            (
                row.name,
                "×".join(map(str, row.input)),
                row.classes,
                f"{row.train:,}",
                f"{row.validation:,}",
                f"{row.test:,}",
                row.found_at or "not found",
            )
        )
    lines = [table(cells, (2, 3, 4, 5))]
    for row in rows:
        if row.found_at is None:
            lines += ["", f"{row.name} was looked for in"]
            lines += [f"  {place}{f': {problem}' if problem else ''}" for place, problem in row.looked_in]
    return "\n".join(lines)


def data_check_text(found: CheckReport) -> str:
    """A data set that was read, for people."""
    cells: list[tuple[object, ...]] = [("split", "images", "per class", "SHA-256")]
    for split in found.splits:
        least, most = min(split.per_class), max(split.per_class)
        cells.append(
            (split.name, f"{split.images:,}", least if least == most else f"{least}–{most}", split.sha256[:16])
        )
    head = f"{found.name}: ok, {'×'.join(map(str, found.input))}, {found.classes} classes, read from {found.found_at}"
    return "\n".join([head, "", table(cells, (1, 2)), *remarks(found), "", f"fingerprint {found.fingerprint}"])
