"""The training recipe: every number that decides how a network is trained, and nothing about which network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from pyconv_search.errors import UserError
from pyconv_search.fields import Fields, Path, Problems, integers, kind_of, shown, suggestion
from pyconv_search.study.presets import RECIPES, merged

MOST_EPOCHS = 100_000
PRECISIONS = ("auto", "fp32", "bf16", "fp16")
SCHEDULES = ("cosine", "linear", "constant")
# Where a study writes a value, if not under its own name.
NESTED = {
    **{key: ("augment", key) for key in ("crop", "flip", "cutout", "cutmix", "mixup", "mix", "scale", "short_side")},
    **{key: ("schedule", key) for key in ("steps", "gamma")},
    "resolution_until": ("resolution", "until"),
    **{key: ("clips", inner) for key, inner in (("frame_step", "step"), ("crops", "crops"))},
}
# What torch.compile calls its modes; CUDA graphs are those of reduce-overhead.
COMPILERS = ("none", "default", "reduce-overhead", "max-autotune")


@dataclass(frozen=True, slots=True)
class Recipe:
    """Stochastic gradient descent with momentum, as both papers use it. A value that is 0 or false does nothing.

    Steps. ``batch`` images make a step, over all devices, computed in ``accumulate`` equal parts one after the other
    (batch normalisation sees the parts). ``precision``: ``fp32``; ``bf16`` or ``fp16``, both autocast, fp16 with a
    scaled loss; ``auto``: bf16 on a device that computes in it, fp32 elsewhere. ``compile`` names a mode of
    torch.compile. ``deterministic``: the same numbers every time on the same machine, for which a GPU may need longer.

    Learning rate. ``lr`` is the peak, for batches of ``lr_batch`` images (the linear rule of Goyal et al. 2017, section
    2.1: the rate is lr · batch / lr_batch); with 0 it is ``lr`` for any batch. ``schedule`` is ``steps`` (multiply by
    ``gamma`` at the start of each 0-based epoch in ``steps``), ``cosine`` (half a cosine down to zero), ``linear`` (a
    line down to zero) or ``constant``, after a linear warm-up over ``warmup`` epochs.

    Optimizer. ``decay_norms``: weight decay reaches normalisation layers and biases, too. ``clip`` is the largest
    Euclidean norm of the whole gradient, ``ema`` the decay per step of the averaged weights that are then validated,
    tested and saved. ``select`` says of which epoch they are tested and saved: the ``last``, or the one with the
    ``best`` validation error (PSConv, section 4.1, but there on the test images). ``zero_init`` starts the last batch
    normalisation of every residual branch at zero (Goyal et al. 2017, section 5.1).

    Regularisation. ``label_smoothing`` (Szegedy et al. 2016, section 7); ``dropout`` before the classifier;
    ``cutmix`` and ``mixup`` are the α of Beta(α, α) (Yun et al. 2019; Zhang et al. 2018), used on a batch with
    probability ``mix``, each half of the time if both are there.

    Images. ``crop`` is the padding in pixels before a random crop; ``scale`` the smallest and largest share of the area
    of a random resized crop (Szegedy et al. 2015; (0, 0): none); ``short_side`` the interval in pixels from which the
    length of the shorter side is drawn before a random crop (Simonyan and Zisserman 2015, section 3.1); ``flip``
    mirrors left to right with probability 1/2; ``cutout`` blanks a square of so many pixels (DeVries and Taylor 2017).
    ``resolution``: the first epoch's images have this share of the full height and width, growing linearly to all of it
    after ``resolution_until`` of the epochs. ``center`` is the share of the shorter side that is cut out of the middle
    of large images to evaluate; ``mirror`` averages the probabilities of an image and its mirror image.

    Video. ``frame_step``: a clip takes one frame of so many; ``clips`` and ``crops``: so many clips in time, each
    cropped so many times in space, are averaged to evaluate.
    """

    epochs: int
    batch: int = 128
    accumulate: int = 1
    lr: float = 0.1
    lr_batch: int = 0
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 1e-4
    decay_norms: bool = True
    schedule: str = "cosine"
    steps: tuple[int, ...] = ()
    gamma: float = 0.1
    warmup: float = 0.0
    clip: float = 0.0
    ema: float = 0.0
    zero_init: bool = False
    label_smoothing: float = 0.0
    dropout: float = 0.0
    crop: int = 0
    scale: tuple[float, ...] = (0.0, 0.0)
    short_side: tuple[int, ...] = (0, 0)
    flip: bool = False
    cutout: int = 0
    cutmix: float = 0.0
    mixup: float = 0.0
    mix: float = 1.0
    resolution: float = 1.0
    resolution_until: float = 0.0
    center: float = 0.875
    mirror: bool = False
    frame_step: int = 1
    clips: int = 1
    crops: int = 1
    precision: str = "auto"
    channels_last: bool = True
    compile: str = "none"
    deterministic: bool = True
    select: str = "last"

    @property
    def peak(self) -> float:
        """The peak learning rate, after the linear rule."""
        return self.lr * self.batch / self.lr_batch if self.lr_batch else self.lr


def to_dict(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain JSON values."""
    values = {field.name: getattr(recipe, field.name) for field in fields(Recipe)}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def essence(recipe: Recipe) -> dict[str, Any]:
    """The values that are not at their defaults: what identifies a recipe, whatever values later versions add."""
    plain = to_dict(Recipe(epochs=0))
    return {name: value for name, value in to_dict(recipe).items() if value != plain[name]}


