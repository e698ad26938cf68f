"""What ``bench train`` measures by, and prints, as text and as plain values."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pyconv_search.arch.cost import cost
from pyconv_search.arch.spec import Architecture
from pyconv_search.cli.bench import versions
from pyconv_search.cli.columns import table
from pyconv_search.errors import UserError
from pyconv_search.fields import Fields, Problems
from pyconv_search.report.words import NONE
from pyconv_search.study.recipe import Recipe, read_recipe
from pyconv_search.units import duration, number, quantity, size_text

if TYPE_CHECKING:
    import torch

    from pyconv_search.ops.roofline import Roofline
    from pyconv_search.training.speed import Case, Speed

# Images at once that a laptop has memory for.
_SMALL, _LARGE = 128, 16


@dataclass(frozen=True, slots=True)
class Measured:
    """A network, called ``name``, as it was timed by the recipe called ``recipe``; no roofline where it was stopped."""

    name: str
    recipe: str
    case: Case
    rows: tuple[Speed, ...]
    roofline: Roofline | None

    def mfu(self, row: Speed) -> float | None:
        """The model FLOPs utilisation: multiply-adds of the network a second over the rate of the roofline."""
        if self.roofline is None or row.ratio is not None:
            return None
        macs = self.case.passes(row.mode) * cost(self.case.architecture).macs
        return macs * row.images_per_second / self.roofline.rate


def recipe_for(arch: Architecture, name: str | None, given: Mapping[str, Any], device: str) -> tuple[str, Recipe]:
    """The recipe of that name, or the papers' for such images, with the values that are given, and its name.

    Raises:
        UserError: if there is none of that name, a value is not legal, or the network does not classify.
    """
    if arch.head is not None and arch.head.kind != "classifier":
        raise UserError(f"network must be a classifier, which a recipe can train, but has the head {arch.head.kind}")
    large, video = max(arch.input[1:]) >= 128, len(arch.input) == 4
    name = name or ("pyconv-video" if video else "pyconv-imagenet" if large else "resnext-cifar")
    values = {key: value for key, value in given.items() if value is not None}
    recipe = _read({"preset": name, **values})
    if device == "cpu" and "batch" not in values:
        recipe = _read({"preset": name, **values, "batch": min(recipe.batch, _LARGE if large else _SMALL)})
    return name, recipe


def _read(values: dict[str, Any]) -> Recipe:
    problems = Problems()
    recipe = read_recipe(Fields({"recipe": values}, (), problems))
    problems.check()
    return recipe


def dtype_of(case: Case) -> torch.dtype:
    """In which numbers the case computes."""
    import torch

    from pyconv_search.training.device import precision
    from pyconv_search.training.learner import AUTOCAST

    return AUTOCAST.get(precision(case.recipe, case.device), torch.float32)


def train_dict(found: Measured) -> dict[str, Any]:
    """The measurements as plain values: seconds of a step of ``batch`` images, ratios of images per second."""
    case, roofline = found.case, found.roofline
    return {
        "network": found.name,
        "arch_id": case.architecture.arch_id,
        "macs": cost(case.architecture).macs,
        "recipe": {"preset": found.recipe, **dataclasses.asdict(case.recipe)},
        "device": case.device.type,
        "threads": case.threads,
        "dtype": str(dtype_of(case)).removeprefix("torch."),
        "versions": versions(),
        "roofline": roofline and {**dataclasses.asdict(roofline), "rate": roofline.rate},
        "complete": roofline is not None,
        "rows": [
            {
                **dataclasses.asdict(row),
                "passes": case.passes(row.mode),
                "images_per_second": row.images_per_second,
                "mfu": found.mfu(row),
            }
            for row in found.rows
        ],
    }


def train_text(found: Measured) -> str:
    """The measurements as a table, and what to know about it."""
    case, recipe = found.case, found.case.recipe
    layout = "channels_last" if recipe.channels_last and len(case.architecture.input) == 3 else "contiguous"
    dtype = str(dtype_of(case)).removeprefix("torch.")
    how = [f"batch {recipe.batch}", dtype, layout, "eager" if recipe.compile == "none" else f"compile {recipe.compile}"]
    size = "×".join(map(str, case.architecture.input))
    network = f"{found.name}: {size}, {quantity(cost(case.architecture).macs, 'MACs', 4)}"
    lines = [
        f"{network}; recipe {found.recipe}: {', '.join(how)}",
        str(found.roofline) if found.roofline else f"{case.device.type}, {case.threads} threads",
        ", ".join(" ".join(version) for version in versions().items()),
        "",
        table([_HEAD, *(_cells(found, row) for row in found.rows)], range(2, len(_HEAD))),
        "",
        "MFU: multiply-adds of the network (in training three times those of a forward pass) a second over the highest "
        "rate measured here",
    ]
    if any(row.ratio for row in found.rows):
        lines.append("ratio: our images a second to those of the plain loop, in the same rounds")
    if found.roofline is None:
        lines.append("stopped before the end")
    return "\n".join(lines)


_HEAD = ("", "", "images/s", "a step", "middle half", "MFU", "peak memory", "ratio", "middle half")


def _cells(found: Measured, row: Speed) -> tuple[str, ...]:
    seconds, ratio, mfu = row.seconds, row.ratio, found.mfu(row)
    return (
        row.mode,
        row.what,
        number(row.images_per_second, 4),
        duration(seconds.median, 4),
        f"{duration(seconds.lower_quartile, 4)}–{duration(seconds.upper_quartile, 4)}",
        NONE if mfu is None else f"{mfu:.1%}",
        size_text(row.peak_memory) if row.peak_memory else NONE,
        "" if ratio is None else f"{ratio.median:.2f}",
        "" if ratio is None else f"{ratio.lower_quartile:.2f}–{ratio.upper_quartile:.2f}",
    )
