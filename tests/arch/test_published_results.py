"""The printed accuracies: unambiguous, in the papers' digits, and joined to the costs of the same rows."""

from __future__ import annotations

from decimal import Decimal

import pytest

from pyconv_search.arch.published.results import PAPERS, result_tables

# Copied by hand from the papers.
BY_HAND = [
    ("pyconv/table2", "(4, 3, 2, 1) final", {"top1_error": "22.12", "top5_error": "6.20"}),
    ("pyconv/table2", "top(4, 3, 2, 1)", {"top1_error": "23.18", "top5_error": "6.60"}),
    ("pyconv/table3", "PyConvHGResNet-50", {"top1_error": "21.52", "top5_error": "5.94"}),
    ("pyconv/table3", "NL-ResNet-152", {"top1_error": "21.91", "top5_error": "6.11"}),
    ("pyconv/table6", "PyConvResNet-152", {"mean_iou": "44.36", "mean_iou_ms": "45.64", "pixel_accuracy": "81.54", "pixel_accuracy_ms": "82.36"}),
    ("pyconv/supplement-table1", "PyConvSSD-101", {"ap": "31.27", "ap50": "50.00", "ap75": "32.67"}),
    ("pyconv/supplement-table3", "PyConvResNet3D-50", {"top1_error": "34.56", "top5_error": "13.34"}),
    ("pyconv/supplement-table4-320", "PyConvResNet-101 + augment", {"top1_error": "18.51", "top5_error": "4.28"}),
    ("pyconv/supplement-table5", "PyConvInception", {"top1_error": "20.31", "top5_error": "5.21", "latency": "0.738", "throughput": "347"}),
    ("pyconv/supplement-table6-os16", "DeepLabv3: ASPP", {"mean_iou": "40.34", "pixel_accuracy": "79.44"}),
    ("psconv/table1", "SE-ResNet-101, PSConv", {"top1_error": "19.786", "top5_error": "4.924"}),
    ("psconv/table3", "t = 4", {"top1_error": "21.476", "top5_error": "5.720"}),
    ("psconv/table4", "{1, 2, 1, 1}", {"top1_error": "22.368", "top5_error": "6.214"}),
    ("psconv/table4", "{1, 2, 4, 8}", {}),
    ("psconv/table5", "output channels", {"top1_error": "22.056", "top5_error": "6.174"}),
    ("psconv/table6", "ResNeXt-29 (16x64d), PSConv", {"top1_error": "16.528"}),
]  # fmt: skip


@pytest.mark.parametrize(("reference", "row", "printed"), BY_HAND)
def test_the_digits_are_those_of_the_papers(reference: str, row: str, printed: dict[str, str]) -> None:
    found = next(result for result in result_tables()[reference].rows if result.row == row)
    assert {key: str(value) for key, value in found.values.items()} == printed


def test_every_value_says_what_it_is() -> None:
    tables = result_tables()
    assert sum(len(table.rows) for table in tables.values()) == 100
    for reference, table in tables.items():
        assert reference == table.reference
        assert table.paper in PAPERS
        assert len({result.row for result in table.rows}) == len(table.rows)
        assert {m.better for m in table.metrics} <= {"lower", "higher"}
        assert all(m.unit and (m.better == "lower") == ("error" in m.key) for m in table.metrics if m.unit == "%")
        assert {key for result in table.rows for key in result.values} == {m.key for m in table.metrics}
        assert all(result.values or result.note for result in table.rows)
        assert all(0 < v < 100 for r in table.rows for k, v in r.values.items() if k != "throughput")


def test_costs_are_joined_by_paper_table_and_row() -> None:
    tables = result_tables()
    last = tables["pyconv/table2"].rows[-1]
    counts = tables["pyconv/table2"].counts(last)
    assert counts is not None
    assert (counts.params, counts.gflops, counts.network) == (Decimal("24.85"), Decimal("3.88"), "pyconvresnet-50")
    whole = [key for key, table in tables.items() if all(table.counts(result) for result in table.rows)]
    assert whole == [
        "pyconv/table2", "pyconv/table3", "pyconv/table6", "pyconv/supplement-table1", "pyconv/supplement-table3",
        "pyconv/supplement-table5", "pyconv/supplement-table6-os8", "pyconv/supplement-table6-os16", "psconv/table2",
    ]  # fmt: skip
    conventions = {
        (table.convention, row.convention) for table in tables.values() for r in table.rows if (row := table.counts(r))
    }
    assert conventions == {("thop-2019", "thop-2019"), ("macs", "macs")}


def test_recipes() -> None:
    tables = result_tables()
    pyconv, psconv = (tables[f"{paper}/table3"].rows[0].recipe for paper in PAPERS)
    assert (pyconv.epochs, pyconv.batch, pyconv.lr, pyconv.steps, pyconv.weight_decay) == (
        90,
        256,
        0.1,
        (30, 60, 80),
        1e-4,
    )
    assert (psconv.epochs, psconv.schedule, psconv.steps) == (120, "cosine", None)
    assert [r.recipe.epochs for r in tables["pyconv/supplement-table4-224"].rows] == [90, 300, 90, 300]
    assert tables["psconv/table6"].rows[0].recipe.epochs is None
