"""Recipes by name: each against what its paper prints, and what a study may put in the place of their values."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pyconv_search.arch.published.results import PublishedRecipe, result_tables
from pyconv_search.errors import UserError
from pyconv_search.fields import Fields, Problems, SpecError
from pyconv_search.report.recipes import differences
from pyconv_search.study.presets import ABOUT, RECIPES, merged
from pyconv_search.study.recipe import Recipe, essence, from_dict, read_recipe, to_dict
from pyconv_search.study.study import load_study

Write = Callable[..., Path]

# The recipe that stands for a published one, and a printed table whose rows were trained by it.
PAPERS = {
    "pyconv-imagenet": ("pyconv-imagenet", "pyconv/table2"),
    "pyconv-imagenet-cutmix": ("pyconv-cutmix", "pyconv/supplement-table4-224"),
    "pyconv-video": ("pyconv-kinetics", "pyconv/supplement-table3"),
    "psconv-imagenet": ("psconv-imagenet", "psconv/table1"),
}
# Every value of a recipe with its default, in the order of its file. A change here changes what old studies mean.
FROZEN = {
    "batch": 128, "accumulate": 1, "lr": 0.1, "lr_batch": 0, "momentum": 0.9, "nesterov": False, "weight_decay": 1e-4,
    "decay_norms": True, "schedule": "cosine", "steps": (), "gamma": 0.1, "warmup": 0.0, "clip": 0.0, "ema": 0.0,
    "zero_init": False, "label_smoothing": 0.0, "dropout": 0.0, "crop": 0, "scale": (0.0, 0.0), "short_side": (0, 0),
    "flip": False, "cutout": 0, "cutmix": 0.0, "mixup": 0.0, "mix": 1.0, "resolution": 1.0, "resolution_until": 0.0,
    "center": 0.875, "mirror": False, "frame_step": 1, "clips": 1, "crops": 1, "precision": "auto",
    "channels_last": True, "compile": "none", "deterministic": True, "select": "last",
}  # fmt: skip


def read(recipe: Any) -> Recipe:
    problems = Problems()
    found = read_recipe(Fields({"recipe": recipe}, (), problems))
    problems.check()
    return found


def published() -> dict[str, PublishedRecipe]:
    return {row.recipe.name: row.recipe for table in result_tables().values() for row in table.rows}


def test_the_values_of_a_recipe_and_their_defaults_are_these() -> None:
    named = {field.name: field.default for field in dataclasses.fields(Recipe)}
    assert named.pop("epochs") is dataclasses.MISSING
    assert list(named.items()) == list(FROZEN.items())
    assert dataclasses.asdict(read({"epochs": 7})) == {"epochs": 7, **FROZEN}


@pytest.mark.parametrize("name", RECIPES)
def test_every_named_recipe_reads_and_is_plain_json(name: str) -> None:
    recipe = read(name)
    assert recipe == read({"preset": name}) == read(RECIPES[name]) == from_dict(to_dict(recipe))
    assert recipe.epochs == RECIPES[name]["epochs"]
    assert ABOUT[name].endswith(".")


def test_every_named_recipe_has_a_source() -> None:
    assert list(ABOUT) == list(RECIPES)


@pytest.mark.parametrize(("name", "paper"), [(name, paper) for name, (paper, _) in PAPERS.items()])
def test_a_papers_recipe_has_every_value_that_the_paper_prints(name: str, paper: str) -> None:
    recipe, printed = read(name), published()[paper]
    stated = {f.name: getattr(printed, f.name) for f in dataclasses.fields(printed) if f.name not in ("name", "note")}
    for key, value in stated.items():
        assert value is None or getattr(recipe, key) == value
    assert sum(value is not None for value in stated.values()) >= 3
    assert not [told for told in differences(printed, to_dict(recipe)) if "published" in told and "here" in told]
    if printed.lr is not None:
        assert recipe.peak == printed.lr


@pytest.mark.parametrize(("paper", "reference"), PAPERS.values())
def test_the_tables_were_trained_by_these_recipes(paper: str, reference: str) -> None:
    assert paper in {row.recipe.name for row in result_tables()[reference].rows}


def test_what_the_papers_say_in_words() -> None:
    """PyConv, section 6 and supplement; PSConv, section 4.1; ResNeXt, section 5.3: what has no column of its own."""
    imagenet, cutmix, video = read("pyconv-imagenet"), read("pyconv-imagenet-cutmix"), read("pyconv-video")
    for recipe in (imagenet, cutmix, read("psconv-imagenet")):
        assert (recipe.scale, recipe.flip, recipe.crop, recipe.center) == ((0.08, 1.0), True, 0, 224 / 256)
    assert (imagenet.select, read("psconv-imagenet").select) == ("last", "best")
    assert (imagenet.cutmix, imagenet.warmup, imagenet.precision) == (0.0, 0.0, "auto")
    assert (cutmix.cutmix, cutmix.precision, cutmix.peak) == (1.0, "fp16", pytest.approx(0.4))
    assert (video.dropout, video.frame_step, video.clips, video.crops, video.short_side) == (0.5, 4, 10, 3, (256, 320))
    cifar = read("resnext-cifar")
    assert (cifar.epochs, cifar.batch, cifar.peak, cifar.momentum) == (300, 128, 0.1, 0.9)
    assert (cifar.weight_decay, cifar.steps, cifar.gamma) == (5e-4, (150, 225), 0.1)
    assert (cifar.crop, cifar.flip, cifar.scale) == (4, True, (0.0, 0.0))


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize(
    ("given", "changed"),
    [
        ({"lr": 0.025}, {"lr": 0.025}),
        ({"batch": 512, "precision": "fp32"}, {"batch": 512, "precision": "fp32"}),
        ({"augment": {"cutmix": 0.3}}, {"cutmix": 0.3}),
        ({"augment": {"flip": False, "mixup": 0.2}}, {"flip": False, "mixup": 0.2}),
        ({"clips": {"count": 5}}, {"clips": 5}),
        ({"resolution": {"start": 0.5, "until": 0.7}}, {"resolution": 0.5, "resolution_until": 0.7}),
        ({"schedule": "constant"}, {"schedule": "constant", "steps": (), "gamma": 0.1}),
        ({"schedule": {"steps": [2, 3], "gamma": 0.5}}, {"schedule": "steps", "steps": (2, 3), "gamma": 0.5}),
    ],
)
def test_what_is_given_replaces_that_and_nothing_else(
    name: str, given: dict[str, Any], changed: dict[str, Any]
) -> None:
    assert read({"preset": name, **given}) == dataclasses.replace(read(name), **changed)


def test_another_way_to_crop_takes_the_papers_out(write_study: Write) -> None:
    with pytest.raises(UserError, match="is another way to crop than crop; leave one of them out"):
        load_study(write_study(recipe={"preset": "psconv-imagenet", "augment": {"crop": 4}}))
    recipe = read({"preset": "psconv-imagenet", "augment": {"crop": 4, "scale": [0, 0]}})
    assert (recipe.crop, recipe.scale, recipe.flip) == (4, (0.0, 0.0), True)


@pytest.mark.parametrize(
    ("name", "epochs", "steps"),
    [
        ("pyconv-imagenet", 90, (30, 60, 80)),
        ("pyconv-imagenet", 180, (60, 120, 160)),
        ("pyconv-imagenet", 9, (3, 6, 8)),
        ("pyconv-imagenet", 2, (1,)),
        ("pyconv-imagenet", 1, ()),
        ("resnext-cifar", 30, (15, 22)),
        ("psconv-imagenet", 30, ()),
    ],
)
def test_the_steps_keep_their_share_of_other_epochs(name: str, epochs: int, steps: tuple[int, ...]) -> None:
    recipe = read({"preset": name, "epochs": epochs})
    assert (recipe.epochs, recipe.steps) == (epochs, steps)
    assert recipe.schedule == read(name).schedule
    own = read({"preset": name, "epochs": 50, "schedule": {"steps": [7]}})
    assert own.steps == (7,)


def test_a_gamma_alone_leaves_the_steps() -> None:
    recipe = read({"preset": "pyconv-imagenet", "epochs": 45, "schedule": {"gamma": 0.2}})
    assert (recipe.steps, recipe.gamma) == ((15, 30, 40), 0.2)


def test_merging_changes_neither_side() -> None:
    base, given = (
        {"epochs": 10, "schedule": {"steps": [5]}, "augment": {"crop": 4}},
        {"epochs": 20, "augment": {"mix": 1}},
    )
    assert merged(base, given) == {
        "epochs": 20, "schedule": {"steps": [10]}, "augment": {"crop": 4, "mix": 1}}  # fmt: skip
    assert base == {"epochs": 10, "schedule": {"steps": [5]}, "augment": {"crop": 4}}
    assert given == {"epochs": 20, "augment": {"mix": 1}}


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ("pyconv-imagnet", "recipe.preset: must be one of pyconv-imagenet,"),
        ("pyconv-imagnet", "did you mean pyconv-imagenet?"),
        (
            {"preset": "psconv-imagenet", "epochs": 0},
            "recipe.epochs: must be an integer between 1 and 100000, but got 0",
        ),
        ({"preset": "resnext-cifar", "augment": {"crp": 2}}, "recipe.augment.crp: unknown key; did you mean crop?"),
        ({"preset": "resnext-cifar", "augment": 3}, "recipe.augment: must be a mapping"),
        ({"preset": 4}, "recipe.preset: must be one of"),
        (["resnext-cifar"], "recipe: must be the name of a recipe or a mapping of values, but got a list"),
    ],
)
def test_mistakes(write_study: Write, recipe: Any, words: str) -> None:
    path = write_study(recipe=recipe)
    with pytest.raises(UserError) as caught:
        load_study(path)
    assert words in str(caught.value)
    assert str(caught.value).startswith(f"{path}:")


def test_a_warm_up_takes_a_third_of_fewer_epochs_at_most() -> None:
    assert read({"preset": "fast-small-images", "epochs": 14}).warmup == 3
    assert read({"preset": "fast-small-images", "epochs": 3}).warmup == 1
    assert read({"preset": "fast-small-images", "epochs": 3, "warmup": 2}).warmup == 2


@pytest.mark.parametrize("key", ["augment", "schedule", "lr", "preset", "epochs"])
def test_a_key_without_a_value_is_a_mistake(key: str) -> None:
    with pytest.raises(SpecError) as caught:
        read({"preset": "pyconv-imagenet", key: None})
    assert str(caught.value).splitlines()[0].startswith(f"recipe.{key}: has no value; write one behind it")
    assert len(caught.value.problems) == 1


def test_what_identifies_a_recipe_is_what_is_not_at_its_default() -> None:
    recipe = read({"epochs": 7, "lr": 0.3, "augment": {"scale": [0.5, 1.0]}})
    assert essence(recipe) == {"epochs": 7, "lr": 0.3, "scale": [0.5, 1.0]}
    assert from_dict(essence(recipe)) == recipe
    with pytest.raises(UserError, match=r"recipe\.colour: this version of pyconv-search knows no such value"):
        from_dict({"epochs": 7, "colour": 1})
