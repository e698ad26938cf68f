"""What the commands print: each value as text for people, and as plain values for ``--json``."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pyconv_search.cli.columns import table
from pyconv_search.cli.remarks import remarks
from pyconv_search.results.tables import compact
from pyconv_search.space.describe import Description, Spread
from pyconv_search.space.space import COSTS, Space, assignment_text
from pyconv_search.units import number, prefix_of, quantity, sides

if TYPE_CHECKING:
    from pyconv_search.training.data import CheckReport, ListingRow

BAR = 40


def amount(name: str, value: float) -> str:
    """A cost with its unit."""
    if name == "receptive_field":
        return f"{value:g} px"
    if name == "gmacs":
        return quantity(value * 1e9, "MACs", 4)
    return quantity(value, "MACs" if name == "macs" else "", 4)


def description_dict(space: Space, d: Description) -> dict[str, Any]:
    """The description as plain values."""
    return {
        "space": space.name,
        "about": space.about,
        "input": list(space.input),
        "classes": space.classes,
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


def description_text(space: Space, d: Description, whose: str) -> str:
    """The description for people; ``whose`` says where the space's input size and classes are from."""
    basis = "all of them" if d.exact else f"{d.looked_at:,} of them drawn at random"
    at = f"{sides(space.input)} and {space.classes:,} classes, {whose}"
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
        lines += ["", f"constraints and the share of assignments that satisfy each at {at}"]
        lines += [f"  {share:6.1%}  {source}" for source, share in d.acceptance]
    if d.spreads:
        rows: list[tuple[str, ...]] = [("", "lowest", "median", "highest")]
        rows += [
            (name, *(amount(name, v) for v in (s.low, s.median, s.high)))
            for name, s in d.spreads.items()
            if name != "gmacs"  # the multiply-adds once more
        ]
        lines += ["", f"costs of the accepted networks at {at}", table(rows, (1, 2, 3)), ""]
        prefix, factor = prefix_of([d.spreads["macs"].high])
        lines += [f"{prefix}MACs", *histogram(d.spreads["macs"], factor)]
    lines += ["", "samples"] if d.samples else []
    lines += [
        f"  {amount('gmacs', s.cost.gmacs):>12}  {amount('params', s.cost.params):>8}  {s.architecture.arch_id[:12]}  "
        f"{assignment_text(s.values)}"
        for s in d.samples
    ]
    return "\n".join(lines)


def histogram(spread: Spread, unit: float) -> list[str]:
    """One bar a bin, with its ends in a ``unit``."""
    step, most = (spread.high - spread.low) / len(spread.counts), max(spread.counts)
    if not step:
        return [f"  {number(spread.low / unit, 4):>8}  {'█' * BAR} {most} (all the same)"]
    ends = [number((spread.low + step * i) / unit, 4) for i in range(len(spread.counts) + 1)]
    return [
        f"  {ends[i]:>8} – {ends[i + 1]:<8} {'█' * max(round(BAR * n / most), n > 0)} {n}"
        for i, n in enumerate(spread.counts)
    ]


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
