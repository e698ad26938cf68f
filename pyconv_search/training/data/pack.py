"""Images packed into one file: their shorter side cut down to what training needs, so that they decode fast.

A pack is a folder with ``images.bin`` (JPEG files one after the other) and ``index.npz`` (where each begins, and what
the official files were). ``pyconv_search.training.data.packing`` makes it.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pyconv_search.errors import UserError
from pyconv_search.files import read_plain
from pyconv_search.training.data.files import one_line
from pyconv_search.training.data.tree import Listing, stamp

QUALITY = 95
IMAGES, INDEX = "images.bin", "index.npz"
FORMAT = 1
# Bytes of an index: that of ImageNet has 92 million.
MOST_INDEX = 400_000_000


@dataclass(frozen=True, eq=False)
class Pack:
    """A pack that was read: a store of its images. ``offsets``: int64, N + 1, in bytes; ``side``: in pixels.

    ``sizes`` are those of the official files, in bytes; ``stamp`` is that of the tree that was packed, with the folders
    ``inner``; None where a version that read no folders below those of the classes packed it.
    """

    path: Path
    listing: Listing
    sizes: npt.NDArray[np.int64]
    offsets: npt.NDArray[np.int64]
    side: int
    stamp: str
    inner: tuple[str, ...] | None

    @property
    def names(self) -> npt.NDArray[np.bytes_]:
        """As :class:`Store` has it."""
        return self.listing.names

    @property
    def form(self) -> str:
        """As :class:`Store` has it."""
        return f"short side {self.side}, JPEG quality {QUALITY}"

    def read(self, number: int) -> bytes:
        """As :class:`Store` has it."""
        begin, end = (int(n) for n in self.offsets[number : number + 2])
        try:
            data = os.pread(self._file.fileno(), end - begin, begin)
        except OSError as error:
            raise UserError(f"{self.path / IMAGES}: cannot be read ({error.strerror or error})") from error
        if len(data) < end - begin:
            raise UserError(
                f"{self.path / IMAGES}: ends before {self.source(number)}; remove {self.path} and pack again"
            )
        return data

    def source(self, number: int) -> str:
        """As :class:`Store` has it."""
        return f"{self.path}: {os.fsdecode(self.names[number])}"

    def is_of(self, tree: Path) -> bool:
        """Whether no file was added to the tree, removed or renamed since it was packed."""
        return self.inner is not None and stamp(tree, self.inner) == self.stamp

    @cached_property
    def _file(self) -> io.FileIO:
        return io.FileIO(self.path / IMAGES)


def beside(tree: Path) -> Path:
    """Where the pack of a tree lies unless the user says otherwise."""
    return tree.with_name(f"{tree.name}.pack")


def is_pack(path: Path) -> bool:
    """Whether a folder is a complete pack."""
    return (path / INDEX).is_file() and (path / IMAGES).is_file()


def read(path: Path) -> Pack:
    """The pack in a folder; UserError where it is damaged or was made by another version."""
    content = read_plain(path / INDEX, MOST_INDEX, "the index of a pack")
    try:
        return _pack(path, content, (path / IMAGES).stat().st_size)
    except Exception as error:  # broken files raise anything at all
        raise UserError(f"{path}: is not a readable pack ({one_line(error)}); remove it and pack again") from error


def _pack(path: Path, content: bytes, size: int) -> Pack:
    """The pack that an index of such ``content`` and images of ``size`` bytes are; an error of any kind if none."""
    with zipfile.ZipFile(io.BytesIO(content)) as members:
        # What is compressed could unpack to anything.
        if sum(member.file_size for member in members.infolist()) > len(content):
            raise ValueError("its index is compressed")
    with np.load(io.BytesIO(content), allow_pickle=False) as index:
        head = json.loads(index["head"].tobytes())
        names, labels, sizes, offsets = (index[name] for name in ("names", "labels", "sizes", "offsets"))
    if head["format"] != FORMAT:
        raise ValueError(f"format {head['format']}, not {FORMAT}")
    classes, inner = head["classes"], head.get("inner")
    _check(
        {
            "names": names.ndim == 1 and names.dtype.kind == "S",
            "labels": labels.dtype == np.int64 and labels.shape == names.shape,
            "classes": _texts(classes) and (labels >= 0).all() and (labels < len(classes)).all(),
            "sizes": sizes.dtype == np.int64 and sizes.shape == names.shape,
            "offsets": offsets.dtype == np.int64 and offsets.shape == (len(names) + 1,) and offsets[0] == 0,
            "train": type(head["train"]) is int and 0 <= head["train"] <= len(names),
            "side": type(head["side"]) is int,
            "stamp": isinstance(head["stamp"], str),
            "inner": inner is None or _texts(inner),
        }
    )
    _check({"offsets": (np.diff(offsets) >= 0).all()})
    if size != offsets[-1]:
        raise ValueError(f"{IMAGES} has another size than {offsets[-1]:,} bytes")
    listed = Listing(names, labels, head["train"], tuple(classes))
    return Pack(path, listed, sizes, offsets, head["side"], head["stamp"], None if inner is None else tuple(inner))


def _texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _check(found: dict[str, bool]) -> None:
    if wrong := [name for name, right in found.items() if not right]:
        raise ValueError(f"its index holds something else as {', '.join(wrong)}")


def check_same(packed: Pack, found: Listing, tree: Path) -> None:
    """UserError where the images of ``tree``, as ``found`` now, are not those that were packed."""
    then, now = packed.listing, found
    same = np.array_equal(then.names, now.names) and np.array_equal(then.labels, now.labels)
    if not same or not np.array_equal(packed.sizes, now.store(tree).sizes):
        counts = len(then.labels), len(now.labels)
        what = "as many images, but others" if counts[0] == counts[1] else "{:,} images then, {:,} now".format(*counts)
        raise UserError(
            f"{tree}: has changed since {packed.path} was packed ({what}); remove the pack and make it again with "
            "`pyconv-search data pack`"
        )
