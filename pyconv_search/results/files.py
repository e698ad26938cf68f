"""Writing a whole file or none of it, and finding where the whole lines of one end."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import zlib
from pathlib import Path

from pyconv_search.errors import UserError


def replace(path: Path, content: bytes) -> Path:
    """Write ``content`` under ``path`` so that a reader sees the old file or the new one, never a part.

    A link is followed. The permissions are those of a fresh file under the user's umask. Parts of this file that
    processes left here which were killed are removed. UserError when the folder is missing or cannot be written, when
    the disk is full, or when ``path`` names something other than a plain file.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        raise UserError(f"{path}: cannot be written: it is not a plain file; name another file")
    part = target.with_name(f".{target.name}.{_host()}-{os.getpid()}.part")
    try:
        _write(part, content)
        os.replace(part, target)
        _remove_orphans(target)
    except BaseException as error:
        with contextlib.suppress(OSError):
            part.unlink()
        if not isinstance(error, OSError):
            raise
        raise UserError(f"{path}: cannot be written: {error.strerror or error}") from None
    return path


def _write(part: Path, content: bytes) -> None:
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    try:
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(handle, rest) :]
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove_orphans(target: Path) -> None:
    """Remove the parts of a file whose writers no longer run on this machine; of another's nothing is known here."""
    pattern = re.compile(rf"\.{re.escape(target.name)}\.(?:{_host()}-)?(\d{{1,9}})\.part")
    with contextlib.suppress(OSError):
        for name in os.listdir(target.parent):
            found = pattern.fullmatch(name)
            if found is not None and not runs(int(found[1])):
                target.with_name(name).unlink(missing_ok=True)


def _host() -> str:
    return f"{zlib.crc32(socket.gethostname().encode()):08x}"


def runs(process: int) -> bool:
    """Whether there is a process of that number on this machine."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # Another user's.
        return True
    return True


def last_whole_line(handle: int) -> int:
    """The offset just after the last newline, read backwards in blocks."""
    end = os.fstat(handle).st_size
    while end:
        start = max(0, end - 65536)
        found = os.pread(handle, end - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0
