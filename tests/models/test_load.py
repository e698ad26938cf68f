"""Weights from a trial's file, back in a network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import pyconv_search
from pyconv_search.arch.canonical import canonical_json
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
    for name, words in {"text": "cannot be read", "missing": "cannot be read", "foreign": "does not name"}.items():
        with pytest.raises(UserError, match=words):
            pyconv_search.load_model(tmp_path / name)


@pytest.mark.parametrize("text", ["no JSON", "[" * 100_000, "[]", "{}", '{"stem": 1}', None])
def test_an_architecture_that_is_none_or_another_network_s(text: str | None, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    text = canonical_json(preset("resnet-20-cifar")) if text is None else text
    save_file({"a": torch.zeros(1)}, tmp_path / "foreign", {"architecture": text})
    with pytest.raises(UserError, match="foreign: is not a network of ours: "):
        pyconv_search.load_model(tmp_path / "foreign")
