"""What `plan` counts, against the files that lie there and what a run of the same study writes down."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from pyconv_search.errors import UserError
from pyconv_search.search.folder import open_folder
from pyconv_search.study import plan
from pyconv_search.study.study import Study, load_study

Said = tuple[int, str, str]
SPACE = {
    "space": "small",
    "parameters": {"width": {"choice": [8, 16, 128]}, "pattern": {"choice": [[1, 2], [1, 2, 1, 2]]}},
    "network": {"depth": 18, "stem": {"width": 8}, "width": "$width", "pattern": "$pattern"},
    "constraints": ["macs <= 200M"],
}


@pytest.fixture
def mine(tmp_path: Path) -> Callable[..., Path]:
    """Write a study of two classes of one's own images, so many for each class and split; return its path."""

    def write(train: int = 12, val: int = 3, **changes: object) -> Path:
        rng = np.random.default_rng(0)
        for split, images in (("train", train), ("val", val)):
            for folder in ("cats", "dogs"):
                place = tmp_path / "mine" / split / folder
                place.mkdir(parents=True, exist_ok=True)
                for i in range(images):
                    Image.fromarray(rng.integers(0, 255, (16, 16, 3), np.uint8)).save(place / f"{i}.png")
        study = {
            "study": "mine",
            "space": "space.yaml",
            "data": {"imagenet": {"root": str(tmp_path / "mine"), "classes": 2}},
            "recipe": {"epochs": 3, "batch": 8},
            "search": {"rows": [{"width": 8, "pattern": [1, 2]}]},
            "seeds": 2,
            **changes,
        }
        (tmp_path / "space.yaml").write_text(yaml.safe_dump(SPACE, sort_keys=False))
        (tmp_path / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
        return tmp_path / "study.yaml"

    return write


def test_ones_own_images_are_counted_as_the_run_counts_them(
    command: Callable[..., Said], mine: Callable[..., Path], tmp_path: Path
) -> None:
    path = mine()
    planned = json.loads(command("plan", path, "--images-per-second", 100, "--json")[1])
    study, values = open_folder(load_study(path), tmp_path / "run", "")
    images = planned["images"]
    assert images["train"] + images["validation"] == 24
    assert (images["test"], images["estimated"], images["found_at"]) == (6, False, str(tmp_path / "mine"))
    assert (images["train"], planned["trials"]) == (values["data"]["train"], values["planned"])
    assert (study.data.train, study.data.held_out) == (images["train"], images["validation"])
    (network,) = planned["networks"]
    assert planned["training_macs"] == 2 * 3 * 3 * images["train"] * network["macs"]
    assert planned["estimate"]["training_seconds"] == pytest.approx(2 * 3 * images["train"] / 100)
    said = command("plan", path, "--no-measure")[1]
    assert f"imagenet: {images['train']} images to train on, {images['validation']} to validate, 6 to test" in said
    assert f"counted in {tmp_path / 'mine'}" in said


def test_images_that_are_elsewhere_are_estimated_and_said_to_be(
    command: Callable[..., Said], mine: Callable[..., Path]
) -> None:
    path = mine(data={"imagenet": {"root": "/nowhere", "classes": 2}})
    said = command("plan", path, "--no-measure")[1]
    expected = "imagenet: about 2,462 images to train on, 100 to validate, 100 to test, by the data set's description"
    assert f"{expected}; it is not on this machine\n" in said
    assert json.loads(command("plan", path, "--no-measure", "--json")[1])["images"]["estimated"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"recipe": {"epochs": 1, "batch": 64}}, "recipe.batch: a batch of 64, but there are"),
        ({"data": {"imagenet": {"root": "mine", "classes": 3}}}, "2 classes, but classes: 3 is declared"),
    ],
)
def test_what_the_run_will_refuse_is_refused(
    command: Callable[..., Said],
    mine: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, object],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    status, _, error = command("plan", mine(**changes), "--no-measure")
    assert status == 1
    assert words in error