def from_dict(values: dict[str, Any]) -> Recipe:
    """The recipe that :func:`to_dict` made; what is missing has its default.

    Raises:
        UserError: for a value that this version does not know.
    """
    unknown = sorted(set(values) - {field.name for field in fields(Recipe)})
    if unknown:
        raise UserError(
            f"recipe.{unknown[0]}: this version of pyconv-search knows no such value; was a newer one used?"
        )
    typed: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
    return Recipe(**typed)


def read_recipe(fields: Fields, key: str = "recipe") -> Recipe:
    """The recipe under ``key`` of a study: the name of a known one, or a mapping of values, with one as ``preset``.

    Mistakes go to ``fields.problems``.
    """
    given = fields.take(key)
    path = (*fields.path, key)
    if given is not None and not isinstance(given, (str, Mapping)):
        fields.add(key, f"must be the name of a recipe or a mapping of values, but got {kind_of(given)}", own=True)
    values = _by_name(given) if isinstance(given, (str, Mapping)) else {"epochs": 1}
    return _read(Fields(_settled(values, path, fields.problems), path, fields.problems))


def overridden(given: str | Mapping[str, Any], overrides: Mapping[str, Any], problems: Problems) -> Recipe:
    """The recipe that a study gives, with some values replaced one by one, as :func:`read_recipe` does with a preset's.

    ``preset`` among the ``overrides`` replaces the study's; the study's own values stay over it. Mistakes in the
    overrides go to ``problems`` under the path ``recipe``; what the study gives must be without any.
    """
    path = ("recipe",)
    values = {**_by_name(given), **{key: overrides[key] for key in ("preset",) if key in overrides}}
    rest = {key: value for key, value in overrides.items() if key != "preset"}
    return _read(Fields(merged(_settled(values, path, problems), rest), path, problems))


def _by_name(given: str | Mapping[str, Any]) -> dict[str, Any]:
    return {"preset": given} if isinstance(given, str) else dict(given)


def _settled(values: dict[str, Any], path: Path, problems: Problems) -> dict[str, Any]:
    """The values over those of their preset, which is taken out."""
    own = {key: value for key, value in values.items() if key != "preset"}
    preset = Fields(values, path, problems).text("preset", None, tuple(RECIPES))
    if preset is None and "preset" in values and "epochs" not in values:
        own["epochs"] = 1  # they were to come with the preset, which is not one: a mistake that is noted
    return merged(RECIPES[preset], own) if preset else own


def _read(fields: Fields) -> Recipe:
    epochs = fields.integer("epochs", low=1, high=MOST_EPOCHS)
    certain = epochs if fields.sound("epochs", "preset") else MOST_EPOCHS  # where no epochs are known, any will do
    kind, steps, gamma = _schedule(fields, certain)
    batch = fields.integer("batch", 128, 2)
    recipe = Recipe(
        epochs=epochs or 1,
        batch=batch,
        accumulate=fields.integer("accumulate", 1),
        lr=fields.number("lr", 0.1),
        lr_batch=fields.integer("lr_batch", 0, 0),
        momentum=fields.number("momentum", 0.9, 0.0, 1.0),
        nesterov=fields.flag("nesterov", False),
        weight_decay=fields.number("weight_decay", 1e-4),
        decay_norms=fields.flag("decay_norms", True),
        schedule=kind,
        steps=steps,
        gamma=gamma,
        warmup=fields.number("warmup", 0.0, 0.0, float(MOST_EPOCHS)),
        clip=fields.number("clip", 0.0),
        ema=fields.number("ema", 0.0, 0.0, 1.0),
        zero_init=fields.flag("zero_init", False),
        label_smoothing=fields.number("label_smoothing", 0.0, 0.0, 1.0),
        dropout=fields.number("dropout", 0.0, 0.0, 1.0),
        center=fields.number("center", 0.875, 0.1, 1.0),
        mirror=fields.flag("mirror", False),
        precision=fields.text("precision", "auto", PRECISIONS),
        channels_last=fields.flag("channels_last", True),
        compile=fields.text("compile", "none", COMPILERS),
        deterministic=fields.flag("deterministic", True),
        select=fields.text("select", "last", ("last", "best")),
        **_augment(fields.section("augment", {})),
        **_resolution(fields.section("resolution", {})),
        **_clips(fields.section("clips", {})),
    )
    for key, (section, inner) in NESTED.items():
        if key in fields:
            fields.drop(key)
            text = f"stands under {section}: {section}: {{{inner}: …}}"
            fields.problems.add((*fields.path, key), text, key=True, own=True)
    _check(recipe, fields, certain)
    fields.close()
    return recipe


