"""Published results beside measured ones: what is compared, what is refused, and in which words."""

from __future__ import annotations

import statistics
from typing import Any

import pytest
from scipy import stats

from pyconv_search.arch.cost import cost
from pyconv_search.report.digest import digest
from pyconv_search.report.page import render
from pyconv_search.report.published import section
from pyconv_search.results.store import read
from pyconv_search.space.document import parse
from pyconv_search.space.space import space_of

NAMES = ["(1,1,1,1) baseline", "two levels", "(3,3,2,1)", "(4,3,2,1)", "mine"]
PARAMS = [25_557_032, 24_909_000, 25_000_000, 24_850_000, 1]
ALIKE = {
    "data": {"name": "imagenet", "validation": 10_000},
    "input": [3, 224, 224],
    "recipe": {"epochs": 90, "batch": 256, "lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4, "schedule": "steps",
               "steps": [30, 60, 80], "gamma": 0.1, "warmup": 0.0, "nesterov": False},
    "published": {"table": "pyconv/table2", "rows": {"two levels": "(2, 2, 2, 1)"}},
}  # fmt: skip


@pytest.fixture
def made(examples: Any, tmp_path: Any) -> Any:
    def make(**changes: Any) -> Any:
        rows = [
            examples.row(a, s, name=NAMES[a], params=PARAMS[a], macs=4_089_000_000, test_top1_error=23 - a + s / 10)
            for a in range(5)
            for s in range(3)
        ]
        listed = [{"name": n, "levels": v} for n, v in zip(NAMES, examples.LEVELS, strict=True)]
        search = {"search": {"kind": "rows", "rows": listed}}
        return digest(read(examples.write(tmp_path / "run", rows, **(search | ALIKE | changes))))

    return make


def by_row(table: Any) -> dict[str, dict[str, str]]:
    return {
        line.cells[0].text: dict(zip(table.head, (c.text for c in line.cells), strict=True)) for line in table.lines
    }


def test_what_is_alike_is_compared(made: Any) -> None:
    d = made()
    found = section(d)
    assert not found.refusals
    errors = by_row(found.errors)
    values = [23.0 - 0, 23.1, 23.2]
    half = stats.t.ppf(0.975, 2) * statistics.stdev(values) / 3**0.5
    baseline = errors["(1, 1, 1, 1) baseline"]
    assert baseline["Printed top-1 error (%)"] == "23.88"
    assert baseline["Measured top-1 error, test (%)"] == f"23.10 ± {half:.2f}"
    line = next(line for line in found.errors.lines if line.cells[0].text == "(1, 1, 1, 1) baseline")
    assert line.cells[4].text == f"−0.78 ± {half:.2f}"
    assert line.cells[4].value == pytest.approx(statistics.fmean(values) - 23.88)
    assert (baseline["Seeds"], baseline["In this study"]) == ("3", "(1,1,1,1) baseline")
    assert errors["(2, 2, 2, 1)"]["In this study"] == "two levels"
    assert errors["(5, 4, 3, 2)"]["Remarks"] == "not in this study"
    assert errors["(5, 4, 3, 2)"]["Printed top-1 error (%)"] == "23.03"
    assert "Not in the published table: mine." in found.caveats


def test_another_network_is_not_compared(made: Any) -> None:
    found = section(made())
    row = by_row(found.errors)["(3, 3, 2, 1)"]
    assert (row["Difference (points)"], row["Remarks"]) == ("–", "not compared: another network, by the counts below")
    counts = by_row(found.costs)
    assert (counts["(3, 3, 2, 1)"]["Params here (M)"], counts["(3, 3, 2, 1)"]["Counts"]) == (
        "25.00",
        "not equal",
    )
    assert counts["(4, 3, 2, 1)"]["Counts"] == "params equal in every printed digit"


def test_two_conventions_are_never_side_by_side(made: Any) -> None:
    thop = section(made())
    assert thop.costs.head[-2:] == ("Printed GFLOPs (thop-2019)", "Counts")
    assert not any("here" in head and "FLOP" in head for head in thop.costs.head)
    assert any(text.startswith("Operations: the paper’s GFLOPs follow thop-2019") for text in thop.caveats)


