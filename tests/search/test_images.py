"""Trials on images that are decoded as they train: from a description, with nothing replaced."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pyconv_search.arch.canonical import to_dict
from pyconv_search.arch.resnet import resnet
from pyconv_search.errors import UserError
from pyconv_search.results.row import Epoch, Row
from pyconv_search.search import images
from pyconv_search.search.trial import Trial, run_trial
from pyconv_search.study import datasets
from pyconv_search.study import recipe as recipes
from pyconv_search.training.data import PackOrder, make_pack

STEM = {"kernel": 3, "width": 4, "stride": 2, "pool": "none"}


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch):
    threads = torch.get_num_threads()
    monkeypatch.setitem(datasets.DATA_SETS, "imagenet", replace(datasets.get("imagenet"), input=(3, 16, 16)))
    images.forget()
    yield
    images.forget()
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two classes, dark and bright, of 20 images to train and validate with and 5 to test with."""
    numbers = np.random.default_rng(0)
    for split, count in (("train", 20), ("val", 5)):
        for c, wnid in enumerate(("n01440764", "n02102040")):
            folder = tmp_path / "mine" / split / wnid
            folder.mkdir(parents=True)
            for i in range(count):
                width, height = numbers.integers(20, 40, 2)
                pixels = numbers.integers(0, 100, (height, width, 3)) + 120 * c
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{wnid}_{i}.JPEG")
    return tmp_path / "mine"


def spec(tree: Path, folder: Path, **other: Any) -> dict[str, Any]:
    recipe = recipes.Recipe(epochs=3, batch=8, lr=0.05, scale=(0.3, 1.0), flip=True)
    return {
        "trial": "t1",
        "name": "n",
        "seed": 3,
        "architecture": to_dict(resnet({"depth": 8, "stem": STEM}, (3, 16, 16), 2)),
        "parameters": {},
        "recipe": recipes.to_dict(recipe),
        "data": {"name": "imagenet", "root": str(tree), "validation": 6, "classes": 2},
        "threads": 1,
        "device": "cpu",
        "folder": str(folder),
        "keep_weights": False,
        "checkpoints": {"every": 1, "minutes": 10.0, "keep": "last"},
        **other,
    }


def results(epochs: list[Epoch], row: Row) -> list[tuple[float, ...]]:
    """What a training comes to: losses of every epoch and of the test split."""
    assert row.status == "complete", row.detail
    return [*((e.train_loss, e.val_loss) for e in epochs), (row.test_loss or -1.0,)]


def test_a_subset_is_trained_on_and_learnt(tree: Path, tmp_path: Path) -> None:
    epochs: list[Epoch] = []
    row = run_trial(spec(tree, tmp_path), epochs.append)
    whole = results(epochs, row)
    assert row.test_top1_error == 0.0

    stopped = Trial(spec(tree, tmp_path))
    first = [stopped.advance()]
    images.forget()
    resumed = Trial(spec(tree, tmp_path))
    assert resumed.history == first
    while not resumed.done:
        first.append(resumed.advance())
    assert results(first, resumed.finish()) == whole


def test_a_pack_is_trained_on(tree: Path, tmp_path: Path) -> None:
    out = make_pack("imagenet", PackOrder(side=18), tree, classes=2)
    epochs: list[Epoch] = []
    row = run_trial(spec(tree, tmp_path), epochs.append)
    assert row.test_top1_error == 0.0
    again: list[Epoch] = []
    assert results(again, run_trial(spec(out, tmp_path, trial="t2"), again.append)) == results(epochs, row)


def test_a_broken_image_ends_the_study_by_its_name(tree: Path, tmp_path: Path) -> None:
    broken = tree / "val" / "n01440764" / "n01440764_3.JPEG"
    broken.write_bytes(broken.read_bytes()[:-60])
    with pytest.raises(UserError, match=rf"{broken}: is not a complete image"):
        run_trial(spec(tree, tmp_path))


def test_a_folder_of_other_classes_is_told_before_training(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has 2 classes, but imagenet has 1,000; if a subset is meant, declare it"):
        Trial(spec(tree, tmp_path, data={"name": "imagenet", "root": str(tree), "validation": None}))
