"""Trials: the same numbers however they are run, and a row whatever happens.

Run as a program, this file runs the trial that its argument describes in a process of its own.
"""

from __future__ import annotations

import json
import logging
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor

import pyconv_search
from pyconv_search.arch.canonical import to_dict
from pyconv_search.arch.cost import cost
from pyconv_search.arch.resnet import resnet
from pyconv_search.errors import UserError
from pyconv_search.models.scales import scale_allocation
from pyconv_search.models.sorting import sorted_sides
from pyconv_search.results import files
from pyconv_search.results.row import Epoch, Row
from pyconv_search.search import images, outcome, trial
from pyconv_search.search.trial import Trial, forget, run_trial
from pyconv_search.study import recipe as recipes
from pyconv_search.study.datasets import DataSetInfo
from pyconv_search.training import checkpoint, data, device, loop, source
from pyconv_search.training import learner as learners
from pyconv_search.training.learner import make_learner
from pyconv_search.training.source import to_device

EPOCHS = 4
NETWORK = resnet(
    {"depth": 8, "stem": {"kernel": 3, "width": 4, "stride": 1, "pool": "none"}, "levels": [2, 1, 1]}, (3, 8, 8), 6
)
POLY_SCALE = resnet(
    {"depth": 8, "stem": {"kernel": 3, "width": 8, "stride": 1, "pool": "none"}, "pattern": [1, 2, 1, 4]}, (3, 8, 8), 6
)


@dataclass
class CountedDataSet:
    """A data set that counts how often its test split is read."""

    info: DataSetInfo
    train: data.Split
    validation: data.Split
    held: data.Split
    reads: list[str] = field(default_factory=list)

    @property
    def test(self) -> data.Split:
        self.reads.append("test")
        return self.held


def noise(
    name: str, root: str | None = None, validation: int | None = None, classes: int | None = None
) -> CountedDataSet:
    """Small random pictures, the same ones every time; each class has a brightness of its own."""
    numbers = np.random.default_rng(1)

    def split(count: int) -> data.Split:
        labels = numbers.integers(0, 6, count)
        pixels = numbers.integers(0, 156, (count, 3, 8, 8)) + 20 * labels[:, None, None, None]
        return data.Split(pixels.astype(np.uint8), labels)

    held_out = 33 if validation is None else validation
    info = DataSetInfo(name, "", (3, 8, 8), 6, 97, held_out, 31, (0.5,) * 3, (0.25,) * 3, "", "")
    return CountedDataSet(info, split(97), split(held_out), split(31))


@pytest.fixture(autouse=True)
def _stand_in_data(monkeypatch: pytest.MonkeyPatch):
    threads = torch.get_num_threads()
    monkeypatch.setattr(data, "load", noise)
    images.forget()
    yield
    images.forget()
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)


def spec(folder: Path | None = None, recipe: dict[str, Any] | None = None, **other: Any) -> dict[str, Any]:
    settings = {"epochs": EPOCHS, "batch": 16, "lr": 0.05, "crop": 1, "flip": True, "warmup": 0.5} | (recipe or {})
    return {
        "trial": "t1",
        "name": "two levels",
        "seed": 3,
        "architecture": to_dict(NETWORK),
        "parameters": {"levels": [2, 1, 1]},
        "recipe": recipes.to_dict(recipes.Recipe(**settings)),
        "data": {"name": "noise", "root": None, "validation": None},
        "threads": 1,
        "device": "cpu",
        "folder": str(folder) if folder else None,
        "keep_weights": True,
        "checkpoints": {"every": 1, "minutes": 10.0, "keep": "last"},
        **other,
    }


def numbers_of(record: Epoch | Row) -> dict[str, Any]:
    """All but what the clock decides."""
    clock = ("seconds", "train_seconds", "images_per_second", "peak_memory", "started", "finished", "resumed")
    return {name: getattr(record, name) for name in record.__slots__ if name not in clock}


def weights_in(folder: Path) -> dict[str, Tensor]:
    return safetensors.torch.load_file(folder / "weights" / "t1.safetensors")


