"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009) in their official binary and python layouts, unpacked or as archives.

https://www.cs.toronto.edu/~kriz/cifar.html. An image is 3,072 bytes: the red plane, row by row, then green, then blue.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt

from pyconv_search.errors import UserError
from pyconv_search.study.datasets import DataSetInfo
from pyconv_search.training.data.dataset import Pool, Split, as_labels
from pyconv_search.training.data.files import Blob
from pyconv_search.training.data.find import Family, Layout
from pyconv_search.training.data.pickles import load_batch

Parse = Callable[[DataSetInfo, Blob, int], Split]

_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))


def parse_binary(info: DataSetInfo, blob: Blob, count: int, label_bytes: int) -> Split:
    """A binary batch: ``count`` rows of ``label_bytes`` bytes, the last of which is the (fine) label, and the image."""
    row = label_bytes + int(np.prod(info.input))
    if len(blob.data) != count * row:
        raise UserError(
            f"{blob.source}: has {len(blob.data):,} bytes, but must have {count * row:,} ({count:,} images of {row:,})"
        )
    rows = np.frombuffer(blob.data, np.uint8).reshape(count, row)
    labels = as_labels(rows[:, label_bytes - 1], info.classes, blob.source)
    return Split(_images(info, rows[:, label_bytes:]), labels)


def parse_python(info: DataSetInfo, blob: Blob, count: int, key: str) -> Split:
    """A pickled batch: ``data``, uint8 ``count`` × 3,072, and a list of labels under ``key``."""
    batch = load_batch(blob, count)
    data, labels = batch.get("data"), batch.get(key)
    shape = (count, int(np.prod(info.input)))
    if not isinstance(data, np.ndarray) or data.shape != shape:
        raise UserError(f"{blob.source}: 'data' must be an array of {shape[0]} × {shape[1]} unsigned bytes{_got(data)}")
    if not isinstance(labels, list) or len(labels) != count or not all(map(_is_label, labels)):
        raise UserError(f"{blob.source}: {key!r} must be a list of {count:,} whole numbers{_got(labels)}")
    return Split(_images(info, data), as_labels(labels, info.classes, blob.source))


def _is_label(value: object) -> bool:
    return type(value) is int and value.bit_length() <= 128


def _got(value: object) -> str:
    if value is None:
        return ", but there is none"
    size = getattr(value, "shape", None) or (len(value) if isinstance(value, list) else None)
    return f", but is a {type(value).__name__}" + (f" of {size}" if size is not None else "")


def _images(info: DataSetInfo, rows: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return rows.reshape(len(rows), *info.input)


def _read(info: DataSetInfo, blobs: dict[str, Blob], parse: Parse) -> Pool:
    """The last file is the test split, those before it are equal parts of the training split."""
    *train, test = blobs.values()
    each = (info.train + info.validation) // len(train)
    parts = [parse(info, blob, each) for blob in train]
    return Pool(_join(parts), _join([parse(info, test, info.test)]))


def _join(parts: list[Split]) -> Split:
    return Split(np.concatenate([part.images for part in parts]), np.concatenate([part.labels for part in parts]))


CIFAR10 = Family(
    layouts=(
        Layout(
            files=(*(f"{batch}.bin" for batch in _BATCHES), "test_batch.bin"),
            read=partial(_read, parse=partial(parse_binary, label_bytes=1)),
            folder="cifar-10-batches-bin",
            archive="cifar-10-binary.tar.gz",
        ),
        Layout(
            files=(*_BATCHES, "test_batch"),
            read=partial(_read, parse=partial(parse_python, key="labels")),
            folder="cifar-10-batches-py",
            archive="cifar-10-python.tar.gz",
        ),
    ),
    subfolders=("cifar10", "cifar-10", "CIFAR10"),
)

CIFAR100 = Family(
    layouts=(
        Layout(
            files=("train.bin", "test.bin"),
            read=partial(_read, parse=partial(parse_binary, label_bytes=2)),
            folder="cifar-100-binary",
            archive="cifar-100-binary.tar.gz",
        ),
        Layout(
            files=("train", "test"),
            read=partial(_read, parse=partial(parse_python, key="fine_labels")),
            folder="cifar-100-python",
            archive="cifar-100-python.tar.gz",
        ),
    ),
    subfolders=("cifar100", "cifar-100", "CIFAR100"),
)
