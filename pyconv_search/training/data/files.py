"""The bytes of a data set's files, from a folder or straight out of a tar archive; trouble is a UserError.

No more is unpacked than the data set's files have: a file of a few megabytes may unpack to terabytes.
"""

from __future__ import annotations

import gzip
import io
import lzma
import os
import posixpath
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

from pyconv_search.errors import UserError
from pyconv_search.fields import printable
from pyconv_search.files import open_plain

_OPEN: dict[str, Callable[[BinaryIO], gzip.GzipFile | lzma.LZMAFile]] = {
    ".gz": lambda packed: gzip.GzipFile(fileobj=packed),
    ".xz": lzma.LZMAFile,
}
_BROKEN = (OSError, EOFError, zlib.error, lzma.LZMAError, tarfile.TarError, ValueError, MemoryError)
# Official archives have eight members, and no long names.
_MOST_MEMBERS, _MOST_HEADER = 1000, 2**16
_LONGEST = 300


@dataclass(frozen=True)
class Blob:
    """The unpacked bytes of one file. ``source``: how to name it to the user."""

    source: str
    data: bytes


class _Member(tarfile.TarInfo):
    """A member whose header is small: tarfile reads those of long names as a whole, whatever their size."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        found = super().frombuf(buf, encoding, errors)
        if not found.isreg() and found.size > _MOST_HEADER:
            raise UserError(f"holds a header of {found.size:,} bytes, which no archive of this data set does")
        return found


class _Bounded(io.RawIOBase):
    """What is unpacked, up to ``most`` bytes in all; UserError, without a place, at the first byte beyond."""

    def __init__(self, unpacked: BinaryIO | gzip.GzipFile | lzma.LZMAFile, most: int) -> None:
        super().__init__()
        self._unpacked, self._most = unpacked, most

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._unpacked.read(min(len(buffer), 1 << 20))
        self._most -= len(data)
        if self._most < 0:
            raise UserError("has more bytes than all of the data set")
        buffer[: len(data)] = data
        return len(data)


def read_file(path: Path, most: int) -> Blob:
    """One file of ``most`` bytes or fewer, decompressed where its name ends in .gz or .xz."""
    packed = os.fdopen(open_plain(path), "rb")
    try:
        with packed:
            unpacked = _OPEN[path.suffix](packed) if path.suffix in _OPEN else packed
            return Blob(str(path), _Bounded(unpacked, most).readall())
    except UserError as error:
        raise UserError(f"{path}: {error}; get it again") from None
    except _BROKEN as error:
        if path.suffix not in _OPEN or getattr(error, "strerror", None):
            raise UserError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
        raise UserError(
            f"{path}: is not a complete {path.suffix[1:]} file ({one_line(error)}); get it again"
        ) from error


def read_archive(archive: Path, folder: str, names: tuple[str, ...], most: int) -> dict[str, Blob]:
    """The files ``folder/name`` of a gzipped tar archive by name, in the order of ``names``; all or UserError.

    ``most``: bytes that all of the archive's files may have together.
    """
    packed = os.fdopen(open_plain(archive), "rb")
    try:
        blobs = _members(packed, str(archive), {f"{folder}/{name}": name for name in names}, most)
    except UserError as error:
        raise UserError(f"{archive}: {error}; get it again") from None
    except _BROKEN as error:
        raise UserError(f"{archive}: is not a complete .tar.gz archive ({one_line(error)}); get it again") from error
    missing = [f"{folder}/{name}" for name in names if name not in blobs]
    if missing:
        raise UserError(f"{archive}: does not hold {', '.join(missing)}")
    return {name: blobs[name] for name in names}


def _members(packed: BinaryIO, archive: str, wanted: dict[str, str], most: int) -> dict[str, Blob]:
    blobs = {}
    with packed, gzip.GzipFile(fileobj=packed) as unzipped:
        bounded, total = _Bounded(unzipped, most), 0
        with tarfile.open(fileobj=io.BufferedReader(bounded, 1 << 16), mode="r|", tarinfo=_Member) as tar:
            for count, member in enumerate(tar):
                total += member.size
                if total > most or count == _MOST_MEMBERS:
                    what = f"{total:,} bytes" if total > most else f"more than {_MOST_MEMBERS:,} files"
                    raise UserError(f"holds {what}, which no archive of this data set does")
                name = wanted.get(posixpath.normpath(member.name))
                stream = tar.extractfile(member) if name and member.isfile() else None
                if name and stream:
                    source = f"{archive}: {posixpath.normpath(member.name)}"
                    blobs[name] = Blob(source, stream.read())
        # tarfile stops at its own end mark, before gzip has compared its checksum.
        while bounded.read(1 << 20):
            pass
    return blobs


def one_line(error: BaseException) -> str:
    """What an exception says, on one line."""
    text = " ".join(printable(str(error)).split()) or type(error).__name__
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
