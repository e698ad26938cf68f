"""Reports of studies that vary the recipe with the network: every configuration is one, its network is drawn once."""

from __future__ import annotations

import statistics
from dataclasses import replace
from typing import Any

import pytest

from pyconv_search.report.digest import digest
from pyconv_search.report.networks import networks
from pyconv_search.report.page import render
from pyconv_search.report.published import section
from pyconv_search.report.recipes import differences
from pyconv_search.report.scales import allocations
from pyconv_search.report.sections import architectures, drawn, trials
from pyconv_search.report.words import labels
from pyconv_search.results.store import read

RATES = (0.05, 0.1, 0.2)


def rows_of(examples: Any, architectures: int = 2, **changes: Any) -> list[Any]:
    """Every architecture by three learning rates over three seeds; the study's own rate is 0.1."""
    found = []
    for a in range(architectures):
        for lr in RATES:
            own = {"config": f"{a}-{lr}" + "c" * 30, "recipe": {"lr": lr}} if lr != 0.1 else {}
            values = {"parameters": {"width": 8 * a + 8, "lr": lr}, "name": "", **own, **changes}
            found += [
                examples.row(a, s, trial=f"{a}-{lr}-{s}", val_top1_error=10 - a - 10 * lr + s / 10, **values)
                for s in range(3)
            ]
    return found


def test_seeds_of_one_configuration_belong_together(examples: Any, tmp_path: Any) -> None:
    rows = rows_of(examples)
    d = digest(read(examples.write(tmp_path / "run", rows)))
    assert len(d.candidates) == 6
    assert d.noun == "configuration"
    for c in d.candidates:
        own = [r.val_top1_error for r in rows if r.parameters == c.first.parameters]
        assert c.summary is not None
        assert (c.summary.n, c.summary.mean) == (3, pytest.approx(statistics.fmean(own)))
    assert d.selected is not None
    assert d.selected.first.parameters == {"width": 16, "lr": 0.2}
    assert d.front == {
        d.selected.config,
        next(c.config for c in d.candidates if c.first.parameters == {"width": 8, "lr": 0.2}),
    }
    assert len(d.comparisons) == 5
    assert all(comparison.difference.n == 3 for comparison in d.comparisons)
    assert set(labels(rows).values()) == {f"width = {w}, lr = {lr}" for w in (8, 16) for lr in RATES}


def test_the_page_speaks_of_configurations_and_shows_their_recipes(examples: Any, tmp_path: Any) -> None:
    folder = examples.write(tmp_path / "run", rows_of(examples))
    page = render(read(folder))
    assert "of the 6 configurations" in page
    assert "<dt>configurations</dt><dd>6</dd>" in page
    assert "Trained by the study’s recipe, but for lr = 0.2." in page
    assert "An architecture and the recipe that it is trained by" in page
    d = digest(read(folder))
    table = architectures(d)
    assert table.head[0] == "Configuration"
    place = table.head.index("lr")
    assert sorted(line.cells[place].value for line in table.lines) == sorted(RATES * 2)
    assert {line.cells[-1].text for line in table.lines} == {c.config[:8] for c in d.candidates}
    assert len({line.cells[1].text for line in trials(d).lines}) == 6
    plain = render(read(examples.whole(tmp_path / "plain")))
    assert "onfiguration" not in plain
    assert "<dt>architectures</dt><dd>5</dd>" in plain


