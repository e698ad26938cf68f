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
    "psconv-imagenet": {**_PAPERS, "epochs": 120, "schedule": "cosine", "augment": _INCEPTION_CROP},
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
    "psconv-imagenet": "PSConv, section 4.1: 120 epochs, half a cosine.",
    "resnext-cifar": "ResNeXt-29 on CIFAR (Xie et al. 2017, section 5.3), which PSConv follows: 300 epochs, steps at "
    "150 and 225, batch 128.",
    "pyconv-video": "PyConv, supplement: Kinetics-400, clips of every fourth frame, batch 64, dropout 0.5, "
    "10 clips × 3 crops to evaluate.",
    "fast-small-images": "This project's own, for images of some 32 pixels: linear schedule, averaged weights, "
    "smoothed labels, mirrored evaluation.",
}


def merged(preset: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a preset, replaced one by one by those that are given; those of ``augment`` one by one, too.

    With other epochs and the preset's own steps these keep their share of the epochs.
    """
    values = {**preset, **given}
    if isinstance(given.get("augment"), Mapping):
        values["augment"] = {**preset.get("augment", {}), **given["augment"]}
    own, epochs = preset.get("schedule"), given.get("epochs")
    if "schedule" not in given and isinstance(own, Mapping) and isinstance(epochs, int) and epochs > 0:
        steps = sorted({round(step * epochs / preset["epochs"]) for step in own["steps"]} - {0, epochs})
        values["schedule"] = {**own, "steps": steps}
    return values
