"""How much memory a trial wanted that ran out of it."""

from __future__ import annotations

from typing import Any

import torch

from pyconv_search.arch.canonical import from_dict
from pyconv_search.study import recipe as recipes
from pyconv_search.training import memory
from pyconv_search.units import size_text


def shortage(spec: dict[str, Any], device: torch.device) -> str:
    """What a process had, what there is, and what the trial takes by closed form, in one line.

    The closed form (:func:`pyconv_search.training.memory.least`) is of the images that are computed at once.
    """
    recipe = recipes.from_dict(spec["recipe"])
    images = -(-recipe.batch // (spec.get("workers", 1) * recipe.accumulate))
    activations, network = memory.least(from_dict(spec["architecture"]), recipe, device, images)
    return (
        f"the process had {size_text(memory.peak(device))} at most, of {size_text(memory.total(device))} that there "
        f"are; by closed form the activations of {images} images take {size_text(activations)}, and weights, gradients"
        f"{', momentum and averages' if recipe.ema else ' and momentum'} {size_text(network)}"
    )
