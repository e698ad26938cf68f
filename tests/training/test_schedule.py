"""The learning rate of every step, against hand-computed values and against torch's own schedulers."""

from __future__ import annotations

import pytest
import torch
from torch.optim import lr_scheduler

from pyconv_search.study.growth import resolution
from pyconv_search.study.recipe import Recipe
from pyconv_search.training.schedule import learning_rate


def rates(recipe: Recipe, per_epoch: int) -> list[float]:
    return [learning_rate(recipe, step, per_epoch) for step in range(recipe.epochs * per_epoch)]


def optimizer(lr: float) -> torch.optim.SGD:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr)


def of_torch(scheduler: lr_scheduler.LRScheduler, count: int) -> list[float]:
    found = []
    for _ in range(count):
        found.append(scheduler.optimizer.param_groups[0]["lr"])
        scheduler.optimizer.step()
        scheduler.step()
    return found


def test_pyconv_recipe_by_hand():
    recipe = Recipe(epochs=90, lr=0.1, schedule="steps", steps=(30, 60, 80))
    expected = [0.1] * 30 + [0.01] * 30 + [0.001] * 20 + [0.0001] * 10
    assert rates(recipe, 1) == pytest.approx(expected)


def test_steps_are_those_of_multi_step_lr():
    recipe = Recipe(epochs=9, lr=0.3, schedule="steps", steps=(2, 5, 6), gamma=0.2)
    expected = of_torch(lr_scheduler.MultiStepLR(optimizer(0.3), [2 * 4, 5 * 4, 6 * 4], 0.2), 36)
    assert rates(recipe, 4) == pytest.approx(expected)


def test_cosine_is_that_of_cosine_annealing_lr():
    recipe = Recipe(epochs=6, lr=0.1)
    expected = of_torch(lr_scheduler.CosineAnnealingLR(optimizer(0.1), 30), 30)
    assert rates(recipe, 5) == pytest.approx(expected, abs=1e-12)
    assert learning_rate(recipe, 15, 5) == pytest.approx(0.05)


def test_cosine_falls_within_an_epoch():
    found = rates(Recipe(epochs=1, lr=1.0), 4)
    assert found == pytest.approx([1, (1 + 2**-0.5) / 2, 0.5, (1 - 2**-0.5) / 2])


def test_warm_up_rises_to_the_peak_and_the_cosine_starts_from_it():
    found = rates(Recipe(epochs=4, lr=0.8, warmup=2), 2)
    assert found == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8, 0.8 * (1 + 2**-0.5) / 2, 0.4, 0.8 * (1 - 2**-0.5) / 2])


def test_warm_up_of_a_fraction_of_an_epoch():
    assert rates(Recipe(epochs=1, lr=1.0, warmup=0.5, schedule="steps"), 6) == pytest.approx([1 / 3, 2 / 3, 1, 1, 1, 1])
    assert rates(Recipe(epochs=1, lr=1.0, warmup=0.25, schedule="steps"), 6)[:3] == pytest.approx([2 / 3, 1, 1])


def test_a_step_inside_the_warm_up_counts():
    recipe = Recipe(epochs=3, lr=1.0, warmup=2, schedule="steps", steps=(1,))
    assert rates(recipe, 2) == pytest.approx([0.25, 0.5, 0.075, 0.1, 0.1, 0.1])


@pytest.mark.parametrize("warmup", [2.0, 3.0])
def test_warm_up_may_last_as_long_as_the_training_or_longer(warmup: float):
    found = rates(Recipe(epochs=2, lr=1.0, warmup=warmup), 2)
    assert found == pytest.approx([(i + 1) / (2 * warmup) for i in range(4)])


def test_linear_is_that_of_linear_lr():
    recipe = Recipe(epochs=6, lr=0.1, schedule="linear")
    expected = of_torch(lr_scheduler.LinearLR(optimizer(0.1), 1.0, 0.0, 30), 30)
    assert rates(recipe, 5) == pytest.approx(expected, abs=1e-12)


def test_constant_stays():
    assert rates(Recipe(epochs=3, lr=0.2, schedule="constant", warmup=1), 2) == pytest.approx([0.1] + [0.2] * 5)


def test_the_linear_rule():
    # Goyal et al. 2017: 0.1 for 256 images is 3.2 for 8192.
    assert Recipe(epochs=1, batch=8192, lr=0.1, lr_batch=256).peak == pytest.approx(3.2)
    assert rates(Recipe(epochs=1, batch=64, lr=0.4, lr_batch=256, schedule="constant"), 2) == pytest.approx([0.1, 0.1])
    assert Recipe(epochs=1, batch=8192, lr=0.1).peak == 0.1


def test_resolution_grows_to_all_of_it():
    recipe = Recipe(epochs=10, resolution=0.5, resolution_until=0.8)
    assert [resolution(recipe, epoch, (32, 32))[0] for epoch in range(10)] == [16, 16, 20, 24, 24, 24, 28, 32, 32, 32]
    large = [resolution(recipe, epoch, (224, 192)) for epoch in range(10)]
    assert large[0] == (128, 96)
    assert large[8:] == [(224, 192)] * 2
    assert all(side % 32 == 0 for size in large for side in size)
    assert resolution(Recipe(epochs=10), 0, (28, 28)) == (28, 28)
    assert resolution(recipe, 3, (128, 124)) == (96, 84)
