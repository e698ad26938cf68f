"""Recipe and architecture jointly: every assignment's recipe against the study that writes it out, and identities."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from pyconv_search.errors import UserError
from pyconv_search.fields import Fields, Problems
from pyconv_search.study.plan import candidate, candidates, trial_id, trial_spec
from pyconv_search.study.recipe import Recipe, from_dict, read_recipe, to_dict
from pyconv_search.study.study import Study, load_study, most_epochs, study_to_dict

Write = Callable[..., Path]
NETWORK = "network: {depth: 8, stem: {kernel: 3, width: 8, stride: 1, pool: none}, levels: $levels}\n"
PARAMETERS = "space: s\nparameters:\n  levels: {choice: [1, 2]}\n"
JOINT = f"""{PARAMETERS}
  lr: {{ordered: [0.1, 0.2]}}
  cutmix: {{choice: [0.0, 1.0]}}
  mix: {{choice: [0.5, 1.0], when: cutmix > 0}}
{NETWORK}recipe: {{lr: $lr, augment: {{cutmix: $cutmix, mix: $mix}}}}
"""


def joint(write: Write, recipe: Any = None, text: str = JOINT, **changes: Any) -> Study:
    return load_study(write(space_text=text, recipe=recipe or {"epochs": 2}, **changes))


def written(recipe: dict[str, Any]) -> Recipe:
    problems = Problems()
    found = read_recipe(Fields({"recipe": recipe}, (), problems))
    problems.check()
    return found


def searched(values: str, recipe: str) -> str:
    return f"{PARAMETERS}  r: {{choice: {values}}}\n{NETWORK}recipe: {recipe}\n"


@pytest.mark.parametrize(
    "given",
    [
        {"epochs": 2, "lr": 7.0, "batch": 64, "augment": {"crop": 4, "flip": True, "cutmix": 3.0}},
        {"epochs": 4, "schedule": {"steps": [2]}, "augment": {"mixup": 0.2}},
        "resnext-cifar",
        {"preset": "fast-small-images", "epochs": 5, "lr": 0.3, "augment": {"crop": 3}},
    ],
)
def test_an_assignments_recipe_is_what_a_study_would_write_out(write_study: Write, given: Any) -> None:
    study = joint(write_study, given)
    own = {"preset": given} if isinstance(given, str) else given
    for row in candidates(study):
        values = row.values
        augment = {**own.get("augment", {}), "cutmix": values["cutmix"]}
        augment |= {"mix": values["mix"]} if "mix" in values else {}
        assert row.recipe == written({**own, "lr": values["lr"], "augment": augment})
        assert row.overrides == {k: v for k, v in to_dict(row.recipe).items() if v != to_dict(study.recipe)[k]}
        assert from_dict(to_dict(study.recipe) | row.overrides) == row.recipe


def test_two_recipes_of_one_architecture_are_two_configurations(write_study: Write) -> None:
    study = joint(write_study, {"epochs": 2, "lr": 0.1})
    rows = candidates(study)
    recipes = {(lr, *mix) for lr, mix in itertools.product((0.1, 0.2), ((0.0, 1.0), (1.0, 0.5), (1.0, 1.0)))}
    found = [(row.architecture.arch_id, (row.recipe.lr, row.recipe.cutmix, row.recipe.mix)) for row in rows]
    archs = {arch for arch, _ in found}
    assert len(archs) == 2
    assert sorted(found) == sorted(itertools.product(archs, recipes))
    assert len({row.config for row in rows}) == len({trial_id(study, row, 0) for row in rows}) == 12
    usual = [row for row in rows if row.recipe == study.recipe]
    assert {row.config for row in usual} == archs
    assert [row.overrides for row in usual] == [{}, {}]


def test_without_a_recipe_in_the_space_nothing_changes(write_study: Write) -> None:
    study = joint(write_study, {"epochs": 2, "lr": 0.2}, f"{PARAMETERS}{NETWORK}")
    assert study_to_dict(study)["space_recipe"] is None
    for row in candidates(study):
        assert (row.config, row.recipe, row.overrides) == (row.architecture.arch_id, study.recipe, {})
    both = joint(write_study, {"epochs": 2})
    same = candidate(both, {"levels": 1, "lr": 0.2, "cutmix": 0.0})
    assert same is not None
    assert trial_id(both, same, 3) == trial_id(study, candidates(study)[0], 3)
    assert study_to_dict(both)["space_recipe"] == {"lr": "$lr", "augment": {"cutmix": "$cutmix", "mix": "$mix"}}


def test_a_trial_is_told_its_own_recipe(write_study: Write) -> None:
    study = joint(write_study)
    row = candidate(study, {"levels": 2, "lr": 0.2, "cutmix": 1.0, "mix": 0.5})
    assert row is not None
    spec = trial_spec(study, row, 0, None)
    assert json.loads(json.dumps(spec)) == spec
    assert from_dict(spec["recipe"]) == row.recipe
    assert spec["overrides"] == {"lr": 0.2, "cutmix": 1.0, "mix": 0.5}
    assert spec["config"] == row.config != row.architecture.arch_id


def test_spellings_of_one_recipe_are_one_configuration(write_study: Write) -> None:
    """Where the study's learning rate is 0.1, a parameter that says 0.1 and an inactive one say the same."""
    own = "  own: {choice: [no, yes]}\n  lr: {choice: [0.1, 0.2], when: own == 'yes'}\n"
    text = f"{PARAMETERS}{own}{NETWORK}recipe: {{lr: $lr}}\n"

    def study(search: Any) -> Study:
        return joint(write_study, {"epochs": 2, "lr": 0.1}, text, search=search)

    every = candidates(study("grid"))
    assert sorted(row.recipe.lr for row in every) == [0.1, 0.1, 0.2, 0.2]
    assert study("grid").space.size == 6
    assert {row.config for row in candidates(study({"random": {"trials": 4}}))} == {row.config for row in every}
    assert [row.config for row in candidates(study({"random": {"trials": 5}}))] == [
        row.config for row in candidates(study({"random": {"trials": 4}}))
    ]
    assert len(study("grid").supply or ()) == 4
    yes = [{"levels": 1, "own": "yes", "lr": lr} for lr in (0.2, 0.1)]
    with pytest.raises(UserError, match=r"search.rows\[2\]: is the same network as rows\[0\] by the same recipe"):
        candidates(study({"rows": [{"levels": 1, "own": "no"}, *yes]}))


