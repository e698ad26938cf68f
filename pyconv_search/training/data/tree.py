"""A tree of image files: one folder a class, for training and for validation."""

from __future__ import annotations

import hashlib
import os
import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pyconv_search.errors import UserError
from pyconv_search.training.data.dataset import Pool
from pyconv_search.training.data.encoded import Encoded, Folder, Store


@dataclass(frozen=True, eq=False)
class Listing:
    """The images of a data set, training images first: ``train`` of them. ``names``: paths below its root, as bytes.

    ``labels``: int64, one an image, numbers of ``classes``.
    """

    names: npt.NDArray[np.bytes_]
    labels: npt.NDArray[np.int64]
    train: int
    classes: tuple[str, ...]

    def pool(self, store: Store, video: bool = False) -> Pool:
        """The two official splits of a store that holds these images, or videos, in this order."""
        numbers = np.arange(len(self.labels), dtype=np.int64)
        train, test = (
            Encoded(store, numbers[part], self.labels[part], video)
            for part in (slice(self.train), slice(self.train, None))
        )
        return Pool(train, test)

    def store(self, root: Path) -> Folder:
        """The images as files below ``root``."""
        return Folder(root, self.names)


@dataclass(frozen=True)
class Labelled:
    """Names, as paths below the root, with the name of the class of each."""

    names: tuple[str, ...]
    classes: tuple[str, ...]


def listing(train: Labelled, test: Labelled) -> Listing:
    """Both splits as one listing; classes are numbered in sorted order, test images sorted by name across folders.

    So a test split in folders and a flat one are the same, image by image.
    """
    classes = tuple(sorted(set(train.classes)))
    number = {name: i for i, name in enumerate(classes)}
    ordered = sorted(zip(test.names, test.classes, strict=True), key=lambda pair: (posixpath.basename(pair[0]), pair))
    names = [*train.names, *(name for name, _ in ordered)]
    labels = [*(number[c] for c in train.classes), *(number[c] for _, c in ordered)]
    encoded = np.array([os.fsencode(name) for name in names])
    return Listing(encoded, np.array(labels, np.int64), len(train.names), classes)


def folders(root: Path) -> tuple[str, ...]:
    """The names of the folders in ``root``, sorted, hidden ones left out; UserError where it cannot be read."""
    try:
        with os.scandir(root) as entries:
            return tuple(sorted(e.name for e in entries if e.is_dir() and not e.name.startswith(".")))
    except OSError as error:
        raise UserError(f"{root}: cannot be read ({error.strerror})") from error


def files(folder: Path, suffixes: tuple[str, ...]) -> tuple[str, ...]:
    """The names of the files with one of these suffixes, in lower case, sorted; UserError where there is none."""
    try:
        with os.scandir(folder) as entries:
            found = tuple(sorted(e.name for e in entries if e.name.lower().endswith(suffixes) and e.name[0] != "."))
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror})") from error
    if not found:
        raise UserError(f"{folder}: has no file that ends in {', '.join(suffixes)}")
    return found


def by_folder(root: Path, split: str, classes: Sequence[str], suffixes: tuple[str, ...]) -> Labelled:
    """The images in ``root/split/<class>/`` for each of ``classes``; UserError where a class has none."""

    def each() -> Iterator[tuple[str, str]]:
        for name in classes:
            yield from ((f"{split}/{name}/{file}", name) for file in files(root / split / name, suffixes))

    names, owners = zip(*each(), strict=True)
    return Labelled(names, owners)


def stamp(root: Path) -> str:
    """A digest that changes when a file is added to the tree, removed or renamed: the times of its folders."""
    digest = hashlib.sha256()
    for split in folders(root):
        for folder in (split, *(f"{split}/{name}" for name in folders(root / split))):
            digest.update(f"{folder} {(root / folder).stat().st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
