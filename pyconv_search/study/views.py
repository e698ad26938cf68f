"""Whether a recipe's way to look at images is one for the data."""

from __future__ import annotations

from collections.abc import Iterator

from pyconv_search.fields import Problem
from pyconv_search.study.datasets import DataSetInfo
from pyconv_search.study.recipe import Recipe


def unfit(info: DataSetInfo, recipe: Recipe) -> Iterator[Problem]:
    """What a recipe asks for that the data cannot give, under the key path of the study's ``recipe``.

    Small images of one size are padded before they are cropped, large ones of any size are resized; videos have clips.
    """
    if len(info.input) == 3 and (recipe.frame_step, recipe.clips, recipe.crops) != (1, 1, 1):
        yield Problem(("recipe", "clips"), f"is for videos, but {info.name} holds images; leave it out")
    if info.in_files and recipe.crop:
        yield Problem(
            ("recipe", "augment", "crop"),
            f"pads small images of one size, but those of {info.name} are large and of any size; "
            "use scale: [0.08, 1.0], or short_side: [256, 480]",
        )
    if not info.in_files and recipe.short_side[1]:
        yield Problem(
            ("recipe", "augment", "short_side"),
            f"resizes large images of any size, but those of {info.name} are all {info.input[-2]}×{info.input[-1]} "
            "pixels; use crop: 4, or scale: [0.35, 1.0]",
        )
