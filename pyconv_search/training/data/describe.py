"""What there is to say about the data sets on this machine: one row each, or one of them read in full."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

from pyconv_search.study import datasets
from pyconv_search.training.data.dataset import Split, combine_sha256, split_sha256
from pyconv_search.training.data.registry import load, locations


@dataclass(frozen=True)
class SplitReport:
    """``images``: how many; ``per_class``: how many of each class, by label; ``sha256`` of labels and pixels."""

    name: str
    images: int
    per_class: tuple[int, ...]
    sha256: str


@dataclass(frozen=True)
class CheckReport:
    """A data set that was read in full. ``input`` is (C, H, W); ``fingerprint`` is that of the whole data set."""

    name: str
    found_at: str
    input: tuple[int, int, int]
    classes: int
    splits: tuple[SplitReport, ...]
    fingerprint: str


@dataclass(frozen=True)
class ListingRow:
    """A known data set. ``found_at``: the folder or archive it would be read from, or None; ``looked_in``: every place
    with what is wrong there ("": nothing)."""

    name: str
    about: str
    input: tuple[int, int, int]
    classes: int
    train: int
    validation: int
    test: int
    found_at: str | None
    looked_in: tuple[tuple[str, str], ...]


def check(name: str, root: str | os.PathLike[str] | None = None) -> CheckReport:
    """Load a data set in full and describe it; raises UserError as ``load`` does."""
    data = load(name, root)
    splits = tuple(_describe(split_name, split, data.info.classes) for split_name, split in data.splits.items())
    return CheckReport(
        name=name,
        found_at=data.found_at,
        input=data.info.input,
        classes=data.info.classes,
        splits=splits,
        fingerprint=combine_sha256({split.name: split.sha256 for split in splits}),
    )


def listing() -> tuple[ListingRow, ...]:
    """Every known data set and whether it is on this machine; reads no data and raises nothing."""
    return tuple(_row(info) for info in datasets.DATA_SETS.values())


def _describe(name: str, split: Split, classes: int) -> SplitReport:
    per_class = tuple(np.bincount(split.labels, minlength=classes).tolist())
    return SplitReport(name, len(split), per_class, split_sha256(split))


def _row(info: datasets.DataSetInfo) -> ListingRow:
    tried = locations(info.name)
    return ListingRow(
        name=info.name,
        about=info.about,
        input=info.input,
        classes=info.classes,
        train=info.train,
        validation=info.validation,
        test=info.test,
        found_at=next((str(location.path) for location in tried if location.complete), None),
        looked_in=tuple((str(location.path), location.problem) for location in tried),
    )
