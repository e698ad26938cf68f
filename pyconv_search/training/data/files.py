"""The bytes of a data set's files, from a folder or straight out of a tar archive; trouble is a UserError."""

from __future__ import annotations

import gzip
import lzma
import posixpath
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from pyconv_search.errors import UserError

_OPEN: dict[str, type[gzip.GzipFile] | type[lzma.LZMAFile]] = {".gz": gzip.GzipFile, ".xz": lzma.LZMAFile}
_MOST_BYTES = 1 << 29  # three times the largest file of any data set here; what unpacks to more is no such file
_BROKEN = (OSError, EOFError, zlib.error, lzma.LZMAError, tarfile.TarError)


@dataclass(frozen=True)
class Blob:
    """The unpacked bytes of one file. ``source``: how to name it to the user."""

    source: str
    data: bytes


def read_file(path: Path) -> Blob:
    """One file, decompressed where its name ends in .gz or .xz."""
    try:
        with _OPEN[path.suffix](path) if path.suffix in _OPEN else path.open("rb") as unpacked:
            return Blob(str(path), _bounded(unpacked.read(_MOST_BYTES + 1), str(path)))
    except _BROKEN as error:
        if path.suffix not in _OPEN or getattr(error, "strerror", None):
            raise UserError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
        raise UserError(
            f"{path}: is not a complete {path.suffix[1:]} file ({one_line(error)}); get it again"
        ) from error


def _bounded(data: bytes, source: str) -> bytes:
    if len(data) > _MOST_BYTES:
        raise UserError(f"{source}: unpacks to more than {_MOST_BYTES:,} bytes, which no file of a data set here does")
    return data


def read_archive(archive: Path, folder: str, names: tuple[str, ...]) -> dict[str, Blob]:
    """The files ``folder/name`` of a gzipped tar archive by name, in the order of ``names``; all or UserError."""
    try:
        blobs = _members(archive, {f"{folder}/{name}": name for name in names})
    except _BROKEN as error:
        raise UserError(f"{archive}: is not a complete .tar.gz archive ({one_line(error)}); get it again") from error
    missing = [f"{folder}/{name}" for name in names if name not in blobs]
    if missing:
        raise UserError(f"{archive}: does not hold {', '.join(missing)}")
    return {name: blobs[name] for name in names}


def _members(archive: Path, wanted: dict[str, str]) -> dict[str, Blob]:
    blobs = {}
    with gzip.open(archive) as unzipped, tarfile.open(fileobj=unzipped, mode="r:") as tar:
        for member in tar:
            name = wanted.get(posixpath.normpath(member.name))
            stream = tar.extractfile(member) if name and member.isfile() else None
            if name and stream:
                source = f"{archive}: {posixpath.normpath(member.name)}"
                blobs[name] = Blob(source, _bounded(stream.read(_MOST_BYTES + 1), source))
        # tarfile stops at its own end mark, before gzip has compared its checksum.
        for _ in range(_MOST_BYTES >> 20):
            if not unzipped.read(1 << 20):
                break
    return blobs


def one_line(error: BaseException) -> str:
    """What an exception says, on one line."""
    return " ".join(str(error).split()) or type(error).__name__
