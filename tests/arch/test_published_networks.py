"""The printed costs: complete, in the papers' digits, and judged by them alone."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from decimal import ROUND_HALF_EVEN, Decimal
from types import SimpleNamespace

import pytest

from pyconv_search.arch.cost import cost
from pyconv_search.arch.presets import preset
from pyconv_search.arch.published.networks import CONVENTIONS, VERDICTS, NetworkRow, network_rows, verdict
from pyconv_search.arch.published.results import PAPERS
from pyconv_search.arch.resnet import resnet

# Copied by hand from the papers: (paper, table, row) -> parameters in millions, GFLOPs.
BY_HAND = {
    ("pyconv", "Table 1", "PyConvHGResNet-50"): ("25.23", "4.61"),
    ("pyconv", "Table 2", "(5, 4, 3, 2)"): ("23.45", "3.71"),
    ("pyconv", "Table 2", "(4, 3, 2, 1) max"): ("24.85", "3.88"),
    ("pyconv", "Table 3", "NL-ResNet-152"): ("71.35", "13.66"),
    ("pyconv", "Table 3", "ResNeXt-50"): ("25.03", "4.30"),
    ("pyconv", "Table 6", "ResNet-152"): ("69.03", "242.00"),
    ("pyconv", "supplement, Table 1", "PyConvSSD-101"): ("39.01", "45.02"),
    ("pyconv", "supplement, Table 3", "ResNet3D-50"): ("47.00", "93.26"),
    ("pyconv", "supplement, Table 4, test crop 320×320", "PyConvResNet-101"): ("42.31", "14.92"),
    ("pyconv", "supplement, Table 5", "PyConvInception"): ("43.48", "11.92"),
    ("pyconv", "supplement, Table 6, output stride 8", "PyConvSegNet: PyConvPH"): ("34.40", "116.84"),
    ("pyconv", "supplement, Table 6, output stride 16", "PSPNet: PPM"): ("49.06", "48.08"),
    ("psconv", "Table 2", "PS-ResNet-50 (ours)"): ("25.557", "4.089"),
    ("psconv", "Table 2", "DRN-A-50"): ("25.557", "19.079"),
}  # fmt: skip
ROWS = {(row.paper, row.table, row.row): row for row in network_rows()}


UNLIKE = {"PyConvResNet3D-50": "differs", "PyConvInception": "ours"}


@pytest.mark.parametrize("row", ROWS.values(), ids=lambda row: f"{row.paper} {row.table} {row.row}")
def test_every_row_matches_the_network_of_its_name_or_says_why_not(row: NetworkRow) -> None:
    arch = preset(row.network)
    found = verdict(row, cost(replace(arch, input=row.input or arch.input)))
    assert found.word == UNLIKE.get(row.row, "match" if row.printed else "not printed")
    assert row.note or found.word not in ("differs", "ours")


def counts(params: int, macs: int = 0, thop: int = 0) -> SimpleNamespace:
    return SimpleNamespace(params=params, macs=macs, thop=thop)


@pytest.mark.parametrize(("place", "printed"), BY_HAND.items(), ids=str)
def test_the_digits_are_those_of_the_papers(place: tuple[str, str, str], printed: tuple[str, str]) -> None:
    assert (str(ROWS[place].params), str(ROWS[place].gflops)) == printed


def test_every_row_is_there_once_and_whole() -> None:
    rows = network_rows()
    assert (len(rows), sum(row.printed for row in rows), len(ROWS)) == (80, 66, 80)
    assert Counter(row.paper for row in rows) == {"pyconv": 63, "psconv": 17}
    assert set(PAPERS) == {"pyconv", "psconv"}
    for row in rows:
        assert row.convention == {"pyconv": "thop-2019", "psconv": "macs"}[row.paper]
        assert row.convention in CONVENTIONS
        assert (row.params is None) == (row.gflops is None)
        digits = {"pyconv": -2, "psconv": -3}[row.paper]
        assert {n.as_tuple().exponent for n in (row.params, row.gflops) if n is not None} <= {digits}
        assert row.network == row.network.lower().replace(" ", "-")
    assert [row.row for row in rows if row.ours] == ["PyConvInception"]
    assert {row.input for row in rows} == {None, (3, 320, 320)}


def test_one_network_at_one_size_has_one_printed_cost() -> None:
    printed: dict[tuple[object, ...], set[tuple[Decimal | None, Decimal | None]]] = {}
    for row in network_rows():
        if row.printed:
            printed.setdefault((row.network, row.input, row.convention), set()).add((row.params, row.gflops))
    assert [place for place, found in printed.items() if len(found) > 1] == []


ROW = NetworkRow("pyconv", "Table 9", "r", "thop-2019", "n", Decimal("24.85"), Decimal("3.80"))


@pytest.mark.parametrize(
    ("row", "cost", "expected"),
    [
        (ROW, counts(24_850_000, thop=3_800_000_000), ("match", "24.85", "3.80")),
        (ROW, counts(24_845_000, thop=3_795_000_000), ("match", "24.85", "3.80")),  # a half rounds up
        (ROW, counts(24_844_999, thop=3_800_000_000), ("differs", "24.84", "3.80")),
        (ROW, counts(24_854_999, thop=3_804_999_999), ("match", "24.85", "3.80")),
        (ROW, counts(24_855_000, thop=3_800_000_000), ("differs", "24.86", "3.80")),
        (ROW, counts(24_850_000, macs=3_800_000_000, thop=3_900_000_000), ("differs", "24.85", "3.90")),
        (replace(ROW, convention="macs"), counts(24_850_000, macs=3_800_000_000), ("match", "24.85", "3.80")),
        (replace(ROW, params=Decimal("24.850")), counts(24_849_000, thop=3_800_000_000), ("differs", "24.849", "3.80")),
        (replace(ROW, ours=True), counts(24_850_000, thop=3_800_000_000), ("ours", "24.85", "3.80")),
        (replace(ROW, params=None, gflops=None), counts(1_234_567, thop=9_876_543), ("not printed", "1.235", "0.010")),
    ],
)
def test_verdicts(row: NetworkRow, cost: SimpleNamespace, expected: tuple[str, str, str]) -> None:
    said = verdict(row, cost)
    assert (said.word, str(said.params), str(said.gflops)) == expected
    assert said.word in VERDICTS


@pytest.mark.parametrize(("pattern", "row"), [([1], "ResNet-50"), ([1, 2, 1, 4], "PS-ResNet-50 (ours)")])
def test_a_computed_network_against_its_row_whatever_the_rounding(pattern: list[int], row: str) -> None:
    found = cost(resnet({"depth": 50, "pattern": pattern}, (3, 224, 224), 1000))
    printed = ROWS["psconv", "Table 2", row]
    assert verdict(printed, counts(found.params, found.macs)).word == "match"
    assert Decimal(found.params).scaleb(-6).quantize(printed.params, ROUND_HALF_EVEN) == printed.params


def test_why_the_printed_parameters_of_the_video_network_cannot_match() -> None:
    """Its convolutions and normalisations, added up level by level, leave 174 of 2,049 each for the classifier."""
    pyramids = (
        ((27, 16, 1), (75, 16, 4), (245, 16, 8), (567, 16, 16)),
        ((27, 32, 1), (75, 32, 4), (245, 64, 8)),
        ((27, 128, 1), (75, 128, 4)),
        ((27, 512, 1),),
    )
    total, fed = 3 * 5 * 7 * 7 * 64 + 2 * 64, 64
    for blocks, width, levels in zip((3, 4, 6, 3), (64, 128, 256, 512), pyramids, strict=True):
        spatial = sum(volume * out * width // groups for volume, out, groups in levels)
        for block in range(blocks):
            total += fed * width + 2 * width + spatial + 2 * width + width * 4 * width + 2 * 4 * width
            total += fed * 4 * width + 2 * 4 * width if block == 0 else 0
            fed = 4 * width
    row = ROWS["pyconv", "supplement, Table 3", "PyConvResNet3D-50"]
    words = [verdict(row, counts(total + 2049 * n, thop=91_810_000_000)) for n in (174, 400)]
    assert [(said.word, str(said.params)) for said in words] == [("match", "44.91"), ("differs", "45.37")]
    assert "174" in row.note
    assert "45.37" in row.note