def _check(recipe: Recipe, fields: Fields, epochs: int) -> None:
    """What does not go together, among the values that are right by themselves."""
    if recipe.warmup > epochs:
        fields.add("warmup", f"must be between 0 and {epochs}, the epochs, but got {recipe.warmup:g}")
    if fields.sound("nesterov", "momentum") and recipe.nesterov and not recipe.momentum:
        fields.add("nesterov", "needs a momentum above 0; nearest: momentum 0.9, or nesterov: false")
    if fields.sound("batch", "accumulate") and (
        recipe.batch % recipe.accumulate or recipe.accumulate > recipe.batch // 2
    ):
        near = [n for n in range(1, recipe.batch // 2 + 1) if recipe.batch % n == 0]
        best = min(near, key=lambda n: abs(n - recipe.accumulate))
        why = "does not divide" if recipe.batch % recipe.accumulate else "leaves less than two images of"
        fields.add("accumulate", f"{recipe.accumulate} {why} the batch of {recipe.batch}; nearest: {best}")
    for key in ("ema", "dropout"):
        if getattr(recipe, key) == 1:
            fields.add(key, "must be below 1, but got 1", own=True)


def _schedule(fields: Fields, epochs: int) -> tuple[str, tuple[int, ...], float]:
    """A name, or ``{steps: [30, 60, 80], gamma: 0.1}``."""
    given = fields.take("schedule", "cosine")
    if not isinstance(given, Mapping):
        if given not in SCHEDULES:
            legal = f"{', '.join(SCHEDULES)}, or {{steps: [30, 60, 80], gamma: 0.1}}"
            near = suggestion(given, SCHEDULES) if isinstance(given, str) else ""
            fields.add("schedule", f"must be {legal}, but got {shown(given)}{near}", own=True)
            return "cosine", (), 0.1
        return given, (), 0.1
    own = fields.section("schedule")
    written = own.take("steps")
    steps = () if written is None else integers(written, (*own.path, "steps"), own.problems)
    if own.sound("steps") and (list(steps) != sorted(set(steps)) or (steps and steps[-1] >= epochs)):
        own.add("steps", f"must ascend and stay below the {epochs} epochs, but got {shown(list(steps))}")
    gamma = own.number("gamma", 0.1, 0.0, 1.0)
    own.close()
    return "steps", steps, gamma


def _augment(own: Fields) -> dict[str, Any]:
    """What is done to images while training."""
    found = {
        "crop": own.integer("crop", 0, 0, 64),
        "flip": own.flag("flip", False),
        "cutout": own.integer("cutout", 0, 0, 1024),
        "cutmix": own.number("cutmix", 0.0, 0.0, 100.0),
        "mixup": own.number("mixup", 0.0, 0.0, 100.0),
        "mix": own.number("mix", 1.0, 0.0, 1.0),
        "scale": _interval(own, "scale", 0.001, 1.0),
        "short_side": _interval(own, "short_side", 8, 4096),
    }
    ways = [key for key in ("crop", "scale", "short_side") if own.sound(key) and any(_tuple(found[key]))]
    if len(ways) > 1:
        off = f"{ways[1]}: [0, 0] takes a named recipe's out"
        own.add(ways[1], f"is another way to crop than {ways[0]}; leave one of them out ({off})")
    mixed = own.sound("mix", "cutmix", "mixup")
    if mixed and found["mix"] != 1 and not found["cutmix"] and not found["mixup"]:
        own.add("mix", "is the share of batches that cutmix or mixup changes, but there is neither; leave it out")
    own.close()
    return found


def _interval(own: Fields, key: str, low: float, high: float) -> tuple[Any, ...]:
    """Two numbers of the type of ``low``, ascending; two zeros where there are none."""
    given = own.items(key, (0, 0))
    number = type(low)
    if given == [0, 0] or not own.sound(key):
        return number(0), number(0)
    whole = number is not int or all(isinstance(v, int) for v in given)
    plain = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in given)
    if len(given) != 2 or not plain or not whole or not low <= given[0] <= given[1] <= high:
        kind = "integers" if number is int else "numbers"
        legal = f"two ascending {kind} between {low:g} and {high:g}"
        own.add(key, f"must be {legal}, or [0, 0] for none, but got {shown(given)}", own=True)
        return number(0), number(0)
    return number(given[0]), number(given[1])


def _resolution(own: Fields) -> dict[str, Any]:
    found = {"resolution": own.number("start", 1.0, 0.1, 1.0), "resolution_until": own.number("until", 0.0, 0.0, 1.0)}
    if own.sound("start", "until") and (found["resolution"] < 1) != (found["resolution_until"] > 0):
        text = "and until go together: {start: 0.5, until: 0.7} grows from half to all over 0.7 of the epochs"
        own.add("start", text)
    own.close()
    return found


def _clips(own: Fields) -> dict[str, Any]:
    found = {
        "frame_step": own.integer("step", 1, 1, 64),
        "clips": own.integer("count", 1, 1, 100),
        "crops": own.integer("crops", 1, 1, 3),
    }
    own.close()
    return found


def _tuple(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)
