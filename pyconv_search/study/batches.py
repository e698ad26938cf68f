"""Whether the batches of a recipe can be had, and shared by the processes that train a network together."""

from __future__ import annotations

from collections.abc import Iterator

from pyconv_search.fields import Problem
from pyconv_search.study.recipe import Recipe

_PATH = ("recipe", "batch")


def unfit_batch(train: int, workers: int, recipe: Recipe) -> Iterator[Problem]:
    """What is wrong with a recipe's batch for ``train`` images and so many workers, under the study's key path."""
    batch = recipe.batch
    if batch > train:
        yield Problem(_PATH, f"a batch of {batch}, but there are {train} images to train on; nearest: {train}")
    if batch % workers:
        near = max(round(batch / workers), 1) * workers
        yield Problem(_PATH, f"{batch} images cannot be divided by {workers} workers; nearest: {near}")
    elif workers > 1 and batch // workers < 2 * recipe.accumulate:
        parts = f" in {recipe.accumulate} parts each" if recipe.accumulate > 1 else ""
        yield Problem(
            _PATH,
            f"{batch} images leave less than two for each of {workers} workers{parts}, and batch normalisation needs "
            f"two; nearest: {2 * workers * recipe.accumulate}",
        )