@pytest.mark.parametrize(
    ("values", "recipe", "words"),
    [
        ("[0.1]", "{lrr: $r}", "6:10 recipe.lrr: unknown key; did you mean lr? (with r 0.1)"),
        ("[0.1, -1]", "{lr: $r}", "4:21 parameters.r.choice[1]: must be 0 or more, but got -1 (as recipe.lr, with r -1)"),
        ("[0.1, b]", "{lr: $r}", "4:21 parameters.r.choice[1]: must be a number (0 or more), but got a text ('b') (as recipe.lr, with r b)"),
        ("[0.1, '0,2']", "{lr: $r}", "but got a text ('0,2'); with a decimal point: 0.2"),
        ("[[3], [1]]", "{schedule: {steps: $r}}", "4:16 parameters.r.choice[0]: must ascend and stay below the 3 epochs, but got [3] (as recipe.schedule.steps, with r [3])"),
        ("[cosine, cosin]", "{schedule: $r}", "4:24 parameters.r.choice[1]: must be cosine, linear, constant, or {steps: [30, 60, 80], gamma: 0.1}, but got 'cosin'; did you mean cosine? (as recipe.schedule, with r cosin)"),
        ("[4, 5]", "{accumulate: $r}", "4:19 parameters.r.choice[1]: 5 does not divide the batch of 128; nearest: 4 (as recipe.accumulate, with r 5)"),
        ("[{crop: 4}, {crop: 99}]", "{augment: $r}", "4:34 parameters.r.choice[1].crop: must be an integer between 0 and 64, but got 99; nearest: 64 (as recipe.augment.crop"),
        ("[0.5, 1.0]", "{augment: {scale: [$r, $r], crop: 4}}", "6:27 recipe.augment.scale: is another way to crop than crop; leave one of them out"),
        ("[fast-small-images, fast]", "{preset: $r}", "4:35 parameters.r.choice[1]: must be one of pyconv-imagenet, "),
        ("[0, 2]", "{epochs: $r}", "4:16 parameters.r.choice[0]: must be an integer between 1 and 100000, but got 0; nearest: 1 (as recipe.epochs, with r 0)"),
        ("[3, 9]", "{warmup: $r}", "4:19 parameters.r.choice[1]: must be between 0 and 3, the epochs, but got 9 (as recipe.warmup, with r 9)"),
    ],
)  # fmt: skip
def test_mistakes_are_told_at_load_with_their_place_in_the_spaces_file(
    write_study: Write, values: str, recipe: str, words: str
) -> None:
    path = write_study(space_text=searched(values, recipe), recipe={"epochs": 3})
    with pytest.raises(UserError) as caught:
        load_study(path)
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"{path.with_name('space.yaml')}:")
    assert words in line


def test_what_the_study_gives_and_the_space_replaces_must_go_together(write_study: Write) -> None:
    text = searched("[2, 3]", "{batch: $r}")
    joint(write_study, {"epochs": 2, "accumulate": 1}, text)
    with pytest.raises(
        UserError, match=r"space.yaml:6:9 recipe.accumulate: 2 does not divide the batch of 9; nearest: 1 .with r 9"
    ):
        joint(write_study, {"epochs": 2, "batch": 8, "accumulate": 2}, text.replace("[2, 3]", "[4, 9]"))
    excluded = text.replace("[2, 3]", "[4, 9, 6]") + "constraints: [r != 9]\n"
    assert len(candidates(joint(write_study, {"epochs": 2, "batch": 8, "accumulate": 2}, excluded))) == 4


