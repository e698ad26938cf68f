"""Recipe and architecture jointly: two recipes of one architecture stay apart, whatever keeps the account."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from rich.console import Console

from pyconv_search.errors import UserError
from pyconv_search.report.digest import digest
from pyconv_search.report.page import render
from pyconv_search.results import store
from pyconv_search.results.row import Row
from pyconv_search.results.store import Journal
from pyconv_search.search.ledger import STORAGE
from pyconv_search.search.outcome import blank_row, failed_row
from pyconv_search.search.progress import Progress
from pyconv_search.search.retry import Retry
from pyconv_search.search.runner import run
from pyconv_search.search.strategies import make_strategy
from pyconv_search.search.work import Work
from pyconv_search.study.plan import Candidate, candidates, trial_spec
from pyconv_search.study.study import Study, load_study, study_to_dict

SPACE = {
    "space": "joint",
    "parameters": {"levels": {"choice": [[2, 1, 1], [1, 1, 1]]}, "lr": {"float": [0.01, 0.1], "steps": 3, "log": True}},
    "network": {
        "depth": 8,
        "stem": {"kernel": 3, "width": 4, "stride": 2, "pool": "none"},
        "width": 4,
        "levels": "$levels",
    },
    "recipe": {"lr": "$lr"},
}


@pytest.fixture
def joint(tmp_path: Path) -> Callable[..., Study]:
    """A study of six configurations of two architectures, some keys replaced."""

    def make(space: dict[str, Any] = SPACE, **changes: Any) -> Study:
        study = {
            "study": "joint",
            "space": "joint-space.yaml",
            "data": {"fashion-mnist-small": {"validation": 11_000}},
            "recipe": {"epochs": 1, "lr": 0.1, "batch": 50, "precision": "fp32"},
            "search": "grid",
            "seeds": 2,
            **changes,
        }
        (tmp_path / "joint-space.yaml").write_text(yaml.safe_dump(space, sort_keys=False))
        (tmp_path / "joint.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
        return load_study(tmp_path / "joint.yaml")

    return make


def recorded(folder: Path) -> list[optuna.trial.FrozenTrial]:
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(folder / STORAGE)))
    (summary,) = optuna.get_all_study_summaries(storage)
    return optuna.load_study(study_name=summary.study_name, storage=storage).trials


def ended(study: Study, row: Candidate) -> list[Row]:
    """A complete row of every seed, with an error that only the learning rate decides."""
    error = 50.0 - 100 * row.recipe.lr
    return [
        replace(
            blank_row(trial_spec(study, row, seed, None), "complete", "", ""),
            epochs=row.recipe.epochs,
            val_top1_error=error,
        )
        for seed in study.seeds
    ]


@pytest.mark.slow
def test_two_recipes_of_one_architecture_from_the_study_to_the_report(
    joint: Callable[..., Study], tmp_path: Path
) -> None:
    """Really trained: journal, tables, Optuna's file and page know them apart, and neither runs again."""
    rows = [{"name": name, "levels": [2, 1, 1], "lr": lr} for name, lr in (("usual", 0.1), ("slow", 0.01))]
    study, out = joint(search={"rows": rows}), tmp_path / "run"
    assert run(study, out, console=Console(file=StringIO())).complete == 4
    found = store.read(out)
    by_name = {name: [row for row in found.rows if row.name == name] for name in ("usual", "slow")}
    assert {row.arch_id for row in found.rows} == {found.rows[0].arch_id}
    assert {row.config for row in by_name["usual"]} == {found.rows[0].arch_id}
    assert len({row.config for row in by_name["slow"]} - {found.rows[0].arch_id}) == 1
    assert [row.recipe for row in by_name["usual"] + by_name["slow"]] == [{}, {}, {"lr": 0.01}, {"lr": 0.01}]
    assert {(e.trial, e.lr) for e in found.epochs} == {
        (row.trial, {"usual": 0.1, "slow": 0.01}[row.name]) for row in found.rows
    }
    for a, b in zip(by_name["usual"], by_name["slow"], strict=True):
        assert a.val_loss != b.val_loss
    table, _ = store.tables(found)
    assert table["config"].nunique() == 2
    assert sorted(table["parameter.lr"]) == [0.01, 0.01, 0.1, 0.1]
    assert sorted(map(json.loads, table["recipe"]), key=len) == [{}, {}, {"lr": 0.01}, {"lr": 0.01}]

    means = {n: sum(row.val_top1_error or 0 for row in own) / 2 for n, own in by_name.items()}
    assert {t.user_attrs["name"]: t.value for t in recorded(out)} == pytest.approx(means)
    assert [t.state.name for t in recorded(out)] == ["COMPLETE"] * 2

    d = digest(found)
    assert {c.name: len(c.values) for c in d.candidates} == {"usual": 2, "slow": 2}
    assert d.selected is not None
    assert d.selected.name == min(means, key=lambda name: means[name])
    page = render(found)
    assert "of the 2 configurations" in page
    assert all(row.config[:8] in page for row in found.rows)
    assert run(study, out, console=Console(file=StringIO())).complete == 4
    assert len(store.read(out).epochs) == 4
    assert len(recorded(out)) == 2

    mapped = {**SPACE, "recipe": {"weight_decay": "$lr"}}
    with pytest.raises(UserError, match=r"holds the run of another study: space_recipe\.lr is '\$lr' there and None"):
        run(joint(mapped, search={"rows": rows}), out)


