"""Studies: what they resolve to, and the messages for mistakes."""

from __future__ import annotations

import json
import math
import pwd
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pyconv_search.errors import UserError
from pyconv_search.study.plan import candidates, trial_id, trial_spec
from pyconv_search.study.recipe import from_dict, to_dict
from pyconv_search.study.study import load_study, study_to_dict

Write = Callable[..., Path]


def test_defaults_are_safe(write_study: Write) -> None:
    study = load_study(write_study())
    assert (study.seeds, study.scheduler.kind, study.keep_weights) == ((0,), "none", True)
    assert (study.resources.cpu, study.resources.gpu) == (1, 0.0)
    assert dict(study.objectives) == {"top1_error": "min"}
    assert study.data.info.input == (1, 28, 28)


def test_a_trial_of_several_workers(write_study: Write) -> None:
    found = load_study(write_study(resources={"gpu": 8, "cpu": 16}))
    assert (found.resources.workers, found.resources.threads, found.resources.computes_on) == (8, 2, "8 × cuda")
    found = load_study(write_study(resources={"workers": 2, "cpu": 2}))
    assert (found.resources.workers, found.resources.threads, found.resources.gpu) == (2, 1, 0)
    assert study_to_dict(found)["computes_on"] == "2 × cpu, 1 threads"
    assert study_to_dict(found)["resources"] == {"cpu": 2, "gpu": 0.0, "workers": 2, "together": 1}
    assert load_study(write_study(resources={"gpu": 0.25})).resources.computes_on == "cuda"


def test_the_papers_recipes_can_be_written(write_study: Write) -> None:
    pyconv = load_study(
        write_study(recipe={"epochs": 90, "batch": 256, "lr": 0.1, "schedule": {"steps": [30, 60, 80]}})
    )
    assert (pyconv.recipe.schedule, pyconv.recipe.steps, pyconv.recipe.gamma) == ("steps", (30, 60, 80), 0.1)
    text = {"epochs": 120, "batch": 256, "weight_decay": "1e-4", "label_smoothing": 0.1, "warmup": 2.5,
            "augment": {"crop": 4, "flip": True}, "precision": "bf16"}  # fmt: skip
    path = write_study(recipe=text)
    path.write_text(path.read_text().replace("'1e-4'", "1e-4"))
    recipe = load_study(path).recipe
    assert (recipe.schedule, recipe.weight_decay, recipe.warmup, recipe.crop, recipe.flip) == (
        "cosine",
        1e-4,
        2.5,
        4,
        True,
    )
    assert from_dict(json.loads(json.dumps(to_dict(recipe)))) == recipe


def test_a_resolved_study_is_plain_json_in_the_order_of_its_file(write_study: Write) -> None:
    study = load_study(write_study(objectives={"loss": "min", "top1_error": "min", "gmacs": "min"}, seeds=[3, 1]))
    values = json.loads(json.dumps(study_to_dict(study)))
    assert list(values["objectives"]) == ["loss", "top1_error", "gmacs"]
    assert study.measure == "loss"
    assert list(values["space"]["parameters"]) == ["levels", "pattern", "width"]
    assert (values["seeds"], values["input"], values["classes"]) == ([3, 1], [1, 28, 28], 10)
    assert "parameters:" in values["source"]["space"]


