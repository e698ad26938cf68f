"""In which points a study's recipe is not a published one, in words."""

from __future__ import annotations

from typing import Any

from pyconv_search.arch.published.results import PublishedRecipe
from pyconv_search.results.tables import compact

STATED = ("epochs", "batch", "lr", "schedule")
# What no paper here mentions, with the value at which it does nothing.
UNMENTIONED = {"nesterov": False, "label_smoothing": 0.0, "warmup": 0.0}


def differences(published: PublishedRecipe, recipe: dict[str, Any]) -> list[str]:
    """``60 epochs here, 90 published``, for every number of the recipe; then what the paper leaves open or adds."""
    found = []
    for key in ("epochs", "batch", "lr", "momentum", "weight_decay", "schedule", "steps", "gamma", "warmup"):
        theirs, ours = getattr(published, key), recipe.get(key)
        if theirs is None or (key in ("steps", "gamma") and recipe.get("schedule") != "steps"):
            continue
        if ours != (list(theirs) if isinstance(theirs, tuple) else theirs):
            found.append(_told(key, ours, theirs))
    for key, off in UNMENTIONED.items():
        if recipe.get(key, off) != off and getattr(published, key, None) is None:
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
    return {"lr": "learning rate", "warmup": "warm-up epochs"}.get(key, key.replace("_", " "))
