"""Trials of one network run together against the same trials run one by one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from pyconv_search.arch.canonical import to_dict
from pyconv_search.arch.resnet import resnet
from pyconv_search.errors import UserError
from pyconv_search.results.row import Epoch, Row
from pyconv_search.search import images, together
from pyconv_search.search.together import Group
from pyconv_search.search.trial import Trial, run_trial
from pyconv_search.study import recipe as recipes
from pyconv_search.study.datasets import DataSetInfo
from pyconv_search.training import checkpoint, data, loop, stacked

STEM = {"kernel": 3, "width": 4, "stride": 1, "pool": "none"}
NETWORK = resnet({"depth": 8, "stem": STEM, "levels": [2, 1, 1]}, (3, 8, 8), 6)
SEEDS = (3, 4, 9)
SCORES = ("train_loss", "val_loss", "val_top1_error", "val_top5_error")
LOSSES = ("val_loss", "test_loss")


def noise(
    name: str, root: str | None = None, validation: int | None = None, classes: int | None = None
) -> data.DataSet:
    """Small random pictures, the same ones every time; each class has a brightness of its own."""
    numbers = np.random.default_rng(1)

    def split(count: int) -> data.Split:
        labels = numbers.integers(0, 6, count)
        pixels = numbers.integers(0, 156, (count, 3, 8, 8)) + 20 * labels[:, None, None, None]
        return data.Split(pixels.astype(np.uint8), labels)

    info = DataSetInfo(name, "", (3, 8, 8), 6, 97, 33, 31, (0.5,) * 3, (0.25,) * 3, "", "")
    return data.DataSet(info, split(97), split(33), split(31), "memory")


@pytest.fixture(autouse=True)
def _stand_in_data(monkeypatch: pytest.MonkeyPatch):
    threads = torch.get_num_threads()
    monkeypatch.setattr(data, "load", noise)
    images.forget()
    yield
    images.forget()
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)


def specs(folder: Path, **recipe: Any) -> list[dict[str, Any]]:
    folder.mkdir(exist_ok=True)
    settings = {"epochs": 3, "batch": 16, "lr": 0.05, "crop": 1, "flip": True, "ema": 0.9, "precision": "fp32"} | recipe
    common = {
        "name": "two levels",
        "architecture": to_dict(NETWORK),
        "parameters": {"levels": [2, 1, 1]},
        "recipe": recipes.to_dict(recipes.Recipe(**settings)),
        "data": {"name": "noise", "root": None, "validation": None},
        "threads": 1,
        "device": "cpu",
        "folder": str(folder),
        "keep_weights": True,
        "checkpoints": {"every": 1, "minutes": 10.0, "keep": "last"},
    }
    return [{"trial": f"t{seed}", "seed": seed, **common} for seed in SEEDS]


def finished(group: Group, most: int = 20) -> dict[str, Row]:
    for _ in range(most):
        if group.done:
            break
        group.advance()
    assert group.done
    return {row.trial: row for row in group.rows}


def epochs_of(group: Group) -> dict[tuple[str, int], Epoch]:
    return {(epoch.trial, epoch.epoch): epoch for epoch in group.epochs}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Row], dict[tuple[str, int], Epoch], Path]:
    """The trials run one by one, by the ordinary function."""
    folder, epochs = tmp_path_factory.mktemp("alone"), list[Epoch]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "load", noise)
        rows = {spec["trial"]: run_trial(spec, epochs.append) for spec in specs(folder)}
    return rows, {(epoch.trial, epoch.epoch): epoch for epoch in epochs}, folder


def assert_same(group: Group, alone: Any, folder: Path) -> None:
    rows, (expected, curve, whole) = {row.trial: row for row in group.rows}, alone
    assert rows.keys() == expected.keys()
    for trial, row in rows.items():
        assert (row.status, row.epochs, row.seed) == ("complete", 3, expected[trial].seed)
        for column in LOSSES:
            assert getattr(row, column) == pytest.approx(getattr(expected[trial], column), rel=1e-3)
        ours, theirs = (safetensors.torch.load_file(f / "weights" / f"{trial}.safetensors") for f in (folder, whole))
        assert ours.keys() == theirs.keys()
        for name, tensor in theirs.items():
            difference = (ours[name].double() - tensor.double()).norm()
            assert difference < 2e-3 * tensor.double().norm() + 1e-4, name
    found = epochs_of(group)
    assert found.keys() == curve.keys()
    for key, epoch in found.items():
        assert epoch.lr == curve[key].lr
        for column in SCORES:
            assert getattr(epoch, column) == pytest.approx(getattr(curve[key], column), rel=1e-3, abs=1e-6)


def test_rows_epochs_and_weights_are_those_of_separate_trials(alone: Any, tmp_path: Path):
    group = Group(specs(tmp_path))
    rows = finished(group, 3)
    assert_same(group, alone, tmp_path)
    assert all(row.environment["together"] == "3" for row in rows.values())
    assert all("together" not in row.environment for row in alone[0].values())
    for row in rows.values():
        assert 0 < row.train_seconds < sum(epoch.seconds for epoch in group.epochs if epoch.trial == row.trial)


def test_a_member_goes_on_alone_and_trials_that_began_alone_go_on_together(alone: Any, tmp_path: Path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    Group(specs(tmp_path / "a")).advance()
    rows = [run_trial(spec) for spec in specs(tmp_path / "a")]
    for row in rows:
        assert (row.status, row.resumed) == ("complete", 1)
        assert row.test_loss == pytest.approx(alone[0][row.trial].test_loss, rel=1e-3)
    for spec in specs(tmp_path / "b"):
        Trial(spec).advance()
    group = Group(specs(tmp_path / "b"))
    assert {epoch.epoch for epoch in group.epochs} == {1}
    finished(group, 2)
    assert_same(group, alone, tmp_path / "b")


def test_members_that_are_behind_catch_up_first(alone: Any, tmp_path: Path):
    for spec, epochs in zip(specs(tmp_path), (2, 0, 1), strict=True):
        trial = Trial(spec)
        for _ in range(epochs):
            trial.advance()
    group, sizes = Group(specs(tmp_path)), list[int]()
    with pytest.MonkeyPatch.context() as patch:
        train = stacked.train
        patch.setattr(stacked, "train", lambda stack, *rest: (sizes.append(len(stack)), train(stack, *rest))[1])
        finished(group, 3)
    assert sizes == [2, 3]
    assert_same(group, alone, tmp_path)


def test_a_trial_of_which_only_the_row_was_lost_is_finished(alone: Any, tmp_path: Path):
    for spec in specs(tmp_path):
        trial = Trial(spec)
        while not trial.done:
            trial.advance()
    group = Group(specs(tmp_path))
    finished(group, 1)
    assert_same(group, alone, tmp_path)


def begun(folder: Path) -> list[int]:
    """The step within its epoch of every checkpoint."""
    found = [checkpoint.load(folder / "checkpoints" / f"t{seed}.safetensors") for seed in SEEDS]
    return [each.begun[0] for each in found if each is not None]


def test_members_go_on_in_the_middle_of_an_epoch(alone: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    own = [{**spec, "checkpoints": {"every": 1, "minutes": 0.0, "keep": "last"}} for spec in specs(tmp_path)]
    with monkeypatch.context() as patch:
        update, calls = stacked.update, list[int]()

        def broken_off(learner: Any) -> None:
            calls.append(1)
            if len(calls) > 3 * 9 + 1:  # The second member in step 10; an epoch has 6.
                raise KeyboardInterrupt
            update(learner)

        patch.setattr(stacked, "update", broken_off)
        group = Group(own)
        with pytest.raises(KeyboardInterrupt):
            finished(group)
    assert begun(tmp_path) == [3, 3, 3]
    # One of them takes a step more by itself.
    watched, one = loop.train, Trial(own[1])

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    def once(learner: Any, source: Any, view: Any, begun: Any, watch: Any) -> Any:
        return watched(learner, source, view, begun, lambda step, tally: (watch(step, tally), stop()))

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train", once)
        with pytest.raises(KeyboardInterrupt):
            one.advance()
    assert begun(tmp_path) == [3, 4, 3]
    group = Group(specs(tmp_path))
    finished(group)
    assert_same(group, alone, tmp_path)


def test_a_member_that_diverges_gets_its_row_and_the_others_go_on(alone: Any, tmp_path: Path):
    group = Group(specs(tmp_path))
    group.advance()
    with torch.no_grad():
        next(group._members[1].learner.model.parameters()).fill_(float("nan"))
    group.advance()
    (row,) = group.rows
    assert (row.trial, row.status, row.reason, row.epochs) == ("t4", "failed", "nan", 1)
    rows = finished(group)
    for trial in ("t3", "t9"):
        assert rows[trial].status == "complete"
        assert rows[trial].test_loss == pytest.approx(alone[0][trial].test_loss, rel=1e-3)


def test_a_recipe_that_diverges_fails_all_as_alone(tmp_path: Path):
    rows = finished(Group(specs(tmp_path, lr=1e9, epochs=20)))
    assert [(row.status, row.reason) for row in rows.values()] == [("failed", "nan")] * 3


def test_a_stack_that_fails_goes_on_one_by_one_from_the_checkpoints(
    alone: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    group = Group(specs(tmp_path))
    group.advance()

    def no_room(stack: Any, inputs: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(stacked.Stack, "logits", no_room)
    finished(group)
    assert_same(group, alone, tmp_path)
    assert all(row.resumed == 1 for row in group.rows)


def test_what_a_trial_cannot_do_is_its_own_row(alone: Any, tmp_path: Path):
    class Moody(Trial):
        def __init__(self, spec: dict[str, Any]) -> None:
            if spec["seed"] == 4:
                raise MemoryError
            super().__init__(spec)

        def finish(self) -> Row:
            if self.spec["seed"] == 9:
                raise KeyError("weights")
            return super().finish()

    rows = finished(Group(specs(tmp_path), Moody))
    assert {trial: (row.status, row.reason) for trial, row in rows.items()} == {
        "t3": ("complete", ""),
        "t4": ("failed", "oom"),
        "t9": ("failed", "error"),
    }
    assert rows["t3"].test_loss == pytest.approx(alone[0]["t3"].test_loss, rel=1e-3)


def test_what_concerns_the_whole_study_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(UserError, match="no such folder"):
        Group([{**spec, "folder": str(tmp_path / "gone")} for spec in specs(tmp_path)])
    group = Group(specs(tmp_path))

    def full(*_: Any) -> None:
        raise UserError("No space left on device")

    monkeypatch.setattr(checkpoint, "save", full)
    with pytest.raises(UserError, match="No space"):
        group.advance()


def test_recipes_that_cannot_be_stacked_run_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(together, "_advance", lambda *_: pytest.fail("stacked"))
    own = specs(tmp_path, dropout=0.3, epochs=1)
    rows = finished(Group(own))
    (tmp_path / "alone").mkdir()
    expected = run_trial({**own[0], "folder": str(tmp_path / "alone")})
    assert replace(rows["t3"], **CLOCK) == replace(expected, **CLOCK)


CLOCK: dict[str, Any] = {
    "started": "",
    "finished": "",
    "train_seconds": 0.0,
    "images_per_second": None,
    "peak_memory": 0,
}
