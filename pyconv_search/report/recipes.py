"""In which points a study's recipe is not a published one, in words."""

from __future__ import annotations

from typing import Any

from pyconv_search.arch.published.results import PublishedRecipe
from pyconv_search.results.tables import compact

STATED = ("epochs", "batch", "lr", "schedule")
# What a paper may leave unmentioned because it does not use it, with the value at which it does nothing.
UNMENTIONED = {
    "nesterov": False,
    "label_smoothing": 0.0,
    "warmup": 0.0,
    "decay_norms": True,
    "clip": 0.0,
    "ema": 0.0,
    "zero_init": False,
    "dropout": 0.0,
    "cutout": 0,
    "cutmix": 0.0,
    "mixup": 0.0,
    "resolution": 1.0,
    "mirror": False,
}
WORDS = {
    "lr": "learning rate",
    "warmup": "warm-up epochs",
    "decay_norms": "weight decay on normalisation and biases",
    "clip": "gradient clipping",
    "ema": "averaged weights",
    "zero_init": "zero-initialised last normalisation",
    "resolution": "resolution of the first epoch",
    "mirror": "mirrored evaluation",
}


def differences(published: PublishedRecipe, recipe: dict[str, Any]) -> list[str]:
    """``60 epochs here, 90 published``, for every number of the recipe; then what the paper leaves open or adds."""
    found = []
    for key in ("epochs", "batch", "lr", "momentum", "weight_decay", "schedule", "steps", "gamma", "warmup"):
        theirs, ours = getattr(published, key), _peak(recipe) if key == "lr" else recipe.get(key)
        if theirs is None or (key in ("steps", "gamma") and recipe.get("schedule") != "steps"):
            continue
        if ours != (list(theirs) if isinstance(theirs, tuple) else theirs):
            found.append(_told(key, ours, theirs))
    for key, off in UNMENTIONED.items():
        mentioned = getattr(published, key, None) is not None or key in published.note.lower()
        if recipe.get(key, off) != off and not mentioned:
            found.append(f"{_word(key)} {compact(recipe[key])} here, not mentioned in the paper")
    missing = [_word(key) for key in STATED if getattr(published, key) is None]
    if missing:
        found.append(f"the paper does not state: {', '.join(missing)}")
    return [*found, f"published: {published.note}"] if published.note else found


def _told(key: str, ours: Any, theirs: Any) -> str:
    here = "not recorded" if ours is None else compact(ours)
    there = compact(list(theirs) if isinstance(theirs, tuple) else theirs)
    if key == "epochs":
        return f"{here} epochs here, {there} published"
    return f"{_word(key)} {here} here, {there} published"


def _word(key: str) -> str:
    return WORDS.get(key, key.replace("_", " "))


def _peak(recipe: dict[str, Any]) -> float | None:
    """The learning rate after the linear rule, where the recipe has one."""
    lr, batch, per = recipe.get("lr"), recipe.get("batch"), recipe.get("lr_batch")
    return lr * batch / per if lr and batch and per else lr
