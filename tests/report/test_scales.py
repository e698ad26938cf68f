"""The figure of the scale allocation: its bars are the rows' shares."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from pyconv_search.report.digest import digest
from pyconv_search.report.page import render
from pyconv_search.report.scales import allocation_figure, allocations
from pyconv_search.results.store import read

SVG = "{http://www.w3.org/2000/svg}"
LAYERS = ("stages.0.0.conv2", "stages.0.1.conv2", "stages.1.0.conv2")


def shares(seed: int, layer: int) -> dict[str, float]:
    two = 0.1 * (layer + 1) + 0.02 * seed
    return {"3×3, dilation 1": 0.7 - two, "3×3, dilation 2": two, "11×11, dilation 1": 0.3}


@pytest.fixture
def run(examples, tmp_path):
    rows = [
        examples.row(a, seed, scales={name: shares(seed, i) for i, name in enumerate(LAYERS)} if a != 4 else {})
        for a in range(5)
        for seed in range(2)
    ]
    return read(examples.write(tmp_path / "run", rows, seeds=[0, 1]))


def test_shares_are_means_over_seeds_of_networks_that_have_them(run):
    d = digest(run)
    found = allocations(d)
    assert d.selected is not None
    assert d.selected.first.scales == {}
    assert [a.candidate.name for a in found] == [c.name for c in d.candidates if c is not d.selected][:4]
    assert found[0].layers == LAYERS
    assert list(found[0].shares) == ["3×3, dilation 1", "3×3, dilation 2", "11×11, dilation 1"]
    assert found[0].shares["3×3, dilation 2"] == pytest.approx((0.11, 0.21, 0.31))
    assert found[0].starts == (0, 2)


def test_bars_are_as_high_as_the_shares(run):
    allocation = allocations(digest(run))[0]
    root = ElementTree.fromstring(allocation_figure(allocation, 0))
    heights = []
    for path in root.iter(f"{SVG}path"):
        corners = re.findall(r"[ML] ([\d.]+) ([\d.]+)", path.get("d", ""))
        sides = {(float(x), float(y)) for x, y in corners}
        if path.get("fill", "none") != "none" and len({x for x, _ in sides}) == len({y for _, y in sides}) == 2:
            heights.append(max(y for _, y in sides) - min(y for _, y in sides))
    bars = heights[: 3 * len(LAYERS)]
    whole = sum(bars) / len(LAYERS)
    assert [bar / whole for bar in bars] == pytest.approx(
        [s for one in allocation.shares.values() for s in one], abs=1e-4
    )


def test_the_page_has_it_only_where_there_are_shares(run, whole):
    assert "Scale allocation" in render(run)
    assert 'id="scales-3"' in render(run)
    assert "Scale allocation" not in render(read(whole))
