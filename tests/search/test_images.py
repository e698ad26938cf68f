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
from pyconv_search.training import data
from pyconv_search.training.data import PackOrder, make_pack
from pyconv_search.training.source import View, to_device

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


def test_videos_are_trained_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    av = pytest.importorskip("av")
    monkeypatch.setitem(
        datasets.DATA_SETS, "kinetics-400", replace(datasets.get("kinetics-400"), input=(3, 4, 16, 16), classes=2)
    )
    for split, count in (("train", 6), ("val", 3)):
        for c, name in enumerate(("dark", "bright")):
            (tmp_path / "mine" / split / name).mkdir(parents=True)
            for i in range(count):
                with av.open(str(tmp_path / "mine" / split / name / f"{i}.mp4"), mode="w") as out:
                    stream = out.add_stream("mpeg4", rate=25)
                    stream.width, stream.height, stream.pix_fmt = 32, 24, "yuv420p"
                    for t in range(12):
                        picture = np.full((24, 32, 3), 120 * c + 5 * t + i, np.uint8)
                        out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
                    out.mux(stream.encode())
    recipe = recipes.Recipe(
        epochs=15,
        batch=4,
        lr=0.05,
        short_side=(17, 20),
        flip=True,
        dropout=0.1,
        frame_step=2,
        precision="fp32",
        clips=2,
        crops=3,
    )
    network = resnet({"depth": 8, "stem": STEM}, (3, 4, 16, 16), 2)
    row = run_trial(
        spec(
            tmp_path,
            tmp_path,
            architecture=to_dict(network),
            recipe=recipes.to_dict(recipe),
            data={"name": "kinetics-400", "root": str(tmp_path / "mine"), "validation": 4, "classes": 2},
        )
    )
    assert row.status == "complete", row.detail
    assert row.test_top1_error == 0.0


@pytest.mark.parametrize("augment", [{"crop": 2}, {"scale": (0.5, 1.0)}])
def test_clips_in_memory_are_augmented_as_a_whole(augment: dict[str, Any]) -> None:
    """Every frame of a clip whose frames are alike is augmented alike; kinetics-shapes is such a split of clips."""
    frame = torch.randint(0, 256, (6, 3, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    split = data.Split(frame.expand(-1, -1, 5, -1, -1).contiguous().numpy(), np.arange(6))
    source = to_device(split, replace(datasets.get("kinetics-shapes"), input=(3, 5, 8, 8)), torch.device("cpu"))
    assert source.mean.shape == (3, 1, 1, 1)
    view = View(recipes.Recipe(epochs=1, flip=True, **augment), 1, 0, (8, 8))
    ((found, labels),) = source.train_batches(view, (torch.arange(6),), 0)
    assert found.shape == (6, 3, 5, 8, 8)
    assert labels.tolist() == list(range(6))
    assert all(torch.equal(found[:, :, t], found[:, :, 0]) for t in range(5))
    single = to_device(data.Split(split.images[:, :, 0], split.labels), datasets.get("imagenet"), torch.device("cpu"))
    ((expected, _),) = single.train_batches(view, (torch.arange(6),), 0)
    assert torch.equal(found[:, :, 3], expected)
    ((whole, _),) = source.eval_batches(view, 6)
    assert torch.equal(whole, torch.from_numpy(split.images))


def test_a_folder_of_other_classes_is_told_before_training(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has 2 classes, but imagenet has 1,000; if a subset is meant, declare it"):
        Trial(spec(tree, tmp_path, data={"name": "imagenet", "root": str(tree), "validation": None}))