def test_tpe_proposes_each_configuration_once_and_goes_on(joint: Callable[..., Study], tmp_path: Path) -> None:
    def play(folder: Path, most: int) -> list[tuple[str, float]]:
        folder.mkdir(exist_ok=True)
        study = joint(search={"tpe": {"trials": 6, "startup": 3}})
        strategy, found = make_strategy(study, folder), []
        known = len([t for t in recorded(folder) if t.state.is_finished() and "refused" not in t.user_attrs])
        while len(found) < known + most and (proposed := strategy.propose()):
            for row in proposed:
                found.append((row.architecture.arch_id, row.recipe.lr))
                strategy.observe(row, ended(study, row), [])
        return found[known:]

    whole = play(tmp_path / "whole", 6)
    assert len(set(whole)) == 6
    assert len({arch for arch, _ in whole}) == 2
    assert {lr for _, lr in whole} == {0.01, 0.03162, 0.1}
    assert play(tmp_path / "parts", 2) + play(tmp_path / "parts", 4) == whole
    accepted = [t for t in recorded(tmp_path / "whole") if "refused" not in t.user_attrs]
    assert sorted(t.value for t in accepted) == sorted(50.0 - 100 * lr for _, lr in whole)


def test_a_lost_file_of_the_search_is_made_again_from_the_rows(joint: Callable[..., Study], tmp_path: Path) -> None:
    study = joint()
    network = candidates(study)
    rows = [row for one in network for row in ended(study, one)]
    make_strategy(study, tmp_path, rows)
    assert {t.user_attrs.get("config", t.user_attrs["arch_id"]): t.value for t in recorded(tmp_path)} == {
        row.config: 50.0 - 100 * row.recipe.lr for row in network
    }
    make_strategy(study, tmp_path, rows)
    assert len(recorded(tmp_path)) == 6


def test_networks_that_left_the_study_are_told_by_their_recipe(joint: Callable[..., Study], tmp_path: Path) -> None:
    def rows(*rates: float) -> dict[str, Any]:
        return {"rows": [{"levels": [2, 1, 1], "lr": lr} for lr in rates]}

    study = joint(search=rows(0.1, 0.01))
    with Journal(tmp_path) as journal:
        for one in candidates(study):
            for row in ended(study, one):
                journal.append_row(row)
    later = joint(search=rows(0.01))
    (left,) = candidates(later)
    values = study_to_dict(later) | {"networks": [left.config]}
    (tmp_path / "study.json").write_text(json.dumps(values))
    assert [row.recipe["lr"] for row in store.read(tmp_path).current().rows] == [0.01, 0.01]


def test_what_is_left_is_counted_in_the_epochs_of_each_recipe(joint: Callable[..., Study], tmp_path: Path) -> None:
    space = {**SPACE, "parameters": {"n": {"choice": [2, 10]}}, "recipe": {"epochs": "$n"}}
    space["network"] = {**SPACE["network"], "levels": [2, 1, 1]}
    study = joint(space, seeds=1)
    (tmp_path / "study.json").write_text(json.dumps(study_to_dict(study)))
    with Journal(tmp_path) as journal:
        work = Work(study, make_strategy(study, tmp_path), journal, store.read(tmp_path))
        progress = Progress(work, 2, Console(file=StringIO()))
        spec = work.next()
        macs = candidates(study)[0].cost.macs
        assert progress._effort_left() == (2 + 10) * macs
        assert spec is not None
        work.end(ended(study, candidates(study)[0])[0])
        assert progress._effort_left() == 10 * macs
        assert [work.next() is None, progress._effort_left()] == [False, 10 * macs]
        assert [running.planned for running in work.running.values()] == [10]


def test_each_batch_that_the_space_varies_is_asked_whether_it_has_so_many_parts(joint: Callable[..., Study]) -> None:
    space = {
        **SPACE,
        "parameters": {"levels": SPACE["parameters"]["levels"], "batch": {"choice": [50, 48]}},
        "recipe": {"batch": "$batch"},
    }
    study, retry = joint(space), Retry(accumulate=16)
    by_batch = {row.recipe.batch: row for row in candidates(study)}
    failed = {
        batch: failed_row(trial_spec(study, row, 0, None), MemoryError("no room")) for batch, row in by_batch.items()
    }
    retry.check(study)
    retry.check_rows(study, [failed[48], replace(failed[50], reason="lost")])
    with pytest.raises(
        UserError, match=r"^--accumulate 16: must divide the 50 images of a batch of levels .*; nearest: 10$"
    ):
        retry.check_rows(study, failed.values())
