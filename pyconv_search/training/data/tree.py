"""A tree of image files: one folder a class, for training and for validation.

What counts is what torchvision's ImageFolder reads: the files in a class's folder and in all folders below it, links
followed, ordered by folder and then by name. Unlike there, hidden files and folders do not count, and a folder that
leads back to one above it is entered once. Whatever is passed over is listed with the reason.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pyconv_search.errors import UserError
from pyconv_search.training.data.dataset import Passed, Pool
from pyconv_search.training.data.encoded import Encoded, Folder, Store

# Ways to one folder, through links: chains of folders with two links each to the next would double them without end.
_MOST_WAYS = 64
# Bytes of all names, each as long as the longest.
_MOST_NAMES = 400_000_000


@dataclass(frozen=True, eq=False)
class Listing:
    """The images of a data set, training images first: ``train`` of them. ``names``: paths below its root, as bytes.

    ``labels``: int64, one an image, numbers of ``classes``. ``passed``: what else lies in the tree. ``inner``: the
    folders below those of the classes.
    """

    names: npt.NDArray[np.bytes_]
    labels: npt.NDArray[np.int64]
    train: int
    classes: tuple[str, ...]
    passed: tuple[Passed, ...] = ()
    inner: tuple[str, ...] = ()

    def pool(self, store: Store, video: bool = False) -> Pool:
        """The two official splits of a store that holds these images, or videos, in this order."""
        numbers = np.arange(len(self.labels), dtype=np.int64)
        train, test = (
            Encoded(store, numbers[part], self.labels[part], video)
            for part in (slice(self.train), slice(self.train, None))
        )
        return Pool(train, test, self.passed)

    def store(self, root: Path) -> Folder:
        """The images as files below ``root``."""
        return Folder(root, self.names)


@dataclass(frozen=True)
class Labelled:
    """Names, as paths below the root, with the name of the class of each; ``passed``, ``inner``: as in a Listing."""

    names: tuple[str, ...]
    classes: tuple[str, ...]
    passed: tuple[Passed, ...] = ()
    inner: tuple[str, ...] = ()


def listing(train: Labelled, test: Labelled) -> Listing:
    """Both splits as one listing; classes are numbered in sorted order, test images sorted by name across folders.

    So a test split in folders and a flat one are the same, image by image.
    """
    classes = tuple(sorted(set(train.classes)))
    number = {name: i for i, name in enumerate(classes)}
    ordered = sorted(zip(test.names, test.classes, strict=True), key=lambda pair: (posixpath.basename(pair[0]), pair))
    names = [os.fsencode(name) for name in (*train.names, *(name for name, _ in ordered))]
    if (longest := max(map(len, names))) * len(names) > _MOST_NAMES:
        raise UserError(f"a path of {longest:,} bytes among {len(names):,} images is too long; rename its folders")
    labels = [*(number[c] for c in train.classes), *(number[c] for _, c in ordered)]
    return Listing(
        np.array(names),
        np.array(labels, np.int64),
        len(train.names),
        classes,
        train.passed + test.passed,
        train.inner + test.inner,
    )


class _Entry(NamedTuple):
    name: str
    folder: bool


def _entries(folder: Path) -> list[_Entry]:
    """What lies in a folder, by name; links to folders are folders. UserError where it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return sorted(_Entry(entry.name, _is_folder(entry)) for entry in entries)
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror})") from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link in a circle
        return False


def folders(root: Path) -> tuple[str, ...]:
    """The names of the folders in ``root``, sorted, hidden ones left out; UserError where it cannot be read."""
    return tuple(entry.name for entry in _entries(root) if entry.folder and not entry.name.startswith("."))


def files(root: Path, folder: str, suffixes: tuple[str, ...]) -> Labelled:
    """The files in ``root/folder`` alone with one of these suffixes, in lower case; UserError where there is none."""
    found = _Found(suffixes)
    for entry in _entries(root / folder):
        found.file(f"{folder}/{entry.name}", entry.name)
    return Labelled(tuple(found.some(root / folder)), (), tuple(found.passed))


