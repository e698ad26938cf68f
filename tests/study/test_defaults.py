"""A default is what its own reader accepts: written out, it means what leaving it out means."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from pyconv_search.study import datasets
from pyconv_search.study.presets import RECIPES
from pyconv_search.study.recipe import NESTED, Recipe, to_dict
from pyconv_search.study.study import Study, load_study, study_to_dict

Write = Callable[..., Path]


def meaning(study: Study) -> dict[str, Any]:
    return {key: value for key, value in study_to_dict(study).items() if key != "source"}


def written_out(recipe: Recipe) -> dict[str, Any]:
    """Every value of a recipe, as a study writes it."""
    values: dict[str, Any] = {}
    steps = recipe.schedule == "steps"
    for name, value in to_dict(recipe).items():
        section, key = NESTED.get(name, ("", name))
        if section == "schedule":
            continue
        if name in ("resolution", "clips"):
            section, key = name, {"resolution": "start", "clips": "count"}[name]
        (values.setdefault(section, {}) if section else values)[key] = value
    values["schedule"] = {"steps": list(recipe.steps), "gamma": recipe.gamma} if steps else recipe.schedule
    return values


@pytest.mark.parametrize(
    "search",
    ["grid", {"random": {"trials": 3}}, {"tpe": {"trials": 3}}, {"rows": [{"levels": [2, 2, 1], "width": 8}]}],
    ids=["grid", "random", "tpe", "rows"],
)
def test_a_study_with_every_default_written_out_is_the_same(write_study: Write, search: Any) -> None:
    short = load_study(write_study(search=search))
    options = {"seed": short.search.seed} | ({"startup": short.search.startup} if short.search.kind == "tpe" else {})
    full = search if short.search.kind in ("grid", "rows") else {short.search.kind: {"trials": 3, **options}}
    study = load_study(
        write_study(
            about=short.about,
            data={short.data.info.name: {"validation": short.data.info.validation}},
            recipe=written_out(short.recipe),
            search=full,
            scheduler={"none": {}},
            seeds=list(short.seeds),
            objectives=dict(short.objectives),
            resources=asdict(short.resources),
            weights="keep",
            checkpoints=asdict(short.checkpoints),
        )
    )
    expected = meaning(short)
    expected["data"] = expected["data"] | {"validation": short.data.info.validation}
    assert meaning(study) == expected


@pytest.mark.parametrize("name", RECIPES)
def test_a_named_recipe_written_out_is_the_same(write_study: Write, name: str) -> None:
    if name == "pyconv-video" or "scale" in RECIPES[name]["augment"]:
        data = "kinetics-400" if name == "pyconv-video" else "imagenet"
    else:
        data = "fashion-mnist"
    video = "space: v\nnetwork: {depth: 18, input: [3, 16, 224, 224]}\n"
    space = video if data == "kinetics-400" else "space: s\nnetwork: {depth: 20}\n"
    short = load_study(write_study(space_text=space, data=data, recipe=name))
    full = load_study(write_study(space_text=space, data=data, recipe=written_out(short.recipe)))
    assert full.recipe == short.recipe


@pytest.mark.parametrize("name", datasets.DATA_SETS)
def test_the_usual_validation_images_may_be_asked_for(name: str) -> None:
    info = datasets.get(name)
    low, high = datasets.held_out_bounds(info)
    assert low <= info.validation <= high


@pytest.mark.parametrize("classes", [2, 3, 10, 250, 1000])
@pytest.mark.parametrize("images", [2, 3, 24, 60, 1000, 12_812, 1_281_167])
def test_a_subset_holds_out_what_may_be_asked_for(classes: int, images: int) -> None:
    whole = datasets.get("imagenet")
    part = datasets.parted(datasets.get("imagenet", classes), images, whole)
    low, high = datasets.held_out_bounds(part)
    assert part.train + part.validation == images
    assert low <= part.validation <= high
    assert part.validation == max(low, round(images * 50_000 / 1_281_167))
