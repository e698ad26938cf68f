"""The records of a journal, whatever a kill, a power cut or an editor left around them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyconv_search.errors import UserError
from pyconv_search.files import open_plain
from pyconv_search.results.lines import decode, is_blank
from pyconv_search.results.row import Epoch, Row

Record = Row | Epoch | dict[str, Any]

# A record takes some kilobytes; what has no end after so many bytes is none.
MOST_LINE = 1 << 24


@dataclass(frozen=True, slots=True)
class Line:
    """One line with its newline: its number from 1, where it begins, its length, and what of it may be a record.

    Without a newline (not ``ended``) it may still be written, or was cut short.
    """

    number: int
    start: int
    length: int
    content: bytes
    ended: bool

    def record(self) -> Record | None:
        """What it holds; None of a line without content, or of one that was cut short. ValueError if it is damaged."""
        try:
            return decode(self.content)
        except (ValueError, RecursionError) as error:
            if is_blank(self.content) or not self.ended:
                return None
            inner = self.content.strip(b"\0").removeprefix(b"\xef\xbb\xbf")
            if inner != self.content:
                return decode(inner)
            raise ValueError(str(error)) from None


def lines(path: Path) -> Iterator[Line]:
    """The lines of a file, none of a missing one. UserError if it cannot be read, or is not a plain file."""
    if not path.exists():
        return
    number = start = 0
    try:
        with open(open_plain(path), "rb") as stream:
            while content := stream.readline(MOST_LINE):
                length, more = len(content), content
                while not more.endswith(b"\n") and (more := stream.readline(MOST_LINE)):
                    length += len(more)
                    content = content if content.strip(b"\0") else more
                number += 1
                yield Line(number, start, length, content, more.endswith(b"\n"))
                start += length
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None


def records(path: Path) -> Iterator[Record]:
    """The records of a journal in their order.

    UserError as :func:`lines`, and where a line is not what was once written there (as ``file:line``).
    """
    for line in lines(path):
        try:
            record = line.record()
        except (ValueError, RecursionError) as error:
            raise UserError(
                f"{path}:{line.number}: damaged line: {error}; `pyconv-search repair {path.parent}` sets damaged lines "
                f"aside and says what is lost"
            ) from None
        if record is not None:
            yield record
