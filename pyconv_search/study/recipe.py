"""The training recipe: every number that decides how a network is trained, and nothing about which network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pyconv_search.fields import Fields, integers, shown

PRECISIONS = ("auto", "fp32", "bf16")


@dataclass(frozen=True, slots=True)
class Recipe:
    """Stochastic gradient descent with momentum, as both papers use it.

    ``lr`` is the peak learning rate. ``schedule`` is ``steps`` (multiply by ``gamma`` at the start of each 0-based
    epoch in ``steps``; PyConv: 30, 60, 80 of 90) or ``cosine`` (half a cosine down to zero; PSConv: 120 epochs). Either
    follows a linear warm-up over ``warmup`` epochs. ``crop`` is the padding in pixels before the random crop (0: none),
    ``flip`` a horizontal mirror with probability 1/2. ``precision`` is ``fp32``, ``bf16`` (autocast) or ``auto``: bf16
    on a device that computes in it, fp32 elsewhere.
    """

    epochs: int
    batch: int = 128
    lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 1e-4
    schedule: str = "cosine"
    steps: tuple[int, ...] = ()
    gamma: float = 0.1
    warmup: float = 0.0
    label_smoothing: float = 0.0
    crop: int = 0
    flip: bool = False
    precision: str = "auto"
    channels_last: bool = True


def to_dict(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain JSON values."""
    return {name: getattr(recipe, name) for name in Recipe.__slots__} | {"steps": list(recipe.steps)}


def from_dict(values: dict[str, Any]) -> Recipe:
    """The recipe that :func:`to_dict` made."""
    return Recipe(**{**values, "steps": tuple(values["steps"])})


def read_recipe(fields: Fields) -> Recipe:
    """The recipe that a study's ``recipe`` section describes; mistakes go to ``fields.problems``."""
    epochs = fields.integer("epochs", low=1, high=100_000)
    kind, steps, gamma = _schedule(fields, epochs or 1)
    augment = fields.section("augment", None)
    recipe = Recipe(
        epochs=epochs or 1,
        batch=fields.integer("batch", 128, 2),
        lr=fields.number("lr", 0.1),
        momentum=fields.number("momentum", 0.9, 0.0, 1.0),
        nesterov=fields.flag("nesterov", False),
        weight_decay=fields.number("weight_decay", 1e-4),
        schedule=kind,
        steps=steps,
        gamma=gamma,
        warmup=fields.number("warmup", 0.0, 0.0, float(epochs or 1)),
        label_smoothing=fields.number("label_smoothing", 0.0, 0.0, 1.0),
        crop=augment.integer("crop", 0, 0, 64),
        flip=augment.flag("flip", False),
        precision=fields.text("precision", "auto", PRECISIONS),
        channels_last=fields.flag("channels_last", True),
    )
    if recipe.nesterov and not recipe.momentum:
        fields.add("nesterov", "needs a momentum above 0; nearest: momentum 0.9, or nesterov: false")
    augment.close()
    fields.close()
    return recipe


def _schedule(fields: Fields, epochs: int) -> tuple[str, tuple[int, ...], float]:
    """``cosine``, or ``{steps: [30, 60, 80], gamma: 0.1}``."""
    given = fields.take("schedule", "cosine")
    if not isinstance(given, Mapping):
        if given != "cosine":
            fields.add("schedule", f"must be cosine, or {{steps: [30, 60, 80], gamma: 0.1}}, but got {shown(given)}")
        return "cosine", (), 0.1
    own = fields.section("schedule")
    steps = integers(own.take("steps"), (*own.path, "steps"), own.problems)
    if list(steps) != sorted(set(steps)) or (steps and steps[-1] >= epochs):
        own.add("steps", f"must ascend and stay below the {epochs} epochs, but got {list(steps)}")
    gamma = own.number("gamma", 0.1, 0.0, 1.0)
    own.close()
    return "steps", steps, gamma
