"""``recipes``, and what the other commands say of spaces that vary a recipe."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from pyconv_search.fields import Fields, Problems
from pyconv_search.study.presets import ABOUT, RECIPES
from pyconv_search.study.recipe import from_dict, read_recipe, to_dict

Said = tuple[int, str, str]
SPACE = "spaces/recipe_and_pattern_cifar.yaml"
STUDY = "studies/recipe_and_pattern_cifar10.yaml"


def test_every_recipe_is_listed_as_a_study_can_write_it(command: Callable[..., Said]) -> None:
    status, said, _ = command("recipes")
    assert status == 0
    blocks = {block.split("\n", 1)[0]: block for block in said.split("\n\n")[1:]}
    assert list(blocks) == list(RECIPES)
    for name, block in blocks.items():
        text = " ".join(block.split())
        assert ABOUT[name] in text
        problems = Problems()
        written = yaml.safe_load(text[text.index("{") :])
        found = read_recipe(Fields({"recipe": written}, (), problems))
        assert not problems.found
        assert found == read_recipe(Fields({"recipe": name}, (), problems))


def test_one_recipe_with_all_its_values(command: Callable[..., Said]) -> None:
    said = command("recipes", "pyconv-imagenet")[1]
    assert "steps             [30, 60, 80]" in said
    assert "PyConv, section 6" in said
    found = json.loads(command("recipes", "pyconv-imagenet", "--json")[1])
    assert found["values"] == RECIPES["pyconv-imagenet"]
    assert to_dict(from_dict(found["recipe"])) == found["recipe"]
    assert (found["recipe"]["steps"], found["about"]) == ([30, 60, 80], ABOUT["pyconv-imagenet"])
    assert [each["name"] for each in json.loads(command("recipes", "--json")[1])] == list(RECIPES)


def test_samples_tell_what_they_replace(command: Callable[..., Said]) -> None:
    for line in command("space", "sample", SPACE, "-n", 20, "--seed", 3)[1].splitlines():
        found = json.loads(line)
        values, recipe = found["parameters"], found["recipe"]
        assert recipe["lr"] == values["lr"]
        mixed = {"mix": values["mix"]} if values["cutmix"] else {}
        assert recipe["augment"] == {"cutmix": values["cutmix"], **mixed}


def test_a_space_is_described_with_its_recipe(command: Callable[..., Said]) -> None:
    said = command("space", "describe", SPACE)[1]
    assert "recipe, over the study's" in said
    assert "  label_smoothing  $smoothing" in said
    assert "576 assignments, exactly" in said
    assert "100.0% satisfy every constraint: 4 different networks" in said
    assert json.loads(command("space", "describe", SPACE, "--json")[1])["recipe"]["lr"] == "$lr"


@pytest.mark.slow
def test_a_plan_counts_the_epochs_of_every_recipe(
    command: Callable[..., Said], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CIFAR", "/data")
    assert json.loads(command("plan", STUDY, "--json")[1])["epochs_at_most"] == 60 * 30
    (tmp_path / "space.yaml").write_text(
        "space: s\nparameters: {n: {choice: [2, 10]}}\nnetwork: {depth: 8, input: [3, 32, 32]}\nrecipe: {epochs: $n}\n"
    )
    study = "study: s\nspace: space.yaml\ndata: cifar10\nrecipe: {epochs: 10}\nseeds: 3\nsearch: SEARCH\n"
    (tmp_path / "study.yaml").write_text(study.replace("SEARCH", "grid"))
    found = json.loads(command("plan", tmp_path / "study.yaml", "--json")[1])
    macs = found["networks"][0]["macs"]
    assert (found["trials"], found["epochs_at_most"]) == (6, 3 * (2 + 10))
    assert found["training_macs"] == 3 * 45_000 * 3 * (2 + 10) * macs
    assert [network["recipe"] for network in found["networks"]] == [{"epochs": 2}, {}]
    (tmp_path / "study.yaml").write_text(study.replace("SEARCH", "{tpe: {trials: 2}}"))
    assert json.loads(command("plan", tmp_path / "study.yaml", "--json")[1])["epochs_at_most"] == 6 * 10
