"""The learning rate of every step of a training."""

from __future__ import annotations

import math
from collections.abc import Callable

from pyconv_search.study.recipe import Recipe

# The share of the peak after a share of the steps that follow the warm-up.
_SHAPES: dict[str, Callable[[float], float]] = {
    "cosine": lambda progress: (1 + math.cos(math.pi * progress)) / 2,
    "linear": lambda progress: 1 - progress,
    "constant": lambda progress: 1.0,
    "steps": lambda progress: 1.0,
}


def learning_rate(recipe: Recipe, step: int, per_epoch: int) -> float:
    """The learning rate of step ``step``, counted from 0 through all epochs of ``per_epoch`` steps each.

    Warm-up: over the first W = ``warmup`` × ``per_epoch`` steps the rate grows linearly, ``peak`` · (step + 1) / W, so
    that no step has a rate of zero (Goyal et al. 2017, section 2.2). After it, ``steps`` multiplies by ``gamma`` at the
    start of each 0-based epoch that is listed (PyConv: 30, 60, 80 of 90 epochs); ``cosine`` follows half a cosine from
    ``peak`` at step W to zero where the training ends (PSConv; Loshchilov and Hutter 2017, equation 5, no restarts),
    ``linear`` a line.
    """
    warm = recipe.warmup * per_epoch
    drops = recipe.gamma ** sum(first <= step // per_epoch for first in recipe.steps)
    if step < warm:
        return recipe.peak * min(1.0, (step + 1) / warm) * drops
    progress = (step - warm) / max(recipe.epochs * per_epoch - warm, 1)
    return recipe.peak * _SHAPES[recipe.schedule](progress) * drops
