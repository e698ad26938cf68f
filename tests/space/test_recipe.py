"""The section ``recipe`` of a space: what an assignment replaces in a study's recipe, and what the space alone can check."""

from __future__ import annotations

import itertools

import pytest

from pyconv_search.errors import UserError
from pyconv_search.space.describe import check, describe
from pyconv_search.space.document import parse
from pyconv_search.space.sampling import sample
from pyconv_search.space.space import Space, space_of

TEXT = """
space: t
parameters:
  levels: {choice: [1, 2]}
  lr: {float: [0.1, 0.4], steps: 3, log: true}
  cutmix: {choice: [0, 1.0]}
  mix: {choice: [0.5, 1.0], when: cutmix > 0}
network: {depth: 20, levels: $levels, input: [3, 32, 32]}
recipe:
  lr: $lr
  warmup: 2
  augment: {cutmix: $cutmix, mix: $mix}
  resolution: {until: $mix}
"""


@pytest.fixture
def space() -> Space:
    found = space_of(parse(TEXT, "t.yaml"))
    check(found)
    return found


def test_an_assignment_fills_the_recipe_and_leaves_out_what_is_inactive(space: Space) -> None:
    assert space.overrides({"levels": 1, "lr": 0.2, "cutmix": 1.0, "mix": 0.5}) == {
        "lr": 0.2, "warmup": 2, "augment": {"cutmix": 1.0, "mix": 0.5}, "resolution": {"until": 0.5}}  # fmt: skip
    assert space.overrides({"levels": 1, "lr": 0.2, "cutmix": 0}) == {
        "lr": 0.2, "warmup": 2, "augment": {"cutmix": 0}}  # fmt: skip


def test_what_only_the_recipe_uses_is_used_and_changes_no_network(space: Space) -> None:
    assert space.size == 2 * 3 * (1 + 2)
    assert describe(space).networks == 2
    networks = {(values["levels"], space.architecture(values)) for values in space.assignments()}
    assert len(networks) == 2


def test_samples_differ_in_their_recipe_alone(space: Space) -> None:
    found = [s.values for s in sample(space, space.size, seed=3)]
    every = [
        {"levels": levels, "lr": lr, "cutmix": cutmix, **mix}
        for levels, lr in itertools.product((1, 2), (0.1, 0.2, 0.4))
        for cutmix, mix in ((0, {}), (1.0, {"mix": 0.5}), (1.0, {"mix": 1.0}))
    ]
    assert all(found.count(values) == 1 for values in every)
    assert len(found) == len(every)
    alike = sample(space, 2, 3, same=lambda values, arch: arch.arch_id)
    assert len({s.architecture.arch_id for s in alike}) == 2


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ("recipe: fast", "t.yaml:4:9 recipe: must be a mapping of keys to values, but got a text ('fast')"),
        ("recipe: [$a]", "t.yaml:4:9 recipe: must be a mapping of keys to values, but got a list"),
        ("recipe: {lr: $lr}", "t.yaml:4:14 recipe.lr: unknown parameter 'lr'; known: a, b"),
        ("recipe: {augment: {mix: '$a[0]'}}", "t.yaml:4:25 recipe.augment.mix: $a[0] does not exist where a is 1"),
        ("recipe: {schedule: {steps: [$a, $]}}", "t.yaml:4:33 recipe.schedule.steps[1]: '$' is not a reference"),
        ("recipes: {lr: $b}", "t.yaml:4:1 recipes: unknown key; did you mean recipe?"),
        ("recipe: {lr: $a}", "t.yaml:2:32 parameters.b: is used by nothing; write $b where the network or the recipe has it"),
    ],
)  # fmt: skip
def test_mistakes_are_told_with_their_place(recipe: str, words: str) -> None:
    text = (
        f"space: t\nparameters: {{a: {{choice: [1]}}, b: {{choice: [[2], [3]]}}}}\nnetwork: {{depth: 20}}\n{recipe}\n"
    )
    with pytest.raises(UserError) as caught:
        check(space_of(parse(text, "t.yaml")))
    assert words in str(caught.value)