def test_the_root_of_the_data_may_name_an_environment_variable(
    write_study: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_study(data={"fashion-mnist": {"root": "$FASHION/raw", "validation": 1000}})
    monkeypatch.delenv("FASHION", raising=False)
    with pytest.raises(UserError, match="environment variable FASHION is not set"):
        load_study(path)
    monkeypatch.setenv("FASHION", "/somewhere")
    data = load_study(path).data
    assert (data.root, data.validation) == ("/somewhere/raw", 1000)


def test_a_home_that_is_not_known_is_told_where_the_root_stands(
    write_study: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_study(data={"fashion-mnist": {"root": "~/raw"}})
    monkeypatch.setenv("HOME", "/somewhere")
    assert load_study(path).data.root == "/somewhere/raw"
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)
    with pytest.raises(UserError, match=r":\d+:\d+ data\.fashion-mnist\.root: ~/raw: the home folder is not known"):
        load_study(path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data": "cifar11"}, "did you mean"),
        ({"data": {"cifar10": {"rot": "x"}}}, "data.cifar10.rot: unknown key; did you mean root?"),
        ({"data": None}, "data: is required, but missing"),
        ({"data": {"imagenet": {"classes": 1001}}}, "data.imagenet.classes: imagenet: classes is 1001, but must be between 2 and 1,000"),
        ({"data": {"cifar10": {"classes": 5}}}, "data.cifar10.classes: cifar10: has 10 classes, and none of them can be left out"),
        ({"data": "imagenet", "recipe": {"epochs": 2, "augment": {"crop": 4}}}, "recipe.augment.crop: pads small images of one size, but those of imagenet"),
        ({"recipe": {"epochs": 2, "augment": {"short_side": [28, 32]}}}, "recipe.augment.short_side: resizes large images of any size, but those of fashion-mnist-small are all 28×28 pixels"),
        ({"space": "nowhere.yaml"}, "no such file"),
        ({"recipe": {"epochs": 0}}, "recipe.epochs: must be an integer between 1 and 100000, but got 0; nearest: 1"),
        ({"recipe": {"epoch": 2}}, "recipe.epoch: unknown key; did you mean epochs?"),
        ({"recipe": {"epochs": 2, "lr": -1}}, "recipe.lr: must be 0 or more, but got -1"),
        ({"recipe": {"epochs": 2, "lr": "high"}}, "recipe.lr: must be a number"),
        ({"recipe": {"epochs": 9, "schedule": {"steps": [6, 3]}}}, "recipe.schedule.steps: must ascend"),
        ({"recipe": {"epochs": 9, "schedule": {"steps": [9]}}}, "stay below the 9 epochs"),
        ({"recipe": {"epochs": 9, "schedule": "cosin"}}, "recipe.schedule: must be cosine, linear, constant, or {steps: [30, 60, 80], gamma: 0.1}"),
        ({"recipe": {"epochs": 9, "precision": "fp8"}}, "must be one of auto, fp32, bf16, fp16, but got 'fp8'"),
        ({"recipe": {"epochs": 2, "flip": True}}, "recipe.flip: stands under augment: augment: {flip: …}"),
        ({"recipe": {"epochs": 2, "augment": {"mix": 0.5}}}, "recipe.augment.mix: is the share of batches that cutmix or mixup changes"),
        ({"recipe": {"epochs": 2, "resolution": {"start": 0.5}}}, "recipe.resolution.start: and until go together"),
        ({"recipe": {"epochs": 2, "accumulate": 3}}, "recipe.accumulate: 3 does not divide the batch of 128; nearest: 2"),
        ({"recipe": {"epochs": 2, "ema": 1.0}}, "recipe.ema: must be below 1, but got 1"),
        ({"recipe": {"epochs": 2, "augment": {"scale": [0.9, 0.5]}}}, "recipe.augment.scale: must be two ascending numbers between 0.001 and 1"),
        ({"recipe": {"epochs": 2, "augment": {"crop": 4, "scale": [0.5, 1]}}}, "recipe.augment.scale: is another way to crop than crop"),
        ({"recipe": {"preset": "psconv-imagenet", "epochs": 30, "schedule": {"gamma": 0.2}}}, "recipe.schedule.steps: is required, but missing"),
        ({"recipe": "pyconv-imagnet"}, "did you mean pyconv-imagenet?"),
        ({"recipe": ["pyconv-imagenet"]}, "recipe: must be the name of a recipe or a mapping of values"),
        ({"recipe": {"epochs": 2, "nesterov": True, "momentum": 0}}, "recipe.nesterov: needs a momentum above 0"),
        ({"search": {"random": {"trials": 10**9}}}, "search.random.trials: must be an integer between 1 and 100000"),
        ({"search": {"tpe": {"trials": 29}}}, "search.tpe.trials: the space holds 20 assignments, but got 29; nearest: 20, or grid"),
        ({"scheduler": "ahsa"}, "but got 'ahsa'; did you mean asha?"),
        ({"search": "gird"}, "search: must be one of rows, grid, random, tpe"),
        ({"search": {"random": {}}}, "search.random.trials: is required, but missing"),
        ({"search": {"tpe": {"trials": 5, "seed": "abc"}}}, "search.tpe.seed: must be an integer between 0 and 2147483647, but got a text"),
        ({"search": {"rows": []}}, "search.rows: must list at least one row"),
        ({"search": {"rows": [{"levels": [2, 2, 1], "width": 9}]}}, "search.rows[0].width: 9 is not in the space"),
        ({"search": {"rows": [{"levels": [2, 2, 1], "width": 8}] * 2}}, "search.rows[1]: is the same as rows[0]"),
        ({"scheduler": {"asha": {"grace": 5}}}, "scheduler.asha.grace: must be an integer between 1 and 2, the epochs, but got 5; nearest: 2"),
        ({"scheduler": "hyperband"}, "scheduler: must be one of none, asha"),
        ({"seeds": 0}, "seeds: must be an integer between 1 and 1000"),
        ({"seeds": [1, 1]}, "seeds: must be a count, or a list of different integers"),
        ({"objectives": {"gmacs": "min"}}, "objectives: must hold at least one of top1_error"),
        ({"objectives": {"top1": "min"}}, "objectives.top1: unknown key; did you mean top1_error?"),
        ({"objectives": {"top1_error": "max"}}, "objectives.top1_error: must be one of min"),
        ({"resources": {"gpu": 1.5}}, "resources.gpu: must be a fraction of one GPU or a whole number"),
        ({"resources": {"gpus": 1}}, "resources.gpus: unknown key; did you mean gpu?"),
        ({"resources": {"together": 0}}, "resources.together: must be an integer between 1 and 1000, but got 0"),
        ({"resources": {"together": "all"}}, "resources.together: must be a number of trials, or auto, but got 'all'"),
        ({"resources": {"together": 2, "workers": 2, "cpu": 2}}, "resources.together: needs trials of one process"),
        ({"resources": {"together": 2}, "scheduler": "asha"}, "resources.together: needs scheduler: none, but got asha"),
        ({"resources": {"together": "auto"}, "search": {"tpe": {"trials": 2}}}, "resources.together: auto measures every"),
        ({"resources": {"gpu": 4, "cpu": 6}}, "resources.cpu: 6 cores cannot be divided by 4 workers; nearest: 8"),
        ({"resources": {"gpu": 4, "workers": 2}}, "resources.workers: each has one GPU, of which there are 4; nearest: 4"),
        ({"resources": {"gpu": 0.5, "workers": 2}}, "each has one GPU, of which there are 0.5; nearest: 1"),
        (
            {"resources": {"workers": 3, "cpu": 3}},
            "recipe.batch: 128 images cannot be divided by 3 workers; nearest: 129",
        ),
        (
            {"recipe": {"epochs": 1, "batch": 8}, "resources": {"workers": 8, "cpu": 8}},
            "recipe.batch: 8 images leave less than two for each of 8 workers, and batch normalisation needs two; nearest: 16",
        ),
        (
            {"recipe": {"epochs": 1, "batch": 16, "accumulate": 4}, "resources": {"workers": 4, "cpu": 4}},
            "less than two for each of 4 workers in 4 parts each, and batch normalisation needs two; nearest: 32",
        ),
        (
            {"recipe": {"epochs": 1, "batch": 60000}},
            "recipe.batch: a batch of 60000, but there are 10000 images to train on; nearest: 10000",
        ),
        ({"weights": "no"}, "weights: must be one of keep, discard"),
    ],
)  # fmt: skip
def test_mistakes_name_the_place_and_what_is_right(write_study: Write, changes: dict[str, Any], words: str) -> None:
    path = write_study(**changes)
    with pytest.raises(UserError) as caught:
        load_study(path)
    assert words in str(caught.value)
    assert all(line.startswith(f"{path}:") for line in str(caught.value).splitlines())


