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

_UNPACK = {".gz": gzip.decompress, ".xz": lzma.decompress}
_BROKEN = (OSError, EOFError, zlib.error, lzma.LZMAError, tarfile.TarError)


@dataclass(frozen=True)
class Blob:
    """The unpacked bytes of one file. ``source``: how to name it to the user."""

    source: str
    data: bytes


def read_file(path: Path) -> Blob:
    """One file, decompressed where its name ends in .gz or .xz."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    if path.suffix not in _UNPACK:
        return Blob(str(path), raw)
    try:
        return Blob(str(path), _UNPACK[path.suffix](raw))
    except _BROKEN as error:
        raise UserError(
            f"{path}: is not a complete {path.suffix[1:]} file ({one_line(error)}); get it again"
        ) from error


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
                blobs[name] = Blob(f"{archive}: {posixpath.normpath(member.name)}", stream.read())
        # tarfile stops at its own end mark, before gzip has compared its checksum.
        while unzipped.read(1 << 20):
            pass
    return blobs


def one_line(error: BaseException) -> str:
    """What an exception says, on one line."""
    return " ".join(str(error).split()) or type(error).__name__