def by_folder(root: Path, split: str, classes: Sequence[str], suffixes: tuple[str, ...]) -> Labelled:
    """The images below ``root/split/<class>/`` for each of ``classes``; UserError where a class has none."""
    names: list[str] = []
    owners: list[str] = []
    inner: list[str] = []
    passed = list(_beside(root, split, classes))
    for name in classes:
        found = _below(root, f"{split}/{name}", suffixes)
        names += found.some(root / split / name)
        owners += [name] * len(found.names)
        passed += found.passed
        inner += found.inner
    return Labelled(tuple(names), tuple(owners), tuple(passed), tuple(inner))


def _beside(root: Path, split: str, classes: Sequence[str]) -> Iterator[Passed]:
    """What lies beside the folders of the classes."""
    known = set(classes)
    for entry in _entries(root / split):
        if entry.name not in known:
            hidden = entry.name.startswith(".")
            why = "is hidden" if hidden else "is no class of train/" if entry.folder else "lies outside of every class"
            yield Passed(f"{split}/{entry.name}", why)


class _Found:
    """Names of images, what was passed over, and the folders that were entered below the first."""

    def __init__(self, suffixes: tuple[str, ...]) -> None:
        self.suffixes = suffixes
        self.names: list[str] = []
        self.passed: list[Passed] = []
        self.inner: list[str] = []

    def file(self, path: str, name: str) -> None:
        if name.startswith("."):
            self.passed.append(Passed(path, "is hidden"))
        elif name.lower().endswith(self.suffixes):
            self.names.append(path)
        else:
            self.passed.append(Passed(path, f"does not end in {', '.join(self.suffixes)}"))

    def some(self, folder: Path) -> list[str]:
        """The names; UserError where there is none."""
        if not self.names:
            more = f", but {len(self.passed):,} other entries" if self.passed else ""
            raise UserError(f"{folder}: has no file that ends in {', '.join(self.suffixes)}{more}")
        return self.names


def _below(root: Path, top: str, suffixes: tuple[str, ...]) -> _Found:
    """The images below one folder, in the order of torchvision's ``sorted(os.walk(top, followlinks=True))``."""
    found, ways = _Found(suffixes), Counter[tuple[int, int]]()
    inside: dict[str, list[str]] = {}
    waiting: list[tuple[str, tuple[tuple[int, int], ...]]] = [(top, (_identity(root / top),))]
    while waiting:
        folder, above = waiting.pop()
        inside[folder] = []
        for name, is_folder in _entries(root / folder):
            path = f"{folder}/{name}"
            if not is_folder:
                inside[folder].append(name)
            elif name.startswith("."):
                found.passed.append(Passed(path, "is hidden"))
            elif (own := _identity(root / path)) in above:
                found.passed.append(Passed(path, "leads back to a folder above it"))
            else:
                ways[own] += 1
                if ways[own] > _MOST_WAYS:
                    raise UserError(f"{root / path}: is reached in more than {_MOST_WAYS} ways through links")
                found.inner.append(path)
                waiting.append((path, (*above, own)))
    for folder in sorted(inside):
        for name in inside[folder]:
            found.file(f"{folder}/{name}", name)
    return found


def _identity(folder: Path) -> tuple[int, int]:
    try:
        status = folder.stat()
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror})") from error
    return status.st_dev, status.st_ino


def stamp(root: Path, inner: Sequence[str] = ()) -> str:
    """A digest that changes when a file is added to the tree, removed or renamed: the times of its folders.

    ``inner``: the folders below those of the classes; one that is new changes the time of the folder that it is in.
    """
    digest = hashlib.sha256()
    outer = [path for split in folders(root) for path in (split, *(f"{split}/{n}" for n in folders(root / split)))]
    for folder in (*outer, *inner):
        try:
            time = (root / folder).stat().st_mtime_ns
        except OSError:
            time = 0
        digest.update(f"{folder} {time}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
