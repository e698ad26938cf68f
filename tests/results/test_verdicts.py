"""Verdicts: what is decided from rounds of measurements, and that it is read again as it was written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pyconv_search.results import verdicts
from pyconv_search.results.verdicts import Verdict


def verdict(apart: tuple[float, ...], stacked: tuple[float, ...], **other: str) -> Verdict:
    return Verdict("k1", "a1", "plain", "cpu", 3, 2, apart, stacked, **other)


@pytest.mark.parametrize(
    ("apart", "stacked", "together"),
    [
        ((100, 100, 100), (120, 121, 119), 3),
        ((100, 100, 100), (111, 112, 113), 3),
        ((100, 100, 100), (109, 109, 109), 1),  # not by the margin
        ((100, 100, 100), (150, 150, 99), 1),  # not in every round
        ((100, 100, 100), (50, 60, 40), 1),
        ((), (), 1),
    ],
)
def test_stacks_have_to_be_clearly_faster(apart: tuple[float, ...], stacked: tuple[float, ...], together: int):
    assert verdict(apart, stacked).together == together


def test_the_ratio_is_of_the_rounds():
    assert verdict((100.0, 50.0, 90.0), (50.0, 100.0, 90.0)).ratio == 1.0
    assert str(verdict((100.0,) * 3, (200.0,) * 3)) == (
        "plain on cpu, 2 at a time: stacks of 3 are 2.00 × as fast, so together"
    )
    assert str(verdict((), (), failure="no memory")).endswith("one by one; no memory")


def test_what_is_written_is_read(tmp_path: Path):
    assert verdicts.read(tmp_path) == {}
    known = {"k1": verdict((100.0, 90.0), (50.0, 40.0)), "k2": replace(verdict((), (), failure="no memory"), key="k2")}
    verdicts.write(tmp_path, known)
    assert verdicts.read(tmp_path) == known


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"verdicts": [{"key": "k"}]}', '{"verdicts": 3}'])
def test_a_damaged_file_is_measured_again(tmp_path: Path, text: str):
    (tmp_path / verdicts.FILE).write_text(text)
    assert verdicts.read(tmp_path) == {}
