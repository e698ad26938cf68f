"""The class-stratified draw that holds validation images out of a training split.

Within each class, images are ranked by SHA-256 of ``"{salt}:{index}"`` (index in the training split, from 0) and the
first ones are drawn. No random generator is involved, so the draw is the same on every machine and for ever.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

from pyconv_search.errors import UserError
from pyconv_search.study.datasets import DataSetInfo, held_out_bounds

VALIDATION_SALT = "pyconv-search validation 0"


def draw(labels: npt.NDArray[np.int64], count: int, salt: str) -> npt.NDArray[np.int64]:
    """Indices of ``count`` images in ascending order, each class in proportion to its size in ``labels``."""
    chosen = [
        index
        for label, quota in quotas(np.bincount(labels).tolist(), count).items()
        for index in sorted(np.flatnonzero(labels == label).tolist(), key=lambda index: _rank(index, salt))[:quota]
    ]
    return np.array(sorted(chosen), dtype=np.int64)


def quotas(sizes: list[int], count: int) -> dict[int, int]:
    """How many of ``count`` fall to each class: its exact share rounded down, what is left by largest remainder.

    Classes with equal remainders are served in the order of their labels.
    """
    total = max(sum(sizes), 1)
    share = {label: count * size // total for label, size in enumerate(sizes)}
    by_remainder = sorted(share, key=lambda label: (-(count * sizes[label] % total), label))
    for label in by_remainder[: count - sum(share.values())]:
        share[label] += 1
    return share


def validation_count(info: DataSetInfo, validation: int | None) -> int:
    """The number of images to hold out: ``info.validation`` unless given; UserError where it cannot be."""
    if validation is None:
        return info.validation
    pool = info.train + info.validation
    low, high = held_out_bounds(info)
    number = isinstance(validation, int) and not isinstance(validation, bool)
    if not number or not (validation == 0 or low <= validation <= high):
        raise UserError(
            f"{info.name}: validation is {validation!r}, but must be a whole number from {low:,} to {high:,} "
            f"(of {pool:,} training images), or 0 to train on all of them"
        )
    return validation


def _rank(index: int, salt: str) -> bytes:
    return hashlib.sha256(f"{salt}:{index}".encode()).digest()
