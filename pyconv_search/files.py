"""Reading whole files that a user names: plain ones only, and never more of them than fits the purpose."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

from pyconv_search.errors import UserError


def expanded(path: str | os.PathLike[str]) -> Path:
    """A path that a user typed, with ``~`` or ``~name`` at its beginning replaced by that home, as a shell does it.

    Shells leave ``--out=~/runs`` as it stands, and YAML and Python know no ``~``. A name that no user has is left as it
    is. Expanding what was expanded changes nothing.

    Raises:
        UserError: if the path begins with the own home, and the system knows none.
    """
    text = os.fspath(path)
    try:
        found = os.path.expanduser(text)
    except ValueError:  # a null byte, which whoever opens the file reports
        found = text
    if found == text and text.split(os.sep)[0] == "~":
        raise UserError(f"{text}: the home folder is not known; set HOME, or write the folder itself")
    # "./~" is a folder of that name, which pathlib would write as "~".
    return Path(found).absolute() if str(Path(found)).startswith("~") else Path(found)


def open_plain(file: str | Path) -> int:
    """An open handle of a plain file; a link is followed.

    Raises:
        UserError: if there is no such file, it cannot be read, or it is a folder, pipe, socket or device, of which
            reading might never end.
    """
    path = expanded(file)
    try:
        # A pipe without a writer would keep an ordinary open waiting.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode):
        os.close(handle)
        kind = "a folder" if stat.S_ISDIR(mode) else "not a plain file"
        raise UserError(f"{path}: cannot be read: it is {kind}")
    return handle


def read_plain(file: str | Path, most: int, purpose: str) -> bytes:
    """The content of a plain file of at most ``most`` bytes; ``purpose`` says in a message what it is read as.

    Raises:
        UserError: as :func:`open_plain`, and if the file is larger, before it is read.
    """
    with open(open_plain(file), "rb") as stream:
        try:
            content = stream.read(most + 1) if os.fstat(stream.fileno()).st_size <= most else None
        except OSError as error:
            raise UserError(f"{file}: cannot be read: {error.strerror or error}") from None
    if content is None or len(content) > most:
        raise UserError(f"{file}: is larger than {most:,} bytes, which is more than {purpose} has")
    return content


def read_json(file: str | Path, most: int, purpose: str) -> Any:
    """The value in a file of JSON. UserError as :func:`read_plain`, and if it is not JSON in UTF-8."""
    content = read_plain(file, most, purpose)
    try:
        return json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file}: is not JSON: {error}") from None
