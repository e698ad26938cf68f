"""A split of images that stay encoded until they are needed: data sets beyond memory."""

from __future__ import annotations

import hashlib
import os
import posixpath
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from pyconv_search.errors import UserError
from pyconv_search.files import read_plain

# Bytes of one encoded image or video.
MOST_BYTES = 2**28


class Store(Protocol):
    """Encoded images by number. ``names``: relative paths of the official files, as bytes; ``sizes``: theirs, in bytes.

    ``form``: how what is stored differs from the official files ("": in nothing).
    """

    @property
    def names(self) -> npt.NDArray[np.bytes_]: ...

    @property
    def form(self) -> str: ...

    @property
    def sizes(self) -> npt.NDArray[np.int64]: ...

    def read(self, number: int) -> bytes:
        """The bytes of one image; UserError where they cannot be read."""
        ...

    def source(self, number: int) -> str:
        """How to name it to the user."""
        ...


@dataclass(frozen=True, eq=False)
class Folder:
    """Images as the files of a folder."""

    root: Path
    names: npt.NDArray[np.bytes_]
    form: str = ""

    @cached_property
    def sizes(self) -> npt.NDArray[np.int64]:
        """Read when first asked for: on a file system in a network it takes long."""
        try:
            return np.array([self._path(number).stat().st_size for number in range(len(self.names))], np.int64)
        except OSError as error:
            raise UserError(f"{error.filename}: cannot be read: {error.strerror or error}") from error

    def read(self, number: int) -> bytes:
        """As :class:`Store` has it."""
        return read_plain(self._path(number), MOST_BYTES, "an image or a video")

    def source(self, number: int) -> str:
        """As :class:`Store` has it."""
        return str(self._path(number))

    def _path(self, number: int) -> Path:
        return self.root / os.fsdecode(self.names[number])


@dataclass(frozen=True, eq=False)
class Encoded:
    """``store`` holds the images, of which those at ``numbers`` (int64, N) are here. ``labels``: int64, N, from 0.

    ``video``: they are videos.
    """

    store: Store
    numbers: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    video: bool = False

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: npt.NDArray[np.int64]) -> Encoded:
        """The images at ``indices``, in that order."""
        return Encoded(self.store, self.numbers[indices], self.labels[indices], self.video)

    def read(self, index: int) -> bytes:
        """The encoded image at ``index``."""
        return self.store.read(int(self.numbers[index]))

    def source(self, index: int) -> str:
        """How to name the image at ``index`` to the user."""
        return self.store.source(int(self.numbers[index]))

    def sha256(self) -> str:
        """SHA-256 over names, sizes and labels of the official files, wherever they lie, and how they were changed."""
        digest = hashlib.sha256(f"{self.store.form}\n".encode())
        digest.update(self.labels.astype("<i8").tobytes())
        digest.update(self.store.sizes[self.numbers].astype("<i8").tobytes())
        names = (posixpath.basename(name) for name in self.store.names[self.numbers].tolist())
        digest.update(b"\n".join(names))
        return digest.hexdigest()