def test_batches_that_an_adaptive_search_may_propose_are_compared_with_the_images_that_there_are(
    mine: Callable[..., Path], tmp_path: Path
) -> None:
    """Of 2,462 images, the estimate of two classes, 64 are a batch; of the 22 that lie there they are not."""
    path = mine(search={"tpe": {"trials": 2}})
    space = {
        **SPACE,
        "parameters": {**SPACE["parameters"], "batch": {"choice": [8, 64]}},
        "recipe": {"batch": "$batch"},
    }
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(space, sort_keys=False))
    study = load_study(path)
    with pytest.raises(
        UserError, match=r"space\.yaml:\d+:\d+ parameters\.batch.*a batch of 64, but there are 2\d images"
    ):
        open_folder(study, tmp_path / "run", "")


def test_a_start_works_out_the_networks_once(
    mine: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Study] = []
    usual = plan._candidates
    monkeypatch.setattr(plan, "_candidates", lambda study: [made.append(study), *usual(study)][1:])
    study, _ = open_folder(load_study(mine()), tmp_path / "run", "")
    assert len(plan.candidates(study)) == 1
    assert len(made) == 1


@pytest.mark.parametrize("kind", ["random", "tpe"])
def test_networks_that_there_are(command: Callable[..., Said], mine: Callable[..., Path], kind: str) -> None:
    """Of six assignments two pairs satisfy the constraint at 224×224, and each pair is one network."""
    path = mine(search={kind: {"trials": 4}})
    status, said, _ = command("plan", path, "--no-measure")
    assert status == 0
    assert f"4 trials: 2 networks ({kind}) × 2 seeds, 12 epochs in all\n" in said
    assert "4 were asked for, but the space holds no more than 2 networks at 3×224×224, the data's size\n" in said


def test_constraints_say_at_which_size_they_do_not_hold(
    command: Callable[..., Said], mine: Callable[..., Path]
) -> None:
    path = mine(search={"rows": [{"width": 128, "pattern": [1, 2]}]})
    status, _, error = command("plan", path, "--no-measure")
    assert status == 1
    at = r"does not satisfy the space's constraint macs <= 200M \(macs is [\d,]+ at 3×224×224 and 2 classes, the data's\)"

    assert re.search(at, error)


def test_a_space_is_described_at_the_size_of_a_data_set(
    command: Callable[..., Said], mine: Callable[..., Path]
) -> None:
    space = mine().with_name("space.yaml")
    own = json.loads(command("space", "describe", space, "--json")[1])
    at = {
        name: json.loads(command("space", "describe", space, "--data", *name.split(), "--json")[1])
        for name in ("cifar10", "imagenet --classes 2")
    }
    assert (own["input"], own["classes"], own["networks"]) == ([3, 224, 224], 1000, 2)
    assert [(d["input"], d["classes"], d["networks"]) for d in at.values()] == [
        ([3, 32, 32], 10, 3),
        ([3, 224, 224], 2, 2),
    ]
    said = command("space", "describe", space, "--data", "cifar10")[1]
    assert "costs of the accepted networks at 3×32×32 and 10 classes, those of cifar10\n" in said
    assert command("space", "check", space, "--data", "cifar10")[0] == 0
    small = json.loads(command("space", "sample", space, "--data", "cifar10")[1])
    assert small["architecture"]["input"] == [3, 32, 32]
    assert "goes with --data" in command("space", "check", space, "--classes", "2")[2]
    assert "is for 3×224×224, but kinetics-400 has" in command("space", "describe", space, "--data", "kinetics-400")[2]


def test_smaller_images_take_fewer_multiply_adds(command: Callable[..., Said], tiny_study: Callable[..., Path]) -> None:
    recipe = {"epochs": 4, "batch": 128, "resolution": {"start": 0.5, "until": 0.5}}
    plan = json.loads(command("plan", tiny_study(recipe=recipe), "--no-measure", "--json")[1])
    pixels = (16**2 + 20**2 + 2 * 28**2) / 28**2
    expected = sum(3 * 10_000 * pixels * network["macs"] for network in plan["networks"])
    assert plan["training_macs"] == pytest.approx(expected, rel=1e-6)
