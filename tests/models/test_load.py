"""Weights from a trial's file, back in a network."""

from __future__ import annotations

import contextlib
import json
import os
import random
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import pyconv_search
from pyconv_search.arch.canonical import canonical_json, from_dict
from pyconv_search.arch.presets import preset
from pyconv_search.errors import UserError
from pyconv_search.search import images
from pyconv_search.search.trial import run_trial
from pyconv_search.study.plan import candidates, trial_spec
from pyconv_search.study.study import load_study
from pyconv_search.training import loop
from pyconv_search.training.learner import make_learner
from pyconv_search.training.source import to_device


def test_a_trained_network_scores_what_its_row_says(tiny_study: Callable[..., Path], tmp_path: Path) -> None:
    study = load_study(tiny_study(recipe={"epochs": 1, "batch": 256, "precision": "fp32"}))
    spec = trial_spec(study, candidates(study)[1], 0, str(tmp_path))
    row = run_trial(spec)
    model = pyconv_search.load_model(tmp_path / "weights" / f"{row.trial}.safetensors")
    assert not model.training
    learner = make_learner(model, study.recipe, 0, torch.device("cpu"))
    found = images.data_set("fashion-mnist-small", None, None, None)
    test = to_device(found.test, found.info, torch.device("cpu"))
    scores = loop.evaluate(learner, test, loop.view_of(learner, 0, (28, 28), full=True))
    assert (scores.loss, scores.top1_error) == (row.test_loss, row.test_top1_error)


def test_files_that_are_no_trained_network(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    (tmp_path / "text").write_text("no weights")
    save_file({"a": torch.zeros(1)}, tmp_path / "foreign")
    for name, words in {"text": "cannot be read", "missing": "no such file", "foreign": "does not name"}.items():
        with pytest.raises(UserError, match=words):
            pyconv_search.load_model(tmp_path / name)


@pytest.mark.parametrize("text", ["no JSON", "[" * 100_000, "[]", "{}", '{"stem": 1}', None])
def test_an_architecture_that_is_none_or_another_network_s(text: str | None, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    text = canonical_json(preset("resnet-20-cifar")) if text is None else text
    save_file({"a": torch.zeros(1)}, tmp_path / "foreign", {"architecture": text})
    with pytest.raises(UserError, match="foreign: is not a network of ours: "):
        pyconv_search.load_model(tmp_path / "foreign")


def fill(path: Path, stages: int, blocks: int, numbers: int) -> Path:
    """A small file that names a network of so many blocks."""
    from safetensors.torch import save_file

    values = json.loads(canonical_json(preset("resnet-20-cifar")))
    values["stages"] = [{**values["stages"][0], "blocks": blocks}] * stages
    save_file({"a": torch.zeros(numbers, dtype=torch.uint8)}, path, {"architecture": json.dumps(values)})
    return path


@pytest.mark.parametrize(("stages", "blocks"), [(1, 4_900), (12, 4_900), (1, 100)])
def test_a_small_file_never_builds_a_large_network(stages: int, blocks: int, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("pyconv_search.models.load.build", lambda arch: pytest.fail("was built"))
    with pytest.raises(UserError, match=r"holds 10,000 numbers, but its architecture has [\d,]+ parameters"):
        pyconv_search.load_model(fill(tmp_path / "file", stages, blocks, 10_000))
    # As many numbers as it has, but in one tensor.
    params = pyconv_search.cost(from_dict(json.loads(architecture_in(tmp_path / "file")))).params
    if params < 10**6:
        with pytest.raises(UserError, match="holds 1 tensors, but its architecture has 100 blocks"):
            pyconv_search.load_model(fill(tmp_path / "file", stages, blocks, params))


def architecture_in(path: Path) -> str:
    from safetensors import safe_open

    with safe_open(path, "pt") as opened:
        return opened.metadata()["architecture"]


def test_headers_and_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "longer").write_bytes(struct.pack("<Q", 2**63) + b"{}")
    with (tmp_path / "sparse").open("wb") as file:
        file.write(struct.pack("<Q", 2**25))
        file.truncate(2**26)
    os.mkfifo(tmp_path / "fifo")
    for name, words in {
        "longer": "no whole file of safetensors",
        "sparse": "its header has 33,554,432 bytes, of which 16,777,216 at most are read",
        "fifo": "it is not a plain file",
        "": "it is a folder",
    }.items():
        with pytest.raises(UserError, match=words):
            pyconv_search.load_model(tmp_path / name)


def test_every_damaged_byte_of_the_header_is_told(tmp_path: Path) -> None:
    from pyconv_search.models import build
    from pyconv_search.training.checkpoint import save_weights

    arch = preset("resnet-20-cifar")
    save_weights(build(arch), tmp_path / "whole", {"architecture": canonical_json(arch)})
    content = (tmp_path / "whole").read_bytes()
    draws = random.Random(0)
    length = 8 + int.from_bytes(content[:8], "little")
    for at in [*range(8), *draws.sample(range(8, length), 60)]:
        for value in (0, 255, draws.randrange(256)):
            (tmp_path / "damaged").write_bytes(content[:at] + bytes([value]) + content[at + 1 :])
            with contextlib.suppress(UserError):  # a name in another network's words may still be the same network
                pyconv_search.load_model(tmp_path / "damaged")
    for cut in [*range(20), length - 1, length, len(content) - 1]:
        (tmp_path / "damaged").write_bytes(content[:cut])
        with pytest.raises(UserError, match="damaged: cannot be read"):
            pyconv_search.load_model(tmp_path / "damaged")
