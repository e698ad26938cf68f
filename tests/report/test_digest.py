"""Which architecture is selected, what is compared with what, and what the front is taken over."""

from __future__ import annotations

import statistics

import pytest

from pyconv_search.report.digest import digest
from pyconv_search.results.store import read


def made(examples, tmp_path, rows, **changes):
    return digest(read(examples.write(tmp_path / "run", rows, **changes)))


def test_the_lowest_mean_of_the_whole_architectures_is_selected(whole):
    d = digest(read(whole))
    complete = [r for r in d.store.rows if r.status == "complete"]
    means = {
        arch: statistics.fmean(own)
        for arch in {r.arch_id for r in complete}
        if len(own := [r.val_top1_error for r in complete if r.arch_id == arch]) == 3
    }
    assert d.selected.arch_id == min(means, key=means.get)
    assert d.selected.summary.mean == pytest.approx(min(means.values()))
    assert d.eligible == set(means)
    assert dict(d.counts) == {"complete": 13, "failed": 1, "stopped": 1}
    assert d.remaining == 0


def test_a_lucky_architecture_with_fewer_seeds_is_not_selected(examples, tmp_path):
    rows = [examples.row(0, seed) for seed in range(3)] + [examples.row(1, 0, val_top1_error=0.1)]
    d = made(examples, tmp_path, rows)
    assert d.selected.first.arch_id == rows[0].arch_id
    assert d.front == {rows[0].arch_id}


def test_when_none_has_all_seeds_the_most_count(examples, tmp_path):
    rows = [examples.row(0, 0), examples.row(1, 0), examples.row(1, 1)]
    assert made(examples, tmp_path, rows).selected.arch_id == rows[1].arch_id


def test_stopped_and_failed_trials_select_nothing(examples, tmp_path):
    rows = [examples.stopped(0, 0, val_top1_error=0.1), examples.failed(1, 0)]
    d = made(examples, tmp_path, rows)
    assert d.selected is None
    assert not d.front
    assert not d.comparisons


def test_ties_go_to_fewer_macs(examples, tmp_path):
    rows = [examples.row(a, 0, val_top1_error=5.0, macs=10 - a) for a in range(3)]
    d = made(examples, tmp_path, rows)
    assert d.selected.first.macs == 8
    assert d.front == {rows[2].arch_id}


def test_other_objectives(examples, tmp_path):
    rows = [
        examples.row(a, 0, val_loss=float(a), val_top1_error=50.0 - a, params=100 - a, macs=a + 1) for a in range(3)
    ]
    d = made(examples, tmp_path, rows, objectives={"loss": "min", "params": "min"})
    assert (d.accuracy.key, d.cost.key) == ("loss", "params")
    assert d.selected.arch_id == rows[0].arch_id
    assert d.front == {row.arch_id for row in rows}
    without = made(examples, tmp_path / "b", rows, objectives={"top1_error": "min"})
    assert (without.costs, without.cost.key) == ((), "gmacs")


def test_a_cost_that_is_to_be_large(examples, tmp_path):
    rows = [examples.row(a, 0, val_top1_error=5.0 + a, receptive_field=10 + a) for a in range(3)]
    d = made(examples, tmp_path, rows, objectives={"top1_error": "min", "receptive_field": "max"})
    assert d.front == {row.arch_id for row in rows}
    d = made(examples, tmp_path / "b", rows, objectives={"top1_error": "min", "receptive_field": "min"})
    assert d.front == {rows[0].arch_id}


@pytest.mark.parametrize(
    "listed",
    [
        {"levels": [3, 3, 2, 1]},
        {"name": "renamed since", "levels": [3, 3, 2, 1]},
        {"name": "", "levels": [3, 3, 2, 1], "split": "equal"},
    ],
)
def test_the_baseline_is_the_first_row_that_the_study_lists(examples, tmp_path, listed):
    rows = [examples.row(a, seed) for a in range(4) for seed in range(2)]
    d = made(examples, tmp_path, rows, search={"kind": "rows", "rows": [listed, {"levels": [1, 1, 1, 1]}]})
    assert d.baseline.arch_id == rows[4].arch_id
    assert {c.candidate.arch_id for c in d.comparisons} == {row.arch_id for row in rows} - {d.baseline.arch_id}


def test_a_listed_baseline_is_waited_for(examples, tmp_path):
    search = {"kind": "rows", "rows": [{"name": "levels 1,1,1,1", "levels": [9, 9, 9, 9]}, {"levels": [1, 1, 1, 1]}]}
    d = made(examples, tmp_path, [examples.row(0, 0), examples.row(1, 0)], search=search)
    assert (d.baseline, d.comparisons) == (None, ())


def test_without_a_list_the_baseline_was_started_first(examples, tmp_path):
    rows = [examples.row(0, 0), examples.row(1, 0, started="2025-03-01T09:00:00+00:00")]
    assert made(examples, tmp_path, rows).baseline.arch_id == rows[1].arch_id


def test_missing_and_infinite_figures_do_not_count(examples, tmp_path):
    rows = [
        examples.row(0, 0, val_top1_error=None),
        examples.row(0, 1, val_top1_error=float("nan")),
        examples.row(0, 2),
    ]
    assert list(made(examples, tmp_path, rows).selected.values) == [2]
