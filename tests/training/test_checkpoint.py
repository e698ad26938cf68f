"""Checkpoints: what is written is read again, anything else is told, and a full disk costs nothing."""

from __future__ import annotations

import errno
import os
import random
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors
import safetensors.torch
import torch
from torch import nn

from pyconv_search.arch.resnet import resnet
from pyconv_search.errors import UserError
from pyconv_search.models import build
from pyconv_search.models.sorting import sort_channels, unsort_channels
from pyconv_search.results import files
from pyconv_search.results.row import Epoch
from pyconv_search.study.recipe import Recipe
from pyconv_search.training import checkpoint
from pyconv_search.training import learner as learners
from pyconv_search.training.checkpoint import Checkpoint, DamagedCheckpoint, load, save
from pyconv_search.training.learner import Learner, make_learner


def network(width: int = 4) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(width)
        net = nn.Sequential(
            nn.Conv2d(3, width, 3, bias=False), nn.BatchNorm2d(width), nn.Flatten(), nn.Linear(width, 2)
        )
    return net.to(memory_format=torch.channels_last)


RECIPE = Recipe(epochs=9, lr=0.1, ema=0.9, precision="fp32", weight_decay=0.0)


def learner_of(model: nn.Module) -> Learner:
    return make_learner(model, RECIPE, 0, torch.device("cpu"))


def advance(learner: Learner, images: torch.Tensor) -> None:
    learner.optimizer.zero_grad()
    learner.model(images).square().sum().backward()
    learner.optimizer.step()
    learner.averages.update_parameters(learner.model)


def trained(width: int = 4, steps: int = 2) -> Learner:
    learner = learner_of(network(width))
    for i in range(steps):
        advance(learner, torch.full((5, 3, 3, 3), float(i)) * torch.arange(5).view(5, 1, 1, 1))
    return learner


def state(width: int = 4, epochs: int = 2) -> Checkpoint:
    history = tuple(Epoch("t1", i + 1, 0.1 / 3, 1.5, 30.1, 1.25, 20.7, 5.3, 0.125, 99.5, 7) for i in range(epochs))
    tensors, numbers = checkpoint.state_of(trained(width))
    best = {"weight": torch.arange(3.0)}
    begun = (5, (0.1, 3.0, 1.0, 80.0))
    return Checkpoint("t1", "plan", history, 3, "2024-01-01T00:00:00+00:00", 1 / 7, tensors, numbers, begun, best)


def assert_equal(a: Checkpoint, b: Checkpoint) -> None:
    for name in ("trial", "plan", "history", "resumed", "started", "train_seconds", "numbers", "begun"):
        assert getattr(a, name) == getattr(b, name)
    for ours, theirs in ((a.tensors, b.tensors), (a.best, b.best)):
        assert ours.keys() == theirs.keys()
        assert all(ours[k].dtype == theirs[k].dtype and torch.equal(ours[k], theirs[k]) for k in ours)


def test_what_is_written_is_read(tmp_path: Path):
    path, written = tmp_path / "checkpoints" / "t1.safetensors", state()
    save(path, written)
    found = load(path)
    assert found is not None
    assert len([name for name in found.tensors if name.startswith("momentum/")]) == 5
    assert len([name for name in found.tensors if name.startswith("average/")]) == 8
    assert_equal(found, written)
    assert os.listdir(path.parent) == ["t1.safetensors"]
    with safetensors.safe_open(path, "pt") as file:
        metadata = file.metadata()
    assert (metadata["epoch"], metadata["trial"], metadata["resumed"]) == ("2", "t1", "3")


def test_restore_goes_on_as_if_nothing_had_happened(tmp_path: Path):
    path = tmp_path / "t1.safetensors"
    save(path, state())
    found = load(path)
    assert found is not None
    resumed, expected = learner_of(network()), trained()
    checkpoint.restore(found, resumed)
    path.unlink()
    for _ in range(2):
        advance(resumed, torch.ones(5, 3, 3, 3))
        advance(expected, torch.ones(5, 3, 3, 3))
    for ours, theirs in ((resumed.model, expected.model), (resumed.evaluated, expected.evaluated)):
        for name, tensor in theirs.state_dict().items():
            assert torch.equal(ours.state_dict()[name], tensor)
            assert ours.state_dict()[name].stride() == tensor.stride()
    assert resumed.averages.n_averaged == expected.averages.n_averaged == 4
    assert not torch.equal(resumed.model[0].weight, resumed.evaluated[0].weight)


