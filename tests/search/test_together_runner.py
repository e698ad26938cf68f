"""Groups of real trials under real Ray Tune: the same rows as those of trials run one by one."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pyconv_search.results import store
from pyconv_search.results.row import Epoch, Row
from pyconv_search.search import runner
from pyconv_search.search.actor import make_group_actor
from pyconv_search.search.runner import run
from pyconv_search.search.together import Group
from pyconv_search.search.trial import Trial, run_trial
from pyconv_search.study.plan import candidates, trial_spec
from pyconv_search.study.study import load_study

SETTINGS: dict[str, Any] = {
    "search": {"rows": [{"levels": [2, 2, 1]}]},
    "seeds": 2,
    # A small rate: a large one makes much of the rounding, which differs from processor to processor.
    "recipe": {"epochs": 1, "batch": 64, "lr": 0.001, "precision": "fp32", "augment": {"crop": 2, "flip": True}},
    "data": {"fashion-mnist-small": {"validation": 9900}},
    "weights": "discard",
}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], Row]:
    """Filled by the first test that needs it: the rows of the trials run in this process, by name and seed."""
    return {}


def reference(file: Path, alone: dict[tuple[str, int], Row]) -> dict[tuple[str, int], Row]:
    study = load_study(file)
    for network in candidates(study):
        for seed in study.seeds:
            if (network.name, seed) not in alone:
                alone[network.name, seed] = run_trial(trial_spec(study, network, seed, None))
    return alone


def assert_same(rows: list[Row], expected: dict[tuple[str, int], Row]) -> None:
    assert {(row.name, row.seed) for row in rows} == expected.keys()
    for row in rows:
        other = expected[row.name, row.seed]
        assert (row.status, row.trial, row.epochs) == ("complete", other.trial, other.epochs)
        assert row.test_loss == pytest.approx(other.test_loss, rel=2e-3)
        assert row.val_top1_error == pytest.approx(other.val_top1_error, abs=1.5)


@pytest.mark.slow
def test_a_study_whose_seeds_run_together(
    tiny_study: Callable[..., Path], tmp_path: Path, alone: dict[tuple[str, int], Row]
) -> None:
    file = tiny_study(**SETTINGS, resources={"together": 2})
    outcome = run(load_study(file), tmp_path / "run")
    assert (outcome.planned, outcome.complete) == (2, 2)
    found = store.read(tmp_path / "run")
    assert_same(found.rows, reference(file, alone))
    assert [row.environment["together"] for row in found.rows] == ["2", "2"]
    assert sorted((epoch.trial, epoch.epoch) for epoch in found.epochs) == sorted((row.trial, 1) for row in found.rows)
    assert list((tmp_path / "run" / "checkpoints").iterdir()) == []


@pytest.mark.slow
def test_trials_of_a_worker_that_dies_are_tried_one_by_one(
    tiny_study: Callable[..., Path],
    tmp_path: Path,
    alone: dict[tuple[str, int], Row],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(runner, "LOST_WORKER_RETRIES", 0)

    class Doomed(Trial):
        """Kills its process when another trial is there, and always that of the second seed."""

        alive: list[int] = []  # noqa: RUF012

        def __init__(self, spec: dict[str, Any]) -> None:
            type(self).alive.append(spec["seed"])
            if len(type(self).alive) > 1 or spec["seed"] == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            super().__init__(spec)

        def finish(self) -> Row:
            type(self).alive.remove(self.spec["seed"])
            return super().finish()

    file = tiny_study(**SETTINGS, resources={"together": 2})
    outcome = run(load_study(file), tmp_path / "run", trial=Doomed)
    assert (outcome.ended, outcome.complete) == (2, 1)
    rows = {row.seed: row for row in store.read(tmp_path / "run").rows}
    assert (rows[1].status, rows[1].reason) == ("failed", "lost")
    name = rows[0].name
    assert_same([rows[0]], {(name, 0): reference(file, alone)[name, 0]})


def test_what_is_trained_again_one_by_one_is_told_again() -> None:
    """After a stack that failed, members go on from their checkpoints; other numbers of an epoch replace those before."""
    actor = object.__new__(make_group_actor(Trial))
    actor._told = {}

    def told(*epochs: Epoch) -> list[tuple[int, float]]:
        result = actor._result(cast(Group, SimpleNamespace(rows=[], epochs=list(epochs), done=False)))
        return [(values["epoch"], values["val_loss"]) for values in json.loads(result["epochs"])]

    points = [Epoch("t", n, 0.1, 1.0, 50.0, 1.0 / n, 40.0, 5.0, 1.0) for n in (1, 2, 3)]
    assert told(*points[:2]) == [(1, 1.0), (2, 0.5)]
    assert told(*points) == [(3, 1 / 3)]
    assert told(points[0], replace(points[1], val_loss=0.75)) == [(2, 0.75)]