@pytest.mark.parametrize(
    ("macs", "counts"),
    [(4_089_184_256, "params and GFLOPs equal in every printed digit"), (4_000_000_000, "not equal")],
)
def test_under_one_convention_operations_count(examples: Any, tmp_path: Any, macs: int, counts: str) -> None:
    rows = [examples.row(0, 0, name="ResNet-50", params=25_557_032, macs=macs)]
    found = section(digest(read(examples.write(tmp_path / "run", rows, **ALIKE | {"published": "psconv/table2"}))))
    line = by_row(found.costs)["ResNet-50"]
    assert (line["GFLOPs here (macs)"], line["Counts"]) == (f"{macs / 1e9:.3f}", counts)
    assert not any(text.startswith("Operations:") for text in found.caveats)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data": {"name": "cifar10"}}, "Other data: the paper measured on imagenet, this study on cifar10."),
        ({"input": [3, 160, 160]}, "Other input size: the paper measured at 3×224×224, this study at 3×160×160."),
        ({"input": []}, "the run’s folder does not tell this study’s."),
        ({"published": "pyconv/supplement-table1"}, "Other measures: average precision, IoU 0.5 to 0.95, average"),
        ({"published": "pyconv/supplement-table4-320"}, "Other input size: the paper measured at 3×320×320"),
        ({"published": "psconv/table6"}, "Other data: the paper measured on cifar100, this study on imagenet."),
    ],
)  # fmt: skip
def test_what_is_not_alike_is_refused_but_shown(made: Any, changes: dict[str, Any], words: str) -> None:
    d = made(**changes)
    found = section(d)
    assert any(words in text for text in found.refusals)
    assert not any("Difference" in head for head in found.errors.head)
    assert "Counts" not in (found.costs.head if found.costs else ())
    assert all(float(line.cells[2].text.split()[0]) > 0 for line in found.errors.lines)
    for table in filter(None, (found.errors, found.costs)):
        assert {len(line.cells) for line in table.lines} == {len(table.head)}
    page = render(d.store)
    assert "are not compared" in page
    assert words in page


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ({}, "Recipe: published: augmentation of Szegedy et al. 2015."),
        ({"epochs": 60}, "60 epochs here, 90 published"),
        ({"batch": 128, "lr": 0.05}, "batch 128 here, 256 published; learning rate 0.05 here, 0.1 published"),
        ({"schedule": "cosine", "steps": []}, "schedule cosine here, steps published"),
        ({"steps": [30, 60]}, "steps [30,60] here, [30,60,80] published"),
        ({"nesterov": True, "warmup": 2.0}, "nesterov true here, not mentioned in the paper; warm-up epochs 2.0 here"),
    ],
)
def test_another_recipe_is_told_beside_the_difference(made: Any, recipe: dict[str, Any], words: str) -> None:
    found = section(made(recipe=ALIKE["recipe"] | recipe))  # type: ignore[operator]
    assert words in next(text for text in found.caveats if text.startswith("Recipe:"))
    assert "Difference (points)" in found.errors.head


def test_a_recipe_that_the_paper_leaves_open_is_told(made: Any) -> None:
    changes = {"data": {"name": "cifar100"}, "input": [3, 32, 32], "published": "psconv/table6"}
    found = section(made(**changes))
    assert not found.refusals
    assert "the paper does not state: epochs, batch, learning rate, schedule" in found.caveats[0]
    assert any(text == "Training images: 5,000 are held out here to select by." for text in found.caveats)
    assert by_row(found.errors)["ResNeXt-29 (8x64d), PSConv"]["Printed top-1 error (%)"] == "17.138 (sd 0.286)"
    assert found.costs is None


def test_a_row_with_a_recipe_of_its_own_tells_it(made: Any) -> None:
    published = {"table": "pyconv/supplement-table4-224", "rows": {"mine": "PyConvResNet-50 + augment"}}
    remarks = by_row(section(made(published=published)).errors)["PyConvResNet-50 + augment"]["Remarks"]
    assert "90 epochs here, 300 published" in remarks


def test_an_unknown_reference_and_none(made: Any) -> None:
    assert section(made(published=None)) is None
    d = made(published="pyconv/table99")
    assert section(d).errors is None
    assert "refers to pyconv/table99, which this version of pyconv-search does not know" in render(d.store)


def test_nothing_measured_yet(examples: Any, tmp_path: Any) -> None:
    d = digest(read(examples.write(tmp_path / "run", [], **ALIKE)))
    found = section(d)
    assert len(found.errors.lines) == 8
    assert {line.cells[-1].text for line in found.errors.lines} == {"not in this study"}
    assert "Published results" in render(d.store)


TABLE_2 = "space: s\nparameters: {levels: {choice: [[1, 1, 1, 1], [2, 2, 2, 1], [4, 3, 2, 1]]}}\nnetwork: {depth: 50, levels: $levels}"


def test_operations_are_counted_on_the_network_where_the_folder_makes_it_again(examples: Any, tmp_path: Any) -> None:
    space = space_of(parse(TABLE_2))
    rows, listed = [], []
    for i, (name, levels) in enumerate(zip(NAMES, space.by_name["levels"].domain.values, strict=False)):
        arch = space.architecture({"levels": levels})
        closed = cost(arch)
        own = {"parameters": {"levels": levels}, "arch_id": arch.arch_id, "params": closed.params, "macs": closed.macs}
        rows.append(examples.row(i, 0, name=name, **own))
        listed.append({"name": name, "levels": levels})
    search = {"search": {"kind": "rows", "rows": listed}, "source": {"space": TABLE_2}, "classes": 1000}
    published = {
        "published": {"table": "pyconv/table2", "rows": {"two levels": "(2, 2, 2, 1)", NAMES[2]: "(4, 3, 2, 1)"}}
    }
    found = section(digest(read(examples.write(tmp_path / "run", rows, **(search | ALIKE | published)))))
    costs = by_row(found.costs)
    assert not any("Operations" in text for text in found.caveats)
    assert [costs[name]["GFLOPs here (thop-2019)"] for name in list(costs)[:2]] == ["4.14", "3.91"]
    assert costs["(4, 3, 2, 1)"]["GFLOPs here (thop-2019)"] == "3.84"
    assert costs["(4, 3, 2, 1)"]["Counts"] == "params and GFLOPs equal in every printed digit"