def test_restore_refuses_another_network():
    learner, found = learner_of(network(8)), state()
    with pytest.raises(DamagedCheckpoint, match="another network"):
        checkpoint.restore(found, learner)
    weights = {name: tensor for name, tensor in found.tensors.items() if not name.startswith("momentum/")}
    with pytest.raises(DamagedCheckpoint, match="another network"):
        checkpoint.restore(replace(found, tensors=weights), learner)


def poly_scale(is_sorted: bool) -> Learner:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        stem = {"kernel": 3, "width": 8, "stride": 1, "pool": "none"}
        model = build(
            resnet({"blocks": [2], "block": "bottleneck", "pattern": [1, 2, 1, 4], "stem": stem}, (3, 8, 8), 2)
        )
    assert bool(sort_channels(model)) or not is_sorted
    if not is_sorted:
        unsort_channels(model)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learners, "sort_channels", lambda model: [])
        return learner_of(model)


def steps(learner: Learner, count: int) -> None:
    model, optimizer = learner.model, learner.optimizer
    images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    for _ in range(count):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), torch.tensor([0, 1, 0, 1])).backward()
        optimizer.step()


@pytest.mark.parametrize("is_sorted", [True, False])
def test_a_training_goes_on_in_the_order_of_its_checkpoint(tmp_path: Path, is_sorted: bool):
    learner = poly_scale(is_sorted)
    steps(learner, 2)
    tensors, numbers = checkpoint.state_of(learner)
    save(tmp_path / "t1.safetensors", replace(state(), tensors=tensors, numbers=numbers))
    steps(learner, 2)
    found = load(tmp_path / "t1.safetensors")
    assert found is not None
    resumed = poly_scale(is_sorted=True)
    checkpoint.restore(found, resumed)
    steps(resumed, 2)
    assert any(key.endswith("order_in") for key in resumed.model.state_dict()) == is_sorted
    ours, theirs = checkpoint.state_of(resumed)[0], checkpoint.state_of(learner)[0]
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], tensor) for key, tensor in theirs.items())


def test_the_weights_of_a_sorted_network_are_those_of_the_network_as_built(tmp_path: Path):
    model, plain = poly_scale(is_sorted=True).model, poly_scale(is_sorted=False).model
    assert model.state_dict().keys() > plain.state_dict().keys()
    for _ in range(2):
        checkpoint.save_weights(model, tmp_path / "weights" / "t1.safetensors", {})
        found = safetensors.torch.load_file(tmp_path / "weights" / "t1.safetensors")
        assert found.keys() == plain.state_dict().keys()
        assert all(torch.equal(found[key], tensor) for key, tensor in plain.state_dict().items())


def test_none_where_there_is_none(tmp_path: Path):
    assert load(tmp_path / "t1.safetensors") is None


def test_unreadable_is_the_users_to_mend(tmp_path: Path):
    with pytest.raises(UserError, match="cannot be read"):
        load(tmp_path)


def test_every_altered_byte_and_every_cut_is_noticed(tmp_path: Path):
    path, written = tmp_path / "t1.safetensors", state()
    save(path, written)
    whole = path.read_bytes()
    numbers = random.Random(0)
    for _ in range(300):
        at = numbers.randrange(len(whole))
        path.write_bytes(whole[:at] + bytes([whole[at] ^ numbers.randrange(1, 256)]) + whole[at + 1 :])
        try:
            found = load(path)
        except DamagedCheckpoint:
            continue
        # A byte without meaning, such as padding.
        assert found is not None
        assert_equal(found, written)
    for size in [0, 1, 7, 8, 9, *(numbers.randrange(len(whole)) for _ in range(50))]:
        path.write_bytes(whole[:size])
        with pytest.raises(DamagedCheckpoint, match=r"t1\.safetensors"):
            load(path)


def test_a_safetensors_file_of_somebody_else_is_told(tmp_path: Path):
    path = tmp_path / "t1.safetensors"
    path.write_bytes(safetensors.torch.save({"a": torch.ones(2)}))
    with pytest.raises(DamagedCheckpoint, match="its format is None"):
        load(path)
    path.write_bytes(b"hello")
    with pytest.raises(DamagedCheckpoint, match="not a checkpoint"):
        load(path)


