"""Damaged lines of a journal, set aside so that the run can go on."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pyconv_search.errors import UserError
from pyconv_search.results import files
from pyconv_search.results.lines import decode, is_blank
from pyconv_search.results.records import Line, lines
from pyconv_search.results.row import Row
from pyconv_search.results.store import JOURNAL, lock, read_study

ASIDE = "journal.damaged"
# A damaged line is searched for a whole record in it at so many places, and if it has so many bytes, at most.
MOST_TRIED, MOST_SEARCHED = 1000, 1 << 20
_AROUND = b"\0 \t\r\n\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Damage:
    """A damaged line: its number, what is wrong with it, and in words what is lost with it."""

    line: int
    reason: str
    lost: str


@dataclass(frozen=True, slots=True)
class Repaired:
    """What a repair found: ``kept`` records, lines without content, and the damaged ones.

    ``recovered`` records stood on a line with something else, or in two parts. ``study`` says what is wrong with
    study.json, where anything is.
    """

    journal: str
    kept: int
    blank: int
    recovered: int
    damaged: tuple[Damage, ...]
    study: str = ""

    @property
    def changed(self) -> bool:
        """Whether there was something to repair."""
        return bool(self.blank or self.recovered or self.damaged)

    def __str__(self) -> str:
        said = [f"{self.journal}: {self.kept:,} records"]
        said[0] += "" if self.changed else "; nothing to repair"
        if self.blank:
            said.append(f"  lines without content, taken out: {self.blank:,}")
        if self.recovered:
            said.append(f"  records that stood among others, put on lines of their own: {self.recovered:,}")
        if self.damaged:
            said.append(f"  damaged lines, now in {Path(self.journal).with_name(ASIDE)}: {len(self.damaged):,}")
        said += [f"  line {each.line}: {each.lost} ({each.reason})" for each in self.damaged]
        return "\n".join(said + ([self.study] if self.study else []))


def repair(folder: Path | str) -> Repaired:
    """Set the damaged lines of the journal in ``folder`` aside, into ``journal.damaged`` beside it.

    What can be read stays, in its order. Lines are in one of the two files at any time; a repair that is broken off is
    done by the next.

    Raises:
        UserError: if there is no journal, another process writes there, or a file cannot be read or written.
    """
    folder = Path(folder)
    path = folder / JOURNAL
    if not path.is_file():
        raise UserError(f"{folder}: not the folder of a run: it holds no {JOURNAL}")
    handle = lock(folder)
    try:
        sorting = _Sorting()
        for line in lines(path):
            sorting.take(line)
        if sorting.aside:
            _append(path.with_name(ASIDE), path, sorting.aside)
        if sorting.changed:
            files.replace(path, b"".join(sorting.kept))
    finally:
        os.close(handle)
    damaged = tuple(sorting.damaged())
    return Repaired(str(path), len(sorting.kept), sorting.blank, sorting.recovered, damaged, _study(folder))


@dataclass(frozen=True, slots=True)
class _Aside:
    """A line to set aside, why, and what of it is lost with it."""

    line: Line
    reason: str
    lost: bytes


class _Sorting:
    """The lines of a journal, sorted into what holds a record and what does not."""

    def __init__(self) -> None:
        self.kept: list[bytes] = []
        self.blank = self.recovered = 0
        self.changed = False
        self.aside: list[_Aside] = []
        self._ended: set[str] = set()
        self._begun = b""  # What stands before a whole record on a damaged line, and may go on below.

    def take(self, line: Line) -> None:
        content = line.content.strip(_AROUND)
        begun, self._begun = self._begun, b""
        self.changed = self.changed or line.content != content + b"\n" or line.length != len(line.content)
        if is_blank(line.content):
            self.blank, self.changed = self.blank + 1, True
            return
        reason = self._keep(content)
        if not reason:
            return
        self.changed = True
        if begun and not self._keep(begun + content):
            self.recovered += 1
            self.aside.pop()
            return
        rest = self._searched(content)
        self.aside.append(_Aside(line, reason if line.ended else "cut short", rest))

    def _searched(self, content: bytes) -> bytes:
        """Keep the whole record that a damaged line ends in, as when two processes wrote at once; what is before it."""
        if len(content) <= MOST_SEARCHED:
            for found in list(re.finditer(rb'(?<=.)\{"', content, re.DOTALL))[:MOST_TRIED]:
                if not self._keep(content[found.start() :]):
                    self.recovered += 1
                    self._begun = content[: found.start()]
                    return self._begun
        return content

    def _keep(self, content: bytes) -> str:
        """Keep a record; what is wrong with it, if it is none."""
        try:
            record = decode(content)
        except (ValueError, RecursionError) as error:
            return str(error).partition(": line 1")[0] or type(error).__name__
        self.kept.append(content + b"\n")
        if isinstance(record, Row):
            self._ended.add(record.trial)
        return ""

    def damaged(self) -> Iterator[Damage]:
        """What each line that was set aside has lost."""
        for each in self.aside:
            yield Damage(each.line.number, each.reason, self._lost(each.lost))

    def _lost(self, content: bytes) -> str:
        kind, trial, epoch = (_value(content, key) for key in ("kind", "trial", "epoch"))
        name, seed = _value(content, "name"), _value(content, "seed")
        called = f"trial {trial}" if trial else "an unknown trial"
        called += f", {name}, seed {seed}" if name and seed else ""
        if kind == "epoch" or (not kind and epoch):
            return f"epoch {epoch or 'of unknown number'} of {called}"
        if kind == "row" or (not kind and seed):
            again = "another row of it is there" if trial in self._ended else "the next run trains it again"
            return f"a row of {called}; {again}"
        if kind == "event":
            return f"the event {name or 'of unknown name'}"
        return "nothing of it can be read"


def _value(content: bytes, key: str) -> str:
    """The text or number that stands after a key in a line that is no JSON; empty where there is none."""
    found = re.search(rb'"%s":("(?:[^"\\]|\\.){0,200}"|\d{1,18})' % key.encode(), content)
    try:
        return str(json.loads(found[1])) if found else ""
    except ValueError:
        return ""


def _append(aside: Path, journal: Path, found: list[_Aside]) -> None:
    """Add lines, each below one that says where it stood; what a repair that was broken off added before, once."""
    parts = []
    with journal.open("rb") as stream:
        for each in found:
            stream.seek(each.line.start)
            raw = stream.read(each.line.length).rstrip(b"\n")
            parts.append(f"# {journal.name}:{each.line.number}: {each.reason}\n".encode(errors="replace") + raw + b"\n")
    before, added = aside.read_bytes() if aside.exists() else b"", b"".join(parts)
    if not before.endswith(added):
        files.replace(aside, before + added)


def _study(folder: Path) -> str:
    try:
        read_study(folder)
    except UserError as error:
        return str(error)
    return ""