def test_a_mistake_in_one_of_very_many_assignments_is_found(write_study: Write) -> None:
    more = "".join(f"  x{i}: {{choice: [1, 2, 3, 4, 5, 6, 7, 8]}}\n" for i in range(6))
    text = searched("{float: [0.0, 1.1], steps: 12}", "{dropout: $r, batch: $x0, lr: $x1, warmup: $x2, clip: $x3}")
    text = text.replace("{choice: {float: [0.0, 1.1], steps: 12}}", "{float: [0.0, 1.1], steps: 12}")
    text = text.replace("network:", more + "network:", 1).replace("clip: $x3", "clip: $x3, lr_batch: $x4, gamma: $x5")
    path = write_study(space_text=text, recipe={"epochs": 9}, search={"random": {"trials": 3}})
    with pytest.raises(UserError) as caught:
        load_study(path)
    told = str(caught.value)
    assert "parameters.r.float: must be " in told
    assert "(as recipe.dropout, with " in told
    assert " (and 1 more mistakes here)" in told
    assert "parameters.x0.choice[0]: must be an integer of 2 or more, but got 1; nearest: 2 (as recipe.batch" in told
    assert "recipe.gamma: stands under schedule" in told


@pytest.mark.parametrize("recipe", ["{epochs: $r}", "{preset: $r}"])
def test_epochs_may_be_searched_but_not_under_asha(write_study: Write, recipe: str) -> None:
    values = "[3, 6]" if "epochs" in recipe else "[fast-small-images, psconv-imagenet]"
    given = {"epochs": 3} if "epochs" in recipe else "fast-small-images"
    text = searched(values, recipe)
    study = joint(write_study, given, text)
    epochs = {row.recipe.epochs for row in candidates(study)}
    assert epochs == ({3, 6} if "epochs" in recipe else {20, 120})
    assert most_epochs(study) == max(epochs)
    with pytest.raises(UserError) as caught:
        joint(write_study, given, text, scheduler="asha")
    assert f"makes {max(epochs)} epochs of the study's {min(epochs)}, but asha compares trials epoch by epoch" in str(
        caught.value
    )
    assert f"space.yaml:{4 if 'epochs' in recipe else 6}:" in str(caught.value)
    joint(write_study, given, searched("[0.1]", "{lr: $r}"), scheduler="asha")


def test_a_searched_preset_keeps_what_the_study_says_itself(write_study: Write) -> None:
    study = joint(write_study, {"preset": "fast-small-images", "epochs": 30, "batch": 64},
                  searched("[resnext-cifar, pyconv-imagenet]", "{preset: $r, lr: 0.7}"))  # fmt: skip
    by_name = {row.values["r"]: row.recipe for row in candidates(study)}
    for name, recipe in by_name.items():
        assert recipe == written({"preset": name, "epochs": 30, "batch": 64, "lr": 0.7})
    assert by_name["resnext-cifar"].steps == (15, 22)
    assert by_name["pyconv-imagenet"].steps == (10, 20, 27)


def test_searched_epochs_move_the_steps_of_the_study(write_study: Write) -> None:
    study = joint(write_study, {"epochs": 10, "schedule": {"steps": [5, 8], "gamma": 0.2}},
                  searched("[10, 20, 5]", "{epochs: $r}"))  # fmt: skip
    found = {row.recipe.epochs: (row.recipe.steps, row.recipe.gamma) for row in candidates(study)}
    assert found == {10: ((5, 8), 0.2), 20: ((10, 16), 0.2), 5: ((2, 4), 0.2)}


def test_the_shipped_joint_study(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CIFAR", "/data")
    root = Path(__file__).parents[2]
    study = load_study(root / "studies" / "recipe_and_pattern_cifar10.yaml")
    section = yaml.safe_load((root / "spaces" / "recipe_and_pattern_cifar.yaml").read_text())["recipe"]
    assert set(section) == {"lr", "label_smoothing", "augment"}
    row = candidate(study, {"pattern": [1, 2, 1, 4], "lr": 0.2828, "smoothing": 0.05, "cutmix": 1.0, "mix": 0.5})
    assert row is not None
    changed = (row.recipe.lr, row.recipe.label_smoothing, row.recipe.cutmix, row.recipe.mix)
    assert changed == (0.2828, 0.05, 1.0, 0.5)
    assert (row.recipe.epochs, row.recipe.flip, row.recipe.ema) == (30, study.recipe.flip, study.recipe.ema)