@pytest.mark.parametrize("change", [("curve", "[1]"), ("begun", "[1]"), ("begun", '["a", []]'), ("numbers", "[]")])
def test_content_of_another_shape_is_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change):
    """Whole and with its checksum, but from hands that do not know the format."""
    path, dump, (key, text) = tmp_path / "t1.safetensors", checkpoint._write, change
    monkeypatch.setattr(
        checkpoint,
        "_write",
        lambda path, tensors, metadata: dump(
            path, tensors, {**(own := {**metadata, key: text}), "sha256": checkpoint._digest(tensors, without(own))}
        ),
    )
    save(path, state())
    with pytest.raises(DamagedCheckpoint, match="not a checkpoint of this version"):
        load(path)


def without(metadata: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in metadata.items() if key != "sha256"}


def test_a_pipe_is_no_checkpoint(tmp_path: Path):
    os.mkfifo(tmp_path / "t1.safetensors")
    with pytest.raises(UserError, match="not a plain file"):
        load(tmp_path / "t1.safetensors")


def test_set_aside_keeps_the_file_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    path = tmp_path / "t1.safetensors"
    path.write_bytes(b"hello")
    aside = checkpoint.set_aside(path, "it is damaged")
    assert aside == tmp_path / "t1.safetensors.corrupt"
    assert aside.read_bytes() == b"hello"
    assert not path.exists()
    assert "it is damaged; kept as t1.safetensors.corrupt, the trial starts again" in caplog.text


@pytest.mark.parametrize("where", ["write", "fsync", "replace"])
def test_a_full_disk_leaves_the_checkpoint_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str):
    path = tmp_path / "t1.safetensors"
    save(path, state(epochs=1))
    before = path.read_bytes()

    def full(*arguments: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files.os, where, full)
        with pytest.raises(UserError, match=r"t1.safetensors: cannot be written: No space left on device"):
            save(path, state(epochs=2))
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["t1.safetensors"]


def test_a_folder_that_is_not_there_is_told(tmp_path: Path):
    with pytest.raises(UserError, match="cannot be made: No such file or directory"):
        save(tmp_path / "missing" / "checkpoints" / "t1.safetensors", state())


def test_remove_takes_what_a_killed_process_left(tmp_path: Path):
    for name in ("t1.safetensors", ".t1.safetensors.123.part", "t10.safetensors", ".t10.safetensors.123.part"):
        (tmp_path / name).write_bytes(b"")
    checkpoint.remove(tmp_path / "t1.safetensors")
    checkpoint.remove(tmp_path / "t1.safetensors")
    assert sorted(os.listdir(tmp_path)) == [".t10.safetensors.123.part", "t10.safetensors"]


def test_weights_are_the_models_state_and_nothing_else(tmp_path: Path):
    path, model = tmp_path / "weights" / "t1.safetensors", trained().model
    checkpoint.save_weights(model, path, {"arch_id": "abc"})
    found = safetensors.torch.load_file(path)
    assert found.keys() == model.state_dict().keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in model.state_dict().items())
    with safetensors.safe_open(path, "pt") as file:
        assert file.metadata() == {"arch_id": "abc"}


def test_a_scaled_loss_goes_on_with_its_scale(tmp_path: Path):
    recipe = replace(RECIPE, precision="fp16")
    learner, fresh = (make_learner(network(), recipe, 0, torch.device("cpu")) for _ in range(2))
    learner.scaler.load_state_dict({**learner.scaler.state_dict(), "scale": 1024.0, "_growth_tracker": 7})
    tensors, numbers = checkpoint.state_of(learner)
    save(tmp_path / "t1.safetensors", replace(state(), tensors=tensors, numbers=numbers))
    checkpoint.restore(load(tmp_path / "t1.safetensors"), fresh)
    assert fresh.scaler.state_dict() == learner.scaler.state_dict()


def test_a_momentum_of_another_shape_is_refused():
    found = state()
    wrong = {**found.tensors, "momentum/0.weight": torch.zeros(2, 2)}
    with pytest.raises(DamagedCheckpoint, match="the momentum is that of another network"):
        checkpoint.restore(replace(found, tensors=wrong), learner_of(network()))


def test_another_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "FORMAT", "pyconv-search checkpoint 1")
        save(tmp_path / "t1.safetensors", state())
    with pytest.raises(DamagedCheckpoint, match="checkpoint 1"):
        load(tmp_path / "t1.safetensors")