def test_several_mistakes_at_once(write_study: Write) -> None:
    path = write_study(recipe={"epochs": -1, "btch": 3}, seeds="x", resources={"cpu": 0})
    with pytest.raises(UserError) as caught:
        load_study(path)
    assert len(str(caught.value).splitlines()) == 4


VIDEO = """
space: video
network: {depth: 8, input: [3, 8, 32, 32], classes: 5, stem: {kernel: 3, width: 8, stride: 2, pool: none}, width: 8}
"""


def test_a_study_of_videos(write_study: Write) -> None:
    study = load_study(write_study(space_text=VIDEO, data="kinetics-400", recipe="pyconv-video"))
    (only,) = candidates(study)
    assert (only.architecture.input, only.architecture.classes) == ((3, 16, 224, 224), 400)
    assert (study.recipe.clips, study.recipe.crops, study.recipe.frame_step) == (10, 3, 4)
    assert study.data.key["classes"] == 400


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"space_text": VIDEO}, "space: the networks of 'video' are for videos, but fashion-mnist-small holds images"),
        ({"data": "kinetics-400"}, "space: the networks of 'small' are for images, but kinetics-400 holds videos"),
        (
            {"recipe": {"epochs": 2, "clips": {"count": 10}}},
            "recipe.clips: is for videos, but fashion-mnist-small holds images; leave it out",
        ),
    ],
)
def test_images_and_videos_are_told_apart(write_study: Write, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError) as caught:
        load_study(write_study(**changes))
    assert words in str(caught.value)


def test_recipes_of_the_space_fit_the_data_too(write_study: Write) -> None:
    text = VIDEO.replace("[3, 8, 32, 32]", "[3, 32, 32]") + "recipe: {augment: {crop: $crop}}\n"
    text += "parameters: {crop: {choice: [2, 4]}}\n"
    load_study(write_study(space_text=text))
    with pytest.raises(UserError) as caught:
        load_study(write_study(space_text=text, data="imagenet"))
    assert "space.yaml:" in str(caught.value)
    assert "parameters.crop.choice[0]: pads small images of one size, but those of imagenet" in str(caught.value)


