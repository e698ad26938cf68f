"""How much memory a trial wanted that ran out of it."""

from __future__ import annotations

from typing import Any

import torch

from pyconv_search.arch.canonical import from_dict
from pyconv_search.study import recipe as recipes
from pyconv_search.training import memory


def shortage(spec: dict[str, Any], device: torch.device) -> str:
    """What a process had, what there is, and what the trial takes by closed form, in one line.

    The closed form (:func:`pyconv_search.training.memory.least`) is of the images that are computed at once.
    """
    recipe = recipes.from_dict(spec["recipe"])
    images = -(-recipe.batch // (spec.get("workers", 1) * recipe.accumulate))
    activations, network = memory.least(from_dict(spec["architecture"]), recipe, device, images)
    return (
        f"the process had {_size(memory.peak(device))} at most, of {_size(memory.total(device))} that there are; "
        f"by closed form the activations of {images} images take {_size(activations)}, and weights, gradients"
        f"{', momentum and averages' if recipe.ema else ' and momentum'} {_size(network)}"
    )


def _size(count: int) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"
