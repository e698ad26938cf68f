"""The table of data sets that can be read, and how one is loaded. A new data set is one family and one line here."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pyconv_search.cores import usable_cores
from pyconv_search.errors import UserError
from pyconv_search.files import expanded
from pyconv_search.study import datasets
from pyconv_search.training.data.cifar import CIFAR10, CIFAR100
from pyconv_search.training.data.dataset import DataSet, Passed, Pool, Split
from pyconv_search.training.data.encoded import Encoded
from pyconv_search.training.data.fashion_mnist import FASHION_MNIST
from pyconv_search.training.data.find import Family, Location, choose, read, search
from pyconv_search.training.data.holdout import VALIDATION_SALT, draw, validation_count
from pyconv_search.training.data.imagenet import IMAGENET
from pyconv_search.training.data.kinetics import KINETICS
from pyconv_search.training.data.pack import beside, check_same, is_pack
from pyconv_search.training.data.pack import read as read_pack
from pyconv_search.training.data.packing import write as write_pack
from pyconv_search.training.data.shapes import IMAGENET_SHAPES, KINETICS_SHAPES
from pyconv_search.training.data.shipped import FASHION_MNIST_SMALL

FAMILIES: dict[str, Family] = {
    "fashion-mnist-small": FASHION_MNIST_SMALL,
    "fashion-mnist": FASHION_MNIST,
    "cifar10": CIFAR10,
    "cifar100": CIFAR100,
    "imagenet": IMAGENET,
    "imagenet-shapes": IMAGENET_SHAPES,
    "kinetics-400": KINETICS,
    "kinetics-shapes": KINETICS_SHAPES,
}


@dataclass(frozen=True, slots=True)
class PackOrder:
    """How a pack is made: where (None: beside the official folder), of images with a shorter side of ``side`` pixels at
    most, by how many threads (None: one a core)."""

    out: Path | None = None
    side: int = 256
    workers: int | None = None


def load(
    name: str,
    root: str | os.PathLike[str] | None = None,
    validation: int | None = None,
    classes: int | None = None,
) -> DataSet:
    """Read a data set and hold ``validation`` images out of its official training split, by class (``holdout.draw``).

    ``root``: a folder or official archive, then the only place looked in. ``validation``: ``info.validation`` unless
    given; 0 leaves the validation split empty. The test split is the official one. ``classes``: what lies there is a
    subset of the data set with so many classes; its validation split is, unless given, the same share of its images.
    Raises UserError for an unknown name, a count that cannot be, and files that are missing, unreadable or not what
    they should be.
    """
    info = datasets.get(name, classes)
    if not info.subset:
        validation_count(info, validation)  # reported before anything is read
    location = choose(name, info.homepage, locations(name, root))
    pool = read(location, info)
    if info.subset:
        info = _counted(info, pool)
    count = validation_count(info, validation)
    if FAMILIES[name].balanced:
        _check_balance(pool, info.classes, location)
    held_out = draw(pool.train.labels, count, VALIDATION_SALT)
    kept = np.setdiff1d(np.arange(len(pool.train)), held_out)
    return DataSet(
        info=replace(info, train=len(kept), validation=count),
        train=pool.train.take(kept),
        validation=pool.train.take(held_out),
        test=pool.test,
        found_at=str(location.path),
        passed=pool.passed,
    )


def locations(name: str, root: str | os.PathLike[str] | None = None) -> tuple[Location, ...]:
    """Every place the data set is looked for, in order, with the files found and missing there."""
    datasets.get(name)
    if root is not None and FAMILIES[name].made:
        raise UserError(f"{name}: is made in memory, but root is {os.fspath(root)}; leave root out")
    return search(FAMILIES[name], root)


def make_pack(
    name: str,
    order: PackOrder,
    root: str | os.PathLike[str] | None = None,
    classes: int | None = None,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Path:
    """Pack the images of a data set, and return where. ``root`` and ``classes`` as for :func:`load`.

    ``progress`` is given the number of images packed and of all.

    Raises:
        UserError: as ``load`` and ``packing.write`` do, and for a data set whose images are not files.
    """
    info, family = datasets.get(name, classes), FAMILIES[name]
    if family.listed is None:
        packed = ", ".join(name for name, other in FAMILIES.items() if other.listed)
        raise UserError(f"{name}: is kept in memory, where nothing needs to be packed; what can be packed is {packed}")
    location = choose(name, info.homepage, locations(name, root))
    if location.tree is None:
        raise UserError(f"{location.path}: is a pack; to make another, give the official folder with --root")
    found = family.listed(location.tree, info)
    out = beside(location.tree) if order.out is None else expanded(order.out)
    return write_pack(found, location.tree, out, order.side, order.workers or usable_cores(), progress).path


def check_pack(name: str, root: str | os.PathLike[str] | None = None, classes: int | None = None) -> tuple[Passed, ...]:
    """Compare a pack that ``load`` would use with the folder beside it, file by file, by name, size and class.

    Returns what else lies in that folder; nothing where no pack would be used.

    Raises:
        UserError: where a file was added, removed, renamed or replaced by one of another size since it was packed.
    """
    family = FAMILIES[name]
    location = choose(name, datasets.get(name).homepage, locations(name, root))
    if family.listed is not None and location.tree is not None and is_pack(location.path):
        found = family.listed(location.tree, datasets.get(name, classes))
        check_same(read_pack(location.path), found, location.tree)
        return found.passed
    return ()


def _counted(info: datasets.DataSetInfo, pool: Pool) -> datasets.DataSetInfo:
    """The counts of a subset that was read, for the estimates."""
    return replace(datasets.parted(info, len(pool.train), info), test=len(pool.test))


def _check_balance(pool: Pool, classes: int, location: Location) -> None:
    """UserError where the classes are not of one size, as they are in all of these data sets.

    It tells the digits of MNIST from Fashion-MNIST, whose files have the same names and sizes.
    """
    for what, split in (("training", pool.train), ("test", pool.test)):
        sizes, right = _class_sizes(split, classes), len(split) // classes
        for label, size in enumerate(sizes):
            if size != right:
                raise UserError(
                    f"{location.path}: class {label} has {size:,} {what} images, but must have {right:,}; "
                    "is this another data set under the same file names?"
                )


def _class_sizes(split: Split | Encoded, classes: int) -> list[int]:
    return np.bincount(split.labels, minlength=classes).tolist()
