"""The learning rate of every step of a training."""

from __future__ import annotations

import math

from pyconv_search.study.recipe import Recipe


def learning_rate(recipe: Recipe, step: int, per_epoch: int) -> float:
    """The learning rate of step ``step``, counted from 0 through all epochs of ``per_epoch`` steps each.

    Warm-up: over the first W = ``warmup`` × ``per_epoch`` steps the rate grows linearly, ``lr`` · (step + 1) / W, so
    that no step has a rate of zero (Goyal et al. 2017, section 2.2). After it, ``steps`` multiplies by ``gamma`` at the
    start of each 0-based epoch that is listed (PyConv: 30, 60, 80 of 90 epochs), and ``cosine`` follows half a cosine
    from ``lr`` at step W to zero where the training ends (PSConv; Loshchilov and Hutter 2017, equation 5, no restarts).
    """
    warm = recipe.warmup * per_epoch
    if step < warm:
        return recipe.lr * min(1.0, (step + 1) / warm) * _drops(recipe, step // per_epoch)
    if recipe.schedule == "cosine":
        progress = (step - warm) / (recipe.epochs * per_epoch - warm)
        return recipe.lr * (1 + math.cos(math.pi * progress)) / 2
    return recipe.lr * _drops(recipe, step // per_epoch)


def _drops(recipe: Recipe, epoch: int) -> float:
    if recipe.schedule == "cosine":
        return 1.0
    return recipe.gamma ** sum(first <= epoch for first in recipe.steps)
