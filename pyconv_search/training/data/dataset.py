"""What a loaded data set is: uint8 images, or encoded ones, and integer labels, in three splits."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pyconv_search.errors import UserError
from pyconv_search.study.datasets import DataSetInfo
from pyconv_search.training.data.encoded import Encoded


@dataclass(frozen=True, eq=False)
class Split:
    """``images``: uint8, N × C × H × W (clips: N × C × T × H × W), 0 to 255. ``labels``: int64, N, from 0."""

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.images.dtype != np.uint8 or self.images.ndim not in (4, 5):
            raise ValueError(f"images must be uint8 N×C×H×W, but are {self.images.dtype} {self.images.shape}")
        if self.labels.dtype != np.int64 or self.labels.shape != self.images.shape[:1]:
            raise ValueError(f"labels must be int64, one an image, but are {self.labels.dtype} {self.labels.shape}")

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: npt.NDArray[np.int64]) -> Split:
        """The images at ``indices``, in that order, as arrays of their own."""
        return Split(self.images[indices], self.labels[indices])


@dataclass(frozen=True, slots=True)
class Passed:
    """An entry of a data set's folder that is none of its images: ``name``, its path there, and why."""

    name: str
    why: str


@dataclass(frozen=True, eq=False)
class Pool:
    """The official splits of a data set as its files hold them, before validation images are held out.

    ``passed``: what else lies in its folder.
    """

    train: Split | Encoded
    test: Split | Encoded
    passed: tuple[Passed, ...] = ()


@dataclass(frozen=True, eq=False)
class DataSet:
    """A data set, in memory or as encoded images. ``info`` carries the counts of these very splits.

    ``found_at``: folder or archive read. ``passed``: what lies there and is none of its images.
    """

    info: DataSetInfo
    train: Split | Encoded
    validation: Split | Encoded
    test: Split | Encoded
    found_at: str = ""
    passed: tuple[Passed, ...] = ()

    @property
    def splits(self) -> dict[str, Split | Encoded]:
        """The three splits by name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}


def in_memory(split: Split | Encoded) -> Split:
    """The split itself; TypeError where its images are encoded."""
    if isinstance(split, Encoded):
        raise TypeError("the images of this split are not in memory")
    return split


def as_labels(values: npt.ArrayLike, classes: int, source: str) -> npt.NDArray[np.int64]:
    """``values`` as int64 labels; UserError naming ``source`` where one is not in 0 … classes - 1."""
    labels = np.asarray(values)
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(wrong):
        where = int(wrong[0])
        raise UserError(f"{source}: label {labels[where]} of image {where}; labels must be 0 to {classes - 1}")
    return labels.astype(np.int64)


def split_sha256(split: Split | Encoded) -> str:
    """SHA-256 over the shape, the labels (as little-endian 64-bit integers) and the pixels, as hexadecimal.

    Of encoded images it is over names, sizes and labels.
    """
    if isinstance(split, Encoded):
        return split.sha256()
    digest = hashlib.sha256(repr(tuple(int(n) for n in split.images.shape)).encode())
    digest.update(split.labels.astype("<i8").tobytes())
    digest.update(np.ascontiguousarray(split.images).data if split.images.size else b"")
    return digest.hexdigest()


def combine_sha256(splits: dict[str, str]) -> str:
    """One SHA-256 over the names and SHA-256 of several splits."""
    return hashlib.sha256("\n".join(f"{name} {digest}" for name, digest in splits.items()).encode()).hexdigest()


def fingerprint(dataset: DataSet) -> str:
    """SHA-256 over all three splits: the same images, labels, order and split give the same text."""
    return combine_sha256({name: split_sha256(split) for name, split in dataset.splits.items()})
