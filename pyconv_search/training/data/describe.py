"""What there is to say about the data sets on this machine: one row each, or one of them read in full."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from pyconv_search.cores import usable_cores
from pyconv_search.errors import UserError
from pyconv_search.study import datasets
from pyconv_search.training.data.dataset import DataSet, Passed, Split, combine_sha256, split_sha256
from pyconv_search.training.data.encoded import Encoded
from pyconv_search.training.data.parallel import in_order
from pyconv_search.training.data.picture import loaded, opened
from pyconv_search.training.data.registry import check_pack, load, locations
from pyconv_search.training.data.video import verify

# Broken files that a message names.
_NAMED = 100


@dataclass(frozen=True)
class SplitReport:
    """``images``: how many; ``per_class``: how many of each class, by label; ``sha256`` of the whole split."""

    name: str
    images: int
    per_class: tuple[int, ...]
    sha256: str


@dataclass(frozen=True)
class CheckReport:
    """A data set that was read in full. ``input`` is (C, H, W); ``fingerprint`` is that of the whole data set.

    ``passed``: what lies in its folder and is none of its images, with the reasons. ``converted``: how many images are
    of other modes than RGB, by Pillow's name of the mode. ``repeated``: pairs of files that are the same byte for byte,
    the second of each being the first that was met.
    """

    name: str
    found_at: str
    input: tuple[int, ...]
    classes: int
    splits: tuple[SplitReport, ...]
    fingerprint: str
    passed: tuple[Passed, ...] = ()
    converted: tuple[tuple[str, int], ...] = ()
    repeated: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class ListingRow:
    """A known data set. ``found_at``: the folder or archive it would be read from, or None; ``looked_in``: every place
    with what is wrong there ("": nothing)."""

    name: str
    about: str
    input: tuple[int, ...]
    classes: int
    train: int
    validation: int
    test: int
    found_at: str | None
    looked_in: tuple[tuple[str, str], ...]


def check(
    name: str,
    root: str | os.PathLike[str] | None = None,
    classes: int | None = None,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> CheckReport:
    """Load a data set in full, decode every image or video of it, and describe it.

    ``classes`` as for ``load``. ``progress`` is given the number of images decoded and of all.

    Raises:
        UserError: as ``load`` and ``check_pack`` do, or with the names of all files that cannot be decoded.
    """
    data = load(name, root, classes=classes)
    beside = check_pack(name, root, classes)
    looked = _looked(data, progress)
    broken = [seen.problem for seen in looked if seen.problem]
    if broken:
        more = [f"and {len(broken) - _NAMED:,} more"] if len(broken) > _NAMED else []
        count = f"{len(broken):,} file{'s' if len(broken) > 1 else ''}"
        raise UserError("\n".join([f"{name}: {count} cannot be decoded", *broken[:_NAMED], *more]))
    splits = tuple(_describe(split_name, split, data.info.classes) for split_name, split in data.splits.items())
    return CheckReport(
        name=name,
        found_at=data.found_at,
        input=data.info.input,
        classes=data.info.classes,
        splits=splits,
        fingerprint=combine_sha256({split.name: split.sha256 for split in splits}),
        passed=data.passed + beside,
        converted=tuple(sorted(Counter(seen.mode for seen in looked if seen.mode not in ("", "RGB")).items())),
        repeated=_repeated(looked),
    )


def listing() -> tuple[ListingRow, ...]:
    """Every known data set and whether it is on this machine; reads no data and raises nothing."""
    return tuple(_row(info) for info in datasets.DATA_SETS.values())


class _Seen(NamedTuple):
    """One file that was decoded: what is wrong with it, or Pillow's mode of it, and a digest of its bytes."""

    source: str
    problem: str
    mode: str = ""
    digest: bytes = b""


def _looked(data: DataSet, progress: Callable[[int, int], None]) -> list[_Seen]:
    """Every file of a data set, decoded."""
    splits = [split for split in data.splits.values() if isinstance(split, Encoded)]
    jobs = ((split, index) for split in splits for index in range(len(split)))
    count, found = sum(map(len, splits)), []
    for done, seen in enumerate(in_order(_look, jobs, usable_cores(), 16 * usable_cores()), 1):
        found.append(seen)
        progress(done, count)
    return found


def _look(job: tuple[Encoded, int]) -> _Seen:
    split, index = job
    source = split.source(index)
    try:
        data, mode = split.read(index), ""
        if split.video:
            verify(data, source)
        else:
            image = opened(data, source)
            mode = image.mode
            loaded(image, source)
    except UserError as error:
        return _Seen(source, str(error))
    return _Seen(source, "", mode, hashlib.blake2b(data, digest_size=16).digest())


def _repeated(looked: list[_Seen]) -> tuple[tuple[str, str], ...]:
    first: dict[bytes, str] = {}
    return tuple(
        (seen.source, earlier)
        for seen in looked
        if (earlier := first.setdefault(seen.digest, seen.source)) != seen.source
    )


def _describe(name: str, split: Split | Encoded, classes: int) -> SplitReport:
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
