"""Recipes by name: the papers' own, and a fast one for small images.

Each is written as a study would write it. Where a paper leaves a value open, ``about`` says whose it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_PAPERS = {"momentum": 0.9, "weight_decay": 1e-4, "lr": 0.1, "lr_batch": 256, "batch": 256}
_INCEPTION_CROP = {"scale": [0.08, 1.0], "flip": True}

RECIPES: dict[str, dict[str, Any]] = {
    "pyconv-imagenet": {
        **_PAPERS,
        "epochs": 90,
        "schedule": {"steps": [30, 60, 80], "gamma": 0.1},
        "augment": _INCEPTION_CROP,
    },
    "pyconv-imagenet-cutmix": {
        **_PAPERS,
        "epochs": 300,
        "batch": 1024,
        "schedule": "cosine",
        "warmup": 5,
        "augment": {**_INCEPTION_CROP, "cutmix": 1.0},
        "precision": "fp16",
    },
    "psconv-imagenet": {
        **_PAPERS,
        "epochs": 120,
        "schedule": "cosine",
        "augment": _INCEPTION_CROP,
        "select": "best",
    },
    "resnext-cifar": {
        **_PAPERS,
        "epochs": 300,
        "batch": 128,
        "lr_batch": 128,
        "weight_decay": 5e-4,
        "schedule": {"steps": [150, 225], "gamma": 0.1},
        "augment": {"crop": 4, "flip": True},
    },
    "pyconv-video": {
        **_PAPERS,
        "epochs": 90,
        "batch": 64,
        "lr_batch": 64,
        "schedule": {"steps": [30, 60, 80], "gamma": 0.1},
        "dropout": 0.5,
        "augment": {"short_side": [256, 320], "flip": True},
        "clips": {"step": 4, "count": 10, "crops": 3},
    },
    "fast-small-images": {
        "epochs": 20,
        "batch": 256,
        "lr": 0.4,
        "lr_batch": 256,
        "nesterov": True,
        "weight_decay": 5e-4,
        "decay_norms": False,
        "schedule": "linear",
        "warmup": 3,
        "label_smoothing": 0.1,
        "zero_init": True,
        "ema": 0.99,
        "augment": {"crop": 2, "flip": True},
        "mirror": True,
    },
}

ABOUT = {
    "pyconv-imagenet": "PyConv, section 6: 90 epochs, steps at 30, 60 and 80, 8 GPUs.",
    "pyconv-imagenet-cutmix": "PyConv, supplement (+ augment): 300 epochs, CutMix, cosine, batch 1,024, mixed "
    "precision. The paper does not print its learning rate: here the linear rule and 5 epochs of warm-up (Goyal et al. "
    "2017), and CutMix in every batch with α = 1 (Yun et al. 2019, ImageNet).",
    "psconv-imagenet": "PSConv, section 4.1: 120 epochs, half a cosine, the best epoch counts (in the paper by the "
    "ImageNet validation images, which are its test images, too).",
    "resnext-cifar": "ResNeXt-29 on CIFAR (Xie et al. 2017, section 5.3), which PSConv follows: 300 epochs, steps at "
    "150 and 225, batch 128.",
    "pyconv-video": "PyConv, supplement: Kinetics-400, clips of every fourth frame, batch 64, dropout 0.5, "
    "10 clips × 3 crops to evaluate.",
    "fast-small-images": "This project's own, for images of some 32 pixels: linear schedule, averaged weights, "
    "smoothed labels, mirrored evaluation.",
}


def merged(base: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a recipe, replaced one by one by those that are given; inside ``augment`` and its like, too.

    With other epochs and the recipe's own steps these keep their share of the epochs; its own warm-up stays as long as
    it is, but takes a third of the epochs at most.
    """
    values = {**base, **given}
    for key, own in base.items():
        if isinstance(own, Mapping) and isinstance(given.get(key), Mapping):
            values[key] = {**own, **given[key]}
    epochs = _count(given.get("epochs"))
    if epochs is None:
        return values
    if "warmup" in base and "warmup" not in given:
        values["warmup"] = min(base["warmup"], epochs / 3)
    schedule, own_steps = values.get("schedule"), given.get("schedule", {})
    if isinstance(schedule, Mapping) and isinstance(own_steps, Mapping) and "steps" not in own_steps:
        values["schedule"] = _scaled(schedule, _count(base.get("epochs")), epochs)
    return values


def _count(epochs: Any) -> int | None:
    """Epochs where they can be some."""
    whole = isinstance(epochs, int) or (isinstance(epochs, float) and epochs.is_integer())
    return int(epochs) if whole and not isinstance(epochs, bool) and epochs > 0 else None


def _scaled(schedule: Mapping[str, Any], before: int | None, epochs: int) -> dict[str, Any]:
    """The schedule with its steps moved to other epochs."""
    if before is None or "steps" not in schedule:
        return dict(schedule)
    steps = schedule["steps"] if isinstance(schedule["steps"], list) else [schedule["steps"]]
    if not all(isinstance(step, (int, float)) for step in steps):
        return dict(schedule)
    return {**schedule, "steps": sorted({round(step * epochs / before) for step in steps} - {0, epochs})}