def test_a_network_is_drawn_once_whatever_its_recipes(examples: Any, tmp_path: Any) -> None:
    folder = examples.drawn(tmp_path / "run", [8, 16])
    first, second = (row.arch_id for row in read(folder).rows)
    rows = []
    for width, arch_id in ((8, first), (16, second)):
        for lr in RATES:
            own = {"config": f"{width}-{lr}", "recipe": {"lr": lr}, "trial": f"{width}-{lr}"}
            rows.append(examples.row(0, 0, arch_id=arch_id, parameters={"width": width}, name=f"{width}, {lr}", **own))
    source = {"source": {"space": examples.SPACE}, "input": [3, 16, 16], "seeds": [0]}
    d = digest(read(examples.write(tmp_path / "more", rows, **source)))
    shown = networks(d)
    assert {network.candidate.arch_id for network in shown} == {first, second}
    assert len(shown) == 2
    assert drawn(d, shown) == "Every architecture of the table is drawn."
    links = {line.cells[0].text: line.cells[0].link for line in architectures(d, shown).lines}
    assert links == {row.name: f"network-{row.arch_id[:16]}" for row in rows}


def test_scales_are_told_of_each_recipe_by_itself(examples: Any, tmp_path: Any) -> None:
    """What a layer's weights come to depends on how it was trained."""
    rows = [
        replace(row, scales={"stages.0.0.conv": {"3×3": row.parameters["lr"], "5×5": 1 - row.parameters["lr"]}})
        for row in rows_of(examples, 1)
    ]
    d = digest(read(examples.write(tmp_path / "run", rows)))
    found = {a.candidate.first.parameters["lr"]: a.shares["3×3"] for a in allocations(d)}
    assert found == {lr: (pytest.approx(lr),) for lr in RATES}
    assert allocations(d)[0].candidate is d.selected


def test_a_configurations_own_recipe_is_held_against_the_papers(examples: Any, tmp_path: Any) -> None:
    recipe = {"epochs": 90, "batch": 256, "lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4, "schedule": "steps",
              "steps": [30, 60, 80], "gamma": 0.1}  # fmt: skip
    names = [f"(2, 2, 2, 1) {lr}" for lr in RATES]
    rows = [
        examples.row(1, s, trial=f"{lr}-{s}", name=name, parameters={"lr": lr}, config=f"c{lr}" if lr != 0.1 else "",
                     recipe={"lr": lr, "cutmix": 1.0} if lr != 0.1 else {})
        for name, lr in zip(names, RATES, strict=True) for s in range(2)
    ]  # fmt: skip
    listed = {"kind": "rows", "rows": [{"name": n, "lr": lr} for n, lr in zip(names, RATES, strict=True)]}
    published = {"table": "pyconv/table2", "rows": dict.fromkeys(names, "(2, 2, 2, 1)")}
    found = section(
        digest(read(examples.write(tmp_path / "run", rows, search=listed, recipe=recipe, published=published)))
    )
    assert found is not None
    remarks = {line.cells[1].text: line.cells[-1].text for line in found.errors.lines if line.cells[1].text in names}
    for name, lr in zip(names, RATES, strict=True):
        told = f"learning rate {lr} here, 0.1 published; cutmix 1.0 here, not mentioned in the paper"
        assert (told in remarks[name]) == (lr != 0.1)


def test_what_a_recipe_adds_to_a_published_one_is_told() -> None:
    from pyconv_search.arch.published.results import result_tables

    table2 = result_tables()["pyconv/table2"].rows[0].recipe
    cutmix = result_tables()["pyconv/supplement-table4-224"].rows[1].recipe
    own = {"epochs": 90, "batch": 512, "lr": 0.1, "lr_batch": 512, "momentum": 0.9, "weight_decay": 1e-4,
           "schedule": "steps", "steps": [30, 60, 80], "gamma": 0.1, "cutmix": 1.0, "ema": 0.99}  # fmt: skip
    told = differences(table2, own)
    assert "batch 512 here, 256 published" in told
    assert not any("learning rate" in text for text in told)
    assert "learning rate 0.2 here, 0.1 published" in differences(table2, own | {"lr_batch": 256})
    assert {
        "cutmix 1.0 here, not mentioned in the paper",
        "averaged weights 0.99 here, not mentioned in the paper",
    } <= set(told)
    assert not any(text.startswith("cutmix") for text in differences(cutmix, own))