def run(folder: Path, **other: Any) -> tuple[list[dict[str, Any]], dict[str, Any], dict[str, Tensor]]:
    """Every number of a trial run in this process: its epochs, its row and its weights."""
    folder.mkdir(exist_ok=True)
    epochs: list[Epoch] = []
    row = run_trial(spec(folder, **other), epochs.append)
    assert row.status == "complete", row.detail
    return [numbers_of(epoch) for epoch in epochs], numbers_of(row), weights_in(folder)


def run_elsewhere(folder: Path, at: str = "", **other: Any) -> int:
    """Run the trial in another process, which ends itself at ``at``; its exit status."""
    root = str(Path(pyconv_search.__file__).parents[1])
    command = [sys.executable, __file__, json.dumps(spec(folder, **other)), at]
    return subprocess.run(command, env={**os.environ, "PYTHONPATH": root}, timeout=120).returncode


def assert_same(found: tuple[Any, Any, dict[str, Tensor]], expected: tuple[Any, Any, dict[str, Tensor]]) -> None:
    assert found[0] == expected[0]
    assert found[1] == expected[1]
    assert found[2].keys() == expected[2].keys()
    assert all(torch.equal(found[2][name], expected[2][name]) for name in found[2])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory):
    """The trial run in one go."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "load", noise)
        return run(tmp_path_factory.mktemp("whole"))


def test_two_runs_are_equal(whole: Any, tmp_path: Path):
    torch.rand(7)
    assert_same(run(tmp_path), whole)


def test_another_process_gives_the_same(whole: Any, tmp_path: Path):
    assert run_elsewhere(tmp_path) == 0
    assert_same(([*whole[0]], whole[1], weights_in(tmp_path)), whole)
    assert json.loads((tmp_path / "row.json").read_text()) == json.loads(json.dumps(whole[1]))


# Every value of a recipe that holds a state or draws random numbers.
EVERYTHING = {
    "accumulate": 2,
    "schedule": "linear",
    "decay_norms": False,
    "clip": 1.0,
    "ema": 0.9,
    "zero_init": True,
    "label_smoothing": 0.1,
    "dropout": 0.3,
    "cutout": 3,
    "cutmix": 1.0,
    "mixup": 0.5,
    "mix": 0.7,
    "resolution": 0.5,
    "resolution_until": 0.6,
    "mirror": True,
    "select": "best",
}
OFTEN = {"every": 1, "minutes": 0.0, "keep": "last"}


@pytest.mark.slow
@pytest.mark.parametrize("other", [{"precision": "fp16"}, {"precision": "bf16", "crop": 0, "scale": (0.3, 1.0)}])
def test_killed_at_any_step_equals_uninterrupted_whatever_the_recipe(tmp_path: Path, other: dict[str, Any]):
    recipe = EVERYTHING | other
    expected = run(tmp_path / "whole", recipe=recipe)
    folder = tmp_path / "killed"
    folder.mkdir()
    for limit in (4, 9, 10, 1000):
        killed = run_elsewhere(folder, f"save {limit}", recipe=recipe, checkpoints=OFTEN)
        assert killed == (0 if limit == 1000 else -signal.SIGKILL)
    assert_same(([*expected[0]], expected[1], weights_in(folder)), expected)
    assert json.loads((folder / "row.json").read_text()) == json.loads(json.dumps(expected[1]))
    assert expected[1]["environment"]["precision"] == recipe["precision"]


@pytest.mark.parametrize("dropped", [name for name in EVERYTHING if name not in ("mix", "resolution_until", "select")])
def test_every_value_of_the_recipe_changes_the_course(tmp_path: Path, dropped: str):
    recipe = EVERYTHING | {"epochs": 2, "precision": "fp32"}
    rest = {name: value for name, value in recipe.items() if name != dropped}
    found = [run(tmp_path / name, recipe=values)[0] for name, values in (("all", recipe), ("rest", rest))]
    assert found[0] != found[1]


def test_the_best_epoch_is_tested_and_saved_where_the_recipe_selects_it(tmp_path: Path):
    # So high a rate that the last epoch is not the best one.
    recipe = {"lr": 3.0, "schedule": "constant", "select": "best", "precision": "fp32"}
    kept = {"every": 1, "minutes": 10.0, "keep": "all"}
    epochs, row, weights = run(tmp_path / "best", recipe=recipe, checkpoints=kept)
    errors = [epoch["val_top1_error"] for epoch in epochs]
    best = errors.index(min(errors))
    assert best < EPOCHS - 1
    assert row["environment"]["selected_epoch"] == str(best + 1)
    names = sorted(os.listdir(tmp_path / "best" / "checkpoints"))
    assert names == [f"t1.epoch-{i + 1:03d}.safetensors" for i in range(EPOCHS)]
    saved = checkpoint.load(tmp_path / "best" / "checkpoints" / names[best])
    assert saved is not None
    assert len(saved.history) == best + 1
    assert all(torch.equal(saved.tensors[f"model/{name}"], tensor) for name, tensor in weights.items())
    last = run(tmp_path / "last", recipe=recipe | {"select": "last"})
    assert (last[1]["val_top1_error"], row["val_top1_error"]) == (errors[-1], min(errors))
    assert (row["val_loss"], row["val_top5_error"]) == tuple(epochs[best][k] for k in ("val_loss", "val_top5_error"))
    assert last[1]["test_loss"] != row["test_loss"]


def test_of_equal_epochs_the_first_is_the_best(tmp_path: Path):
    subject = Trial(spec(tmp_path, {"select": "best"}))
    kept = []
    for error in (30.0, 20.0, 20.0, 25.0):
        subject.history.append(Epoch("t1", 1, 0.1, 1.0, 1.0, 1.0, error, 1.0, 1.0))
        subject._remember(subject.learner)
        kept.append(subject._best["head.bias"].clone())
        subject.learner.model.head.bias.data += 1
    assert torch.equal(kept[1], kept[2])
    assert torch.equal(kept[1], kept[3])
    assert not torch.equal(kept[0], kept[1])


def test_small_pictures_train_and_whole_ones_validate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    sizes: list[tuple[str, tuple[int, int]]] = []
    for name in ("train", "evaluate"):
        original = getattr(loop, name)
        monkeypatch.setattr(loop, name, spied(name, original, sizes))
    run(tmp_path, recipe={"resolution": 0.5, "resolution_until": 1.0, "precision": "fp32"})
    assert [size for name, size in sizes if name == "evaluate"] == [(8, 8)] * (EPOCHS + 1)
    assert next(size for name, size in sizes if name == "train") == (4, 4)


def spied(name: str, original: Callable[..., Any], sizes: list[Any]) -> Callable[..., Any]:
    def replacement(learner: Any, source: Any, view: Any, *rest: Any) -> Any:
        sizes.append((name, view.size))
        return original(learner, source, view, *rest)

    return replacement


def test_all_checkpoints_are_those_of_whole_epochs(tmp_path: Path):
    run(tmp_path, checkpoints={"every": 1, "minutes": 0.0, "keep": "all"})
    kept = sorted((tmp_path / "checkpoints").iterdir())
    assert [path.name for path in kept] == [f"t1.epoch-{i + 1:03d}.safetensors" for i in range(EPOCHS)]
    found = [checkpoint.load(path) for path in kept]
    assert [(state.begun[0], len(state.history)) for state in found if state] == [(0, i + 1) for i in range(EPOCHS)]


def test_checkpoints_that_take_long_are_written_more_rarely(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    save, written, now = checkpoint.save, [], [0.0]

    def tick() -> float:
        now[0] += 1e-4
        return now[0]

    monkeypatch.setattr("pyconv_search.search.trial.time", SimpleNamespace(perf_counter=tick, process_time=tick))

    def slow(path: Path, state: Any) -> None:
        written.append(len(state.history))
        now[0] += 0.3
        save(path, state)

    monkeypatch.setattr(checkpoint, "save", slow)
    expected = run(tmp_path / "rare")
    assert written == [1, EPOCHS]
    assert expected[0] == run(tmp_path / "all", checkpoints={"every": 1, "minutes": 10.0, "keep": "all"})[0]
    assert written[2:] == [1, 2, 3, 4]


def test_a_checkpoint_of_other_numbers_is_not_gone_on_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    recipe = {"precision": "auto"}
    monkeypatch.setattr(device, "precision", lambda recipe, place: "fp32")
    Trial(spec(tmp_path, recipe)).advance()
    assert Trial(spec(tmp_path, recipe)).epochs_run == 1
    with monkeypatch.context() as patch:
        patch.setattr(device, "precision", lambda recipe, place: "bf16")
        assert Trial(spec(tmp_path, recipe)).epochs_run == 0
    Trial(spec(tmp_path, recipe)).advance()
    images.forget()
    fewer = noise("noise")
    fewer.train = fewer.train.take(np.arange(60))
    monkeypatch.setattr(data, "load", lambda *key: fewer)
    assert Trial(spec(tmp_path, recipe)).epochs_run == 0


def test_no_checkpoint_holds_a_loss_that_is_not_finite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    # As on a GPU, whose loss is looked at every 16 steps only.
    monkeypatch.setattr(loop, "looked_at", lambda device, step: False)
    recipe = {"lr": 1e30, "warmup": 0.0, "precision": "fp32"}
    row = run_trial(spec(tmp_path, recipe, checkpoints=OFTEN))
    assert (row.status, row.reason) == ("failed", "nan")
    state = checkpoint.load(tmp_path / "checkpoints" / "t1.safetensors")
    assert state is None or all(tensor.isfinite().all() for tensor in state.tensors.values())


def test_checkpoints_are_as_rare_as_the_study_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    written: list[int] = []
    save = checkpoint.save
    monkeypatch.setattr(checkpoint, "save", lambda path, state: (written.append(len(state.history)), save(path, state)))
    run(tmp_path / "three", checkpoints={"every": 3, "minutes": 10.0, "keep": "last"})
    assert written == [3, 4]
    written.clear()
    run(tmp_path / "often", checkpoints=OFTEN)
    per_epoch = loop.steps(97, 16)
    assert written == [done for epoch in range(EPOCHS) for done in [epoch] * per_epoch + [epoch + 1]]


def test_the_learning_curve_has_speed_and_memory(tmp_path: Path):
    epochs: list[Epoch] = []
    row = run_trial(spec(tmp_path), epochs.append)
    assert all(epoch.images_per_second * epoch.seconds > 97 for epoch in epochs)
    # PyTorch alone takes more than that, and no machine that runs this test has more.
    assert all(50e6 < epoch.peak_memory < 1e12 for epoch in epochs)
    assert row.peak_memory == max(epoch.peak_memory for epoch in epochs)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_interrupted_after_any_epoch_equals_uninterrupted(tmp_path: Path, precision: str, channels_last: bool):
    recipe = {"precision": precision, "channels_last": channels_last}
    expected = run(tmp_path / "whole", recipe=recipe)
    for k in range(EPOCHS + 1):
        folder = tmp_path / str(k)
        folder.mkdir()
        first = Trial(spec(folder, recipe))
        for _ in range(k):
            first.advance()
        second = Trial(spec(folder, recipe))
        assert (second.epochs_run, second.done) == (k, k == EPOCHS)
        assert second.history == first.history
        assert_same(run(folder, recipe=recipe), expected)


def test_a_poly_scale_trial_goes_on_too_and_leaves_the_network_as_built(tmp_path: Path):
    other = {"architecture": to_dict(POLY_SCALE)}
    expected = run(tmp_path / "whole", **other)
    (tmp_path / "parts").mkdir()
    for _ in range(2):
        subject = Trial(spec(tmp_path / "parts", **other))
        assert sorted_sides(subject.learner.model)
        subject.advance()
    assert_same(run(tmp_path / "parts", **other), expected)
    assert weights_in(tmp_path / "parts").keys() == pyconv_search.build(POLY_SCALE).state_dict().keys()
    model = pyconv_search.load_model(tmp_path / "parts" / "weights" / "t1.safetensors")
    learner, found = (
        make_learner(model, recipes.from_dict(spec()["recipe"]), 0, torch.device("cpu")),
        noise("noise"),
    )
    held = to_device(found.held, found.info, torch.device("cpu"))
    scores = loop.evaluate(learner, held, loop.view_of(learner, 0, (8, 8), full=True))
    assert scores.loss == expected[1]["test_loss"]


def test_a_poly_scale_trial_that_began_unsorted_goes_on_unsorted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    other = {"architecture": to_dict(POLY_SCALE)}
    with monkeypatch.context() as patch:
        patch.setattr(learners, "sort_channels", lambda model: [])
        expected = run(tmp_path / "whole", **other)
        (tmp_path / "parts").mkdir()
        Trial(spec(tmp_path / "parts", **other)).advance()
    assert Trial(spec(tmp_path / "parts", **other)).epochs_run == 1
    assert_same(run(tmp_path / "parts", **other), expected)


def test_an_interruption_at_every_epoch_is_counted(whole: Any, tmp_path: Path):
    for _ in range(EPOCHS):
        Trial(spec(tmp_path)).advance()
    epochs: list[Epoch] = []
    row = run_trial(spec(tmp_path), epochs.append)
    assert row.resumed == EPOCHS
    assert_same(([numbers_of(epoch) for epoch in epochs], numbers_of(row), weights_in(tmp_path)), whole)


@pytest.mark.parametrize("at", ["step", "replace"])
def test_killed_at_the_worst_moment_equals_uninterrupted(whole: Any, tmp_path: Path, at: str):
    assert run_elsewhere(tmp_path, at) == -signal.SIGKILL
    left = os.listdir(tmp_path / "checkpoints")
    assert "t1.safetensors" in left
    assert any(name.endswith(".part") for name in left) == (at == "replace")
    assert Trial(spec(tmp_path)).epochs_run == 2
    assert_same(run(tmp_path), whole)
    assert os.listdir(tmp_path / "checkpoints") == []


def test_a_damaged_checkpoint_is_set_aside_and_the_trial_starts_again(
    whole: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    first = Trial(spec(tmp_path))
    first.advance()
    path = tmp_path / "checkpoints" / "t1.safetensors"
    content = path.read_bytes()
    offsets = random.Random(2).sample(range(len(content) // 2, len(content)), 8)
    for offset in offsets:
        damaged = bytearray(content)
        damaged[offset] ^= 0x10
        path.write_bytes(damaged)
        caplog.clear()
        assert Trial(spec(tmp_path)).epochs_run == 0
        assert "the trial starts again" in caplog.text
        assert path.with_name("t1.safetensors.corrupt").read_bytes() == damaged
    assert_same(run(tmp_path), whole)


@pytest.mark.parametrize(
    "other",
    [{"seed": 4}, {"recipe": {"lr": 0.01}}, {"data": {"name": "noise", "root": None, "validation": 20}}],
)
def test_a_checkpoint_of_another_training_is_not_used(tmp_path: Path, other: dict[str, Any]):
    Trial(spec(tmp_path)).advance()
    assert Trial(spec(tmp_path, **other)).epochs_run == 0
    assert (tmp_path / "checkpoints" / "t1.safetensors.corrupt").exists()


def test_a_checkpoint_is_used_wherever_the_data_lie(tmp_path: Path):
    Trial(spec(tmp_path)).advance()
    elsewhere = {"name": "noise", "root": "elsewhere", "validation": None}
    assert Trial(spec(tmp_path, data=elsewhere)).epochs_run == 1


def test_a_trial_needs_no_folder(whole: Any):
    epochs: list[Epoch] = []
    row = run_trial(spec(), epochs.append)
    assert [numbers_of(epoch) for epoch in epochs] == whole[0]
    assert numbers_of(row) == whole[1]


def test_the_row_of_a_complete_trial(tmp_path: Path):
    subject = Trial(spec(tmp_path))
    assert not subject.done
    epochs = [subject.advance() for _ in range(EPOCHS)]
    assert subject.done
    row, price = subject.finish(), cost(NETWORK)
    assert (row.trial, row.name, row.seed, row.arch_id) == ("t1", "two levels", 3, NETWORK.arch_id)
    assert (row.status, row.reason, row.detail, row.epochs, row.resumed) == ("complete", "", "", EPOCHS, 0)
    assert (row.params, row.macs) == (price.params, price.macs)
    assert (row.activations, row.receptive_field) == (price.activations, price.receptive_field)
    assert sum(tensor.numel() for name, tensor in weights_in(tmp_path).items() if is_parameter(name)) == row.params
    assert (row.val_loss, row.val_top1_error) == (epochs[-1].val_loss, epochs[-1].val_top1_error)
    assert row.val_top5_error == epochs[-1].val_top5_error
    assert row.test_loss is not None
    assert 0 < row.train_seconds < sum(epoch.seconds for epoch in epochs)
    assert row.images_per_second == pytest.approx(EPOCHS * 97 / row.train_seconds)
    assert row.environment["torch"] == torch.__version__
    assert row.environment["precision"] in ("fp32", "bf16")
    assert (row.device, row.parameters) == ("cpu", {"levels": [2, 1, 1]})
    assert row.started.endswith("+00:00")
    assert row.started <= row.finished
    assert [epoch.epoch for epoch in epochs] == [1, 2, 3, 4]
    assert epochs[-1].train_loss < epochs[0].train_loss


def is_parameter(name: str) -> bool:
    return not name.endswith(("running_mean", "running_var", "num_batches_tracked"))


def test_the_test_split_is_read_once_and_at_the_end_only(tmp_path: Path):
    found = images.data_set("noise", None, None, None)
    subject = Trial(spec(tmp_path))
    while not subject.done:
        subject.advance()
    subject = Trial(spec(tmp_path))
    assert found.reads == []
    row = subject.finish()
    assert found.reads == ["test"]
    assert subject.finish() is row
    assert found.reads == ["test"]


def test_other_ends_do_not_read_the_test_split(tmp_path: Path):
    found = images.data_set("noise", None, None, None)
    for end in (Trial.so_far, lambda subject: subject.fail(RuntimeError())):
        subject = Trial(spec(tmp_path))
        subject.advance()
        assert end(subject).test_loss is None
    assert found.reads == []


def test_test_scores_are_those_of_the_test_split(tmp_path: Path):
    row = run_trial(spec(tmp_path))
    learner = Trial(spec()).learner
    learner.model.load_state_dict(weights_in(tmp_path))
    found = noise("noise")
    held = to_device(found.held, found.info, torch.device("cpu"))
    scores = loop.evaluate(learner, held, loop.view_of(learner, 0, (8, 8), full=True))
    assert (row.test_loss, row.test_top1_error, row.test_top5_error) == (
        scores.loss,
        scores.top1_error,
        scores.top5_error,
    )


def test_the_row_of_a_complete_trial_holds_the_scale_allocation_of_its_weights(tmp_path: Path):
    row = run_trial(spec(tmp_path, architecture=to_dict(POLY_SCALE)))
    model = pyconv_search.load_model(tmp_path / "weights" / "t1.safetensors")
    assert len(row.scales) == 6
    for layer, shares in scale_allocation(model).items():
        assert row.scales[layer] == pytest.approx(shares)
    assert set(row.scales["stages.0.0.conv1"]) == {f"3×3, dilation {d}" for d in (1, 2, 4)}
    assert run_trial(spec(None, {"lr": 1e9, "warmup": 0.0, "precision": "fp32"})).scales == {}


def test_a_row_that_is_lost_costs_no_training(whole: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    subject = Trial(spec(tmp_path))
    while not subject.done:
        subject.advance()
    row = subject.finish()
    monkeypatch.setattr(loop, "train", raising(AssertionError("trained again")))
    assert numbers_of(Trial(spec(tmp_path)).finish()) == numbers_of(row) == whole[1]
    forget(spec(tmp_path))
    assert os.listdir(tmp_path / "checkpoints") == []
    forget(spec(tmp_path))


def test_finish_keeps_the_checkpoint_until_the_weights_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    subject = Trial(spec(tmp_path))
    while not subject.done:
        subject.advance()
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_weights", raising(UserError("disk full")))
        with pytest.raises(UserError):
            subject.finish()
    assert (tmp_path / "checkpoints" / "t1.safetensors").exists()
    assert subject.finish().status == "complete"


def test_weights_are_kept_only_when_asked_for(tmp_path: Path):
    assert run_trial(spec(tmp_path, keep_weights=False)).status == "complete"
    assert not (tmp_path / "weights").exists()


def test_the_row_so_far(tmp_path: Path):
    subject = Trial(spec(tmp_path))
    for n in (1, 2):
        epoch = subject.advance()
        row = subject.so_far()
        assert (row.status, row.reason, row.epochs) == ("stopped", "scheduler", n)
        assert row.val_top1_error == epoch.val_top1_error


def test_order_of_calls_is_kept(tmp_path: Path):
    subject = Trial(spec(tmp_path))
    with pytest.raises(ValueError, match="has run 0 of 4 epochs"):
        subject.finish()
    while not subject.done:
        subject.advance()
    with pytest.raises(ValueError, match="has run all of its 4 epochs"):
        subject.advance()
    subject.finish()
    with pytest.raises(ValueError, match="has ended"):
        subject.advance()


def raising(error: BaseException, after: int = 0) -> Callable[..., Any]:
    """A function that raises ``error`` from its call number ``after`` on."""
    calls = []
    original = loop.train

    def replacement(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) > after:
            raise error
        return original(*arguments)

    return replacement


def test_divergence_is_a_row(tmp_path: Path):
    row = run_trial(spec(tmp_path, {"lr": 1e9, "warmup": 0.0, "precision": "fp32", "epochs": 20}))
    assert (row.status, row.reason) == ("failed", "nan")
    assert row.detail.startswith("Diverged: the loss became ")
    assert row.epochs < 20


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        MemoryError(),
    ],
)
def test_out_of_memory_is_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception):
    monkeypatch.setattr(loop, "train", raising(error, after=2))
    row = run_trial(spec(tmp_path))
    assert (row.status, row.reason, row.epochs) == ("failed", "oom", 2)
    assert row.detail.startswith(type(error).__name__)
    monkeypatch.undo()
    monkeypatch.setattr(data, "load", noise)
    assert Trial(spec(tmp_path)).epochs_run == 2


def test_the_allocators_own_error_is_out_of_memory():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    assert outcome.reason_of(caught.value) == "oom"


def test_out_of_memory_before_the_first_step_is_a_row(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(trial, "build", raising(MemoryError()))
    row = run_trial(spec())
    assert (row.status, row.reason, row.epochs, row.params) == ("failed", "oom", 0, cost(NETWORK).params)


def test_any_other_error_is_a_row(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    monkeypatch.setattr(loop, "train", raising(KeyError("one\ntwo\nthree\nfour"), after=1))
    row = run_trial(spec())
    assert (row.status, row.reason, row.epochs) == ("failed", "error", 1)
    assert row.detail == "KeyError: 'one\\ntwo\\nthree\\nfour'"
    assert row.val_loss is not None
    assert row.test_loss is None
    assert "Traceback" in caplog.text
    monkeypatch.setattr(loop, "train", raising(ValueError("one\ntwo\nthree\nfour")))
    assert run_trial(spec()).detail == "ValueError: one\ntwo\nthree"


def test_an_error_at_the_very_end_is_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(checkpoint, "save_weights", raising(UserError("t1: No space left on device")))
    with pytest.raises(UserError, match="No space left"):
        run_trial(spec(tmp_path))
    monkeypatch.setattr(checkpoint, "save_weights", raising(KeyError("weights")))
    row = run_trial(spec(tmp_path))
    assert (row.status, row.reason, row.epochs) == ("failed", "error", EPOCHS)
    assert row.detail == "KeyError: 'weights'"
    monkeypatch.undo()
    monkeypatch.setattr(data, "load", noise)
    assert run_trial(spec(tmp_path)).status == "complete"


def test_a_full_disk_leaves_the_checkpoint_before(whole: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    subject = Trial(spec(tmp_path))
    subject.advance()
    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", raising(OSError(28, "No space left on device")))
        with pytest.raises(UserError, match="No space left on device"):
            subject.advance()
    assert os.listdir(tmp_path / "checkpoints") == ["t1.safetensors"]
    assert Trial(spec(tmp_path)).epochs_run == 1
    assert_same(run(tmp_path), whole)


def test_an_interrupt_passes_through_and_the_trial_goes_on(whole: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as patch:
        patch.setattr(loop, "train", raising(KeyboardInterrupt(), after=2))
        with pytest.raises(KeyboardInterrupt):
            run_trial(spec(tmp_path))
    assert_same(run(tmp_path), whole)


def test_half_an_epoch_is_not_gone_on_with(monkeypatch: pytest.MonkeyPatch):
    subject = Trial(spec())
    with monkeypatch.context() as patch:
        patch.setattr(loop, "evaluate", raising(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            subject.advance()
    with pytest.raises(ValueError, match="has ended"):
        subject.advance()


def test_what_the_caller_raises_passes_through(tmp_path: Path):
    def on_epoch(epoch: Epoch) -> None:
        raise LookupError

    with pytest.raises(LookupError):
        run_trial(spec(tmp_path), on_epoch)


@pytest.mark.parametrize("call", [Trial, run_trial])
def test_what_the_study_lacks_is_told(tmp_path: Path, call: Callable[[dict[str, Any]], Any]):
    with pytest.raises(UserError, match=r"gone: no such folder on .*shared file system"):
        call(spec(tmp_path / "gone"))
    with pytest.raises(UserError, match="validation: 0 leaves no images"):
        call(spec(data={"name": "noise", "root": None, "validation": 0}))
    other = to_dict(resnet({"depth": 8, "stem": {"kernel": 3, "width": 4, "stride": 1, "pool": "none"}}, (1, 8, 8), 6))
    with pytest.raises(UserError, match="1×8×8 pixels and 6 classes, but noise has 3×8×8 pixels and 6 classes"):
        call(spec(architecture=other))


def test_nothing_outside_is_disturbed(tmp_path: Path):
    torch.manual_seed(11)
    before, expected = torch.get_rng_state(), torch.rand(1)
    torch.set_rng_state(before)
    random.seed(11)
    state = random.getstate()
    run_trial(spec(tmp_path))
    assert torch.equal(torch.rand(1), expected)
    assert random.getstate() == state


def test_the_seed_decides_the_weights():
    first, again, other = (Trial(spec(seed=seed)).learner.model.state_dict() for seed in (0, 0, 1))
    name = next(iter(first))
    assert torch.equal(first[name], again[name])
    assert not torch.equal(first[name], other[name])


def test_the_data_set_is_read_once_a_process(monkeypatch: pytest.MonkeyPatch):
    loads = []
    monkeypatch.setattr(data, "load", lambda *key: (loads.append(key), noise(*key))[1])
    for seed in range(3):
        Trial(spec(seed=seed)).advance()
    assert loads == [("noise", None, None, None)]


def test_a_trial_that_has_ended_holds_no_model():
    subject = Trial(spec())
    subject.advance()
    subject.fail(RuntimeError())
    assert subject._learner is None


def _end_at(where: str) -> None:
    """Kill this process during the third epoch: at a step, or when its checkpoint is about to take its place."""
    calls = []

    def kill_from(limit: int, original: Callable[..., Any]) -> Callable[..., Any]:
        def replacement(*arguments: Any) -> Any:
            calls.append(1)
            if len(calls) == limit:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*arguments)

        return replacement

    if where == "step":
        source.moved = kill_from(2 * 6 + 3, source.moved)
    if where.startswith("save"):
        checkpoint.save = kill_from(int(where.split()[1]), checkpoint.save)
    if where == "replace":
        files.os.replace = kill_from(3, os.replace)


if __name__ == "__main__":
    logging.disable()
    data.load = noise
    _end_at(sys.argv[2])
    wanted = json.loads(sys.argv[1])
    Path(wanted["folder"], "row.json").write_text(json.dumps(numbers_of(run_trial(wanted))))
