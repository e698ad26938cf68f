"""Strategies against what Optuna's file says afterwards; no Ray."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import optuna
import pytest

from pyconv_search.results.row import Epoch, Row
from pyconv_search.search.ledger import STORAGE, Ledger, distribution, encode, objective_values
from pyconv_search.search.outcome import blank_row
from pyconv_search.search.strategies import Listed, Tpe, make_strategy
from pyconv_search.space.sampling import draw
from pyconv_search.space.space import load_space
from pyconv_search.study.plan import Candidate, planned_trials, trial_spec
from pyconv_search.study.study import Study

Toy = Callable[..., Study]


def ended(
    study: Study, row: Candidate, status: str = "complete", reason: str = "", error: float | None = None
) -> list[Row]:
    """Rows of every seed; by default with an error that falls with the width."""
    base = 60.0 - row.values["width"] / 2 if error is None else error
    return [
        replace(
            blank_row(trial_spec(study, row, seed, None), status, reason, ""),
            epochs=2,
            val_top1_error=base + seed,
            val_top5_error=base / 5,
            val_loss=base / 10,
        )
        for seed in study.seeds
    ]


def curve(rows: list[Row]) -> list[Epoch]:
    return [Epoch(rows[0].trial, n, 0.1, 1.0, 50.0, 2.0, 40.0 - n, 5.0, 1.0) for n in (1, 2)]


def recorded(folder: Path) -> list[optuna.trial.FrozenTrial]:
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(folder / STORAGE)))
    (summary,) = optuna.get_all_study_summaries(storage)
    return optuna.load_study(study_name=summary.study_name, storage=storage).trials


def tpe(toy: Toy, trials: int = 12, seed: int = 0, **changes: object) -> Study:
    return toy(search={"tpe": {"trials": trials, "seed": seed, "startup": 4}}, **changes)


def play(study: Study, folder: Path, most: int = 100) -> list[dict[str, object]]:
    """Propose and observe one after the other, up to ``most`` new networks; the assignments in order."""
    strategy = make_strategy(study, folder)
    known = len([t for t in recorded(folder) if "arch_id" in t.user_attrs])
    found = []
    while len(found) < known + most and (proposed := strategy.propose()):
        for row in proposed:
            found.append(row.values)
            strategy.observe(row, ended(study, row), [])
    return found[known:]


@pytest.mark.parametrize("file", sorted(Path(__file__).parents[2].glob("spaces/*.yaml")), ids=lambda p: p.stem)
def test_every_shipped_assignment_fits_its_optuna_distribution(file: Path, toy: Toy) -> None:
    study = replace(toy(), space=load_space(file))
    for number in range(50):
        values = draw(study.space, 0, number)
        for name, value in encode(study, values).items():
            form = distribution(study.space.by_name[name].domain)
            assert form._contains(form.to_internal_repr(value))


def test_states_are_honest(toy: Toy, tmp_path: Path) -> None:
    study = toy(search={"rows": [{"width": w, "levels": [1, 1, 1]} for w in (8, 16, 24)]})
    strategy = make_strategy(study, tmp_path)
    assert isinstance(strategy, Listed)
    one, two, three = strategy.propose()
    assert strategy.propose() == []
    strategy.observe(one, ended(study, one), curve(ended(study, one)))
    strategy.observe(two, ended(study, two, "stopped", "scheduler"), curve(ended(study, two)))
    strategy.observe(three, ended(study, three, "failed", "nan", math.nan), [])
    complete, pruned, failed = recorded(tmp_path)
    assert (complete.state.name, complete.value) == ("COMPLETE", 56.5)
    assert (pruned.state.name, pruned.intermediate_values) == ("PRUNED", {1: 39.0, 2: 38.0})
    assert pruned.user_attrs["states"] == ["stopped@2", "stopped@2"]
    assert (failed.state.name, failed.user_attrs["reasons"]) == ("FAIL", ["nan", "nan"])
    assert [t.params["width"] for t in (complete, pruned, failed)] == [8, 16, 24]


def test_means_are_over_complete_seeds_and_in_the_order_of_the_objectives(toy: Toy) -> None:
    study = toy(objectives={"gmacs": "min", "top1_error": "min", "params": "max"})
    row = make_candidate(study)
    rows = ended(study, row)
    assert objective_values(study, rows) == [row.cost.macs / 1e9, 56.5, row.cost.params]
    assert objective_values(study, [rows[0], replace(rows[1], status="failed")]) is None
    assert objective_values(study, [replace(r, status="stopped") for r in rows]) is None


def make_candidate(study: Study) -> Candidate:
    from pyconv_search.study.plan import candidate

    found = candidate(study, {"width": 8, "levels": [1, 1, 1]})
    assert found is not None
    return found


def test_a_row_is_recorded_once_however_often_a_run_is_resumed(toy: Toy, tmp_path: Path) -> None:
    study = toy()
    for _ in range(2):
        strategy = make_strategy(study, tmp_path)
        for row in strategy.propose():
            strategy.observe(row, ended(study, row), [])
    assert len(recorded(tmp_path)) == 3


def test_tpe_proposes_different_feasible_networks(toy: Toy, tmp_path: Path) -> None:
    study = tpe(toy, 15)
    found = play(study, tmp_path)
    assert len(found) == 15
    archs = [study.space.fit(values, (1, 28, 28), 10) for values in found]
    assert None not in archs
    assert len({arch.arch_id for arch, _ in filter(None, archs)}) == 15
    refused = [t for t in recorded(tmp_path) if "refused" in t.user_attrs]
    assert all(t.state.name in ("PRUNED", "FAIL") for t in refused)


def test_tpe_is_a_function_of_seed_and_history(toy: Toy, tmp_path: Path) -> None:
    whole = play(tpe(toy), tmp_path / "a" if (tmp_path / "a").mkdir() is None else tmp_path)
    (tmp_path / "b").mkdir()
    parts = play(tpe(toy), tmp_path / "b", most=5) + play(tpe(toy), tmp_path / "b")
    assert parts == whole
    (tmp_path / "c").mkdir()
    assert play(tpe(toy, seed=1), tmp_path / "c") != whole


def test_tpe_is_told_which_way_is_better(toy: Toy, tmp_path: Path) -> None:
    study = tpe(toy, 8)
    found = play(study, tmp_path)
    best = min((t for t in recorded(tmp_path) if t.state.name == "COMPLETE"), key=lambda t: t.value or 0)
    assert best.params["width"] == max(values["width"] for values in found)


def test_tpe_takes_up_what_was_under_way(toy: Toy, tmp_path: Path) -> None:
    study = tpe(toy, 3)
    first = make_strategy(study, tmp_path)
    (left,) = first.propose()
    again = make_strategy(study, tmp_path)
    assert [row.values for row in again.propose()] == [left.values]
    again.observe(left, ended(study, left), [])
    assert [row.values for row in make_strategy(study, tmp_path).propose()] == [left.values]
    again.observe(left, ended(study, left), [])
    assert len(again.propose() + again.propose() + again.propose()) == 2
    assert Counter(t.state.name for t in recorded(tmp_path))["RUNNING"] == 2


def test_tpe_with_several_objectives_and_a_stopped_network(toy: Toy, tmp_path: Path) -> None:
    study = tpe(toy, 6, objectives={"top1_error": "min", "gmacs": "min"})
    strategy = make_strategy(study, tmp_path)
    for status in ("complete", "stopped", "failed", "complete", "complete", "complete"):
        (row,) = strategy.propose()
        rows = ended(study, row, status)
        strategy.observe(row, rows, curve(rows))
    assert strategy.propose() == []
    states = Counter(t.state.name for t in recorded(tmp_path) if "refused" not in t.user_attrs)
    assert states == {"COMPLETE": 4, "PRUNED": 1, "FAIL": 1}
    assert all(len(t.values) == 2 for t in recorded(tmp_path) if t.state.name == "COMPLETE")


def all_proposed(study: Study, folder: Path) -> tuple[Tpe, list[Candidate]]:
    strategy, found = make_strategy(study, folder), []
    assert isinstance(strategy, Tpe)
    while proposed := strategy.propose():
        assert strategy.shortfall == ""
        strategy.observe(proposed[0], ended(study, proposed[0]), [])
        found += proposed
    return strategy, found


@pytest.mark.parametrize("most_drawn", [0, 1, 300])
def test_an_exhausted_space_is_searched_whole(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most_drawn: int
) -> None:
    """However few draws there are, every network of the space is proposed once, and nothing is missing at the end."""
    monkeypatch.setattr("pyconv_search.search.strategies.MOST_DRAWN", most_drawn)
    study = tpe(toy, 24)
    strategy, found = all_proposed(study, tmp_path)
    every = {study.space.fit(v, (1, 28, 28), 10) for v in study.space.assignments()} - {None}
    assert {(row.architecture, row.cost) for row in found} == every
    assert planned_trials(study, 0) == len(found) * len(study.seeds) < 24 * len(study.seeds)
    assert strategy.shortfall == ""


def test_a_space_that_cannot_be_counted_may_fall_short(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pyconv_search.search.strategies.MOST_DRAWN", 300)
    monkeypatch.setattr("pyconv_search.study.supply.LISTED", 1)
    study = tpe(toy, 24)
    strategy, found = all_proposed(study, tmp_path)
    count = len(found)
    assert f"found {count} of 24 different networks and no further one in 300 draws" in strategy.shortfall
    assert "the space holds 24 assignments before its 1 constraints" in strategy.shortfall


def test_a_lost_file_is_rebuilt_from_the_journals_rows(toy: Toy, tmp_path: Path) -> None:
    study = tpe(toy, 6)
    strategy = make_strategy(study, tmp_path)
    rows: list[Row] = []
    for _ in range(4):
        (row,) = strategy.propose()
        rows += ended(study, row)
        strategy.observe(row, ended(study, row), [])
    before = {t.user_attrs["arch_id"]: t.value for t in recorded(tmp_path) if t.state.name == "COMPLETE"}
    (tmp_path / STORAGE).unlink()
    again = make_strategy(study, tmp_path, rows)
    assert isinstance(again, Tpe)
    assert {t.user_attrs["arch_id"]: t.value for t in recorded(tmp_path)} == before
    assert len(again.propose()) == 4
    assert len(again.propose() + again.propose()) == 2
    assert again.propose() == []


@pytest.mark.parametrize("damage", [b'{"op_code": 4, "wor', b"\x00\x00\xff\n", b"[]\n", b'{"op_code": 99}\n'])
def test_a_damaged_file_is_mended_or_made_again(toy: Toy, tmp_path: Path, damage: bytes) -> None:
    study = tpe(toy, 6)
    strategy = make_strategy(study, tmp_path)
    (row,) = strategy.propose()
    rows = ended(study, row)
    strategy.observe(row, rows, [])
    with (tmp_path / STORAGE).open("ab") as file:
        file.write(damage)
    again = make_strategy(study, tmp_path, rows)
    assert [r.values for r in again.propose()] == [row.values]
    assert [t.value for t in recorded(tmp_path)] == [56.5 + 4 - row.values["width"] / 2]
    assert len(again.propose()) == 1


def test_a_lock_that_a_killed_process_left_behind_does_not_hold_up(toy: Toy, tmp_path: Path) -> None:
    Ledger(toy(), tmp_path)
    (tmp_path / f"{STORAGE}.lock").symlink_to(tmp_path / STORAGE)
    assert Ledger(toy(), tmp_path).trials() == []


def test_a_retry_and_more_seeds_are_recorded(toy: Toy, tmp_path: Path) -> None:
    study = toy(search={"rows": [{"width": 8, "levels": [1, 1, 1]}]}, seeds=1)
    strategy = make_strategy(study, tmp_path)
    (row,) = strategy.propose()
    strategy.observe(row, ended(study, row, "failed", "oom"), [])
    assert [t.state.name for t in recorded(tmp_path)] == ["FAIL"]
    strategy.settle(ended(study, row), lambda trial: curve(ended(study, row)))
    assert [(t.state.name, t.value, t.intermediate_values) for t in recorded(tmp_path)] == [
        ("COMPLETE", 56.0, {1: 39.0, 2: 38.0})
    ]
    more = toy(search={"rows": [{"width": 8, "levels": [1, 1, 1]}]}, seeds=3)
    make_strategy(more, tmp_path, ended(study, row))
    assert [t.value for t in recorded(tmp_path)] == [56.0]
    make_strategy(more, tmp_path, ended(more, row))
    assert [(t.state.name, t.value) for t in recorded(tmp_path)] == [("COMPLETE", 57.0)]


def test_what_is_half_done_is_under_way_until_its_last_seed(toy: Toy, tmp_path: Path) -> None:
    study = toy(search={"rows": [{"width": 8, "levels": [1, 1, 1]}]}, seeds=2)
    strategy = make_strategy(study, tmp_path)
    (row,) = strategy.propose()
    strategy.settle(ended(study, row)[:1], lambda trial: ())
    assert [t.state.name for t in recorded(tmp_path)] == ["RUNNING"]
    make_strategy(study, tmp_path, ended(study, row)[:1]).observe(row, ended(study, row), [])
    assert [(t.state.name, t.value) for t in recorded(tmp_path)] == [("COMPLETE", 56.5)]