def test_a_subset_has_as_many_outputs_as_it_has_classes(write_study: Write) -> None:
    subset = load_study(write_study(data={"imagenet": {"classes": 100, "root": "/data"}}, recipe="pyconv-imagenet"))
    assert subset.data.key == {"name": "imagenet", "root": "/data", "validation": None, "classes": 100}
    (first, *_), data = candidates(subset), study_to_dict(subset)["data"]
    assert (first.architecture.classes, first.architecture.input, data["classes"]) == (100, (3, 224, 224), 100)
    spec = trial_spec(subset, first, 0, None)
    assert spec["data"] == subset.data.key
    # 1,281,167 images of 1,000 classes, less 50,000 to validate with.
    assert subset.data.train == 123_116
    whole = load_study(write_study(data={"imagenet": {"root": "/data"}}, recipe="pyconv-imagenet"))
    assert whole.data.train == 1_231_167
    assert "classes" not in study_to_dict(whole)["data"]
    all_of_them = load_study(write_study(data={"imagenet": {"classes": 1000}}, recipe="pyconv-imagenet"))
    same = candidates(whole)[0]
    assert trial_id(whole, same, 0) != trial_id(all_of_them, same, 0)


def test_a_space_that_does_not_fit_the_data_is_told(write_study: Write) -> None:
    text = "space: deep\nnetwork: {depth: 18}\nparameters: {}\n"
    path = write_study(space_text=text.replace("depth: 18", "depth: 18, stem: {kernel: 7, stride: 8}"))
    with pytest.raises(UserError, match=r"28×28 pixels are too few: the network reduces each side 128 times"):
        load_study(path)


@pytest.mark.parametrize("file", sorted(Path(__file__).parents[2].glob("studies/*.yaml")), ids=lambda p: p.stem)
def test_shipped_studies_load_and_plan(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pyconv_search.study.plan import candidates, planned_trials

    for name in ("CIFAR", "IMAGENET"):
        monkeypatch.setenv(name, "/data")
    study = load_study(file)
    rows = candidates(study)
    assert planned_trials(study, len(rows)) >= len(study.seeds)
    for row in rows:
        assert row.architecture.input == study.data.info.input
        assert row.architecture.classes == study.data.info.classes


def test_a_grid_that_is_too_large_is_told_at_once(write_study: Write) -> None:
    text = "space: t\nparameters: {a: {int: [1, 20000]}, b: {int: [1, 20000]}}\nnetwork: {depth: 20}\n"
    with pytest.raises(UserError, match=r"search: a grid of 400,000,000 assignments is too large"):
        load_study(write_study(space_text=text))


def test_how_many_images_are_trained_on(write_study: Write) -> None:
    assert load_study(write_study()).data.train == 10_000
    assert load_study(write_study(data={"fashion-mnist-small": {"validation": 500}})).data.train == 11_500


@pytest.mark.parametrize(
    ("head", "trained"),
    [
        ("head: classifier", True),
        ("head: {kind: classifier}", True),
        ("head: {kind: fpn}", False),
    ],
)
def test_a_study_trains_classifiers(write_study: Write, head: str, trained: bool) -> None:
    space = f"space: s\nnetwork: {{preset: resnet-20-cifar+fpn, {head}}}"
    study = write_study(space_text=space, search={"rows": [{"name": "one"}]})
    if trained:
        assert load_study(study).space.settings["depth"] == 20
        return
    with pytest.raises(UserError, match="a study trains classifiers, but the networks of 's' have the head"):
        load_study(study)


def test_two_rows_of_one_name_are_told(write_study: Write) -> None:
    space = "space: s\nparameters: {levels: {choice: [1, 2]}}\nnetwork: {depth: 20, levels: $levels}"
    rows = [{"name": "one", "levels": 1}, {"name": "one", "levels": 2}]
    with pytest.raises(UserError, match=r"search.rows\[1\].name: 'one' is the name of two rows"):
        load_study(write_study(space_text=space, search={"rows": rows}))


def test_how_long_a_trial_may_make_no_progress(write_study: Write) -> None:
    for written, read, shown in ((None, None, None), (30, 30.0, 30.0), (0.5, 0.5, 0.5), ("none", math.inf, "none")):
        study = load_study(write_study(**({} if written is None else {"stall": written})))
        assert study.stall == read
        assert json.loads(json.dumps(study_to_dict(study)))["stall"] == shown
    for wrong in (0, -1, "never", [1]):
        with pytest.raises(UserError, match=r"stall: must be "):
            load_study(write_study(stall=wrong))
    with pytest.raises(UserError, match=r"stall: must be a number of minutes, or none, but got 'never'"):
        load_study(write_study(stall="never"))
