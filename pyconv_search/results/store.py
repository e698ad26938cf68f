"""The store in the folder of a run: an append-only journal that one process writes and any process reads.

``journal.jsonl`` is the truth (see :mod:`pyconv_search.results.lines` for a line of it), ``study.json`` the resolved
study, written by the study layer. Everything else in the folder can be made again from these two. Lines are only ever
added; a line that a crash, a kill or a full disk cut short is the last one and has no newline, so that a reader passes
over it and the next writer cuts it off.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from time import sleep
from types import TracebackType
from typing import Any, TypeVar

from pyconv_search.errors import UserError
from pyconv_search.files import expanded
from pyconv_search.results.files import last_whole_line
from pyconv_search.results.lines import BEGIN, decode, encode, encode_record
from pyconv_search.results.row import Epoch, Row
from pyconv_search.results.tables import tables, write_tables

__all__ = ["Journal", "Store", "read", "tables", "write_tables"]

JOURNAL = "journal.jsonl"
STUDY = "study.json"
LOCK = "run.lock"
LOOKS, LOOK_SECONDS = 10, 0.02
FORMAT = 1
STUDY_KEYS = {
    "name": str,
    "space": dict,
    "data": dict,
    "recipe": dict,
    "search": dict,
    "seeds": list,
    "objectives": dict,
}
STATES = ("start", "interrupted", "aborted", "finished")
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

Key = TypeVar("Key")
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Store:
    """What a folder holds: each trial once in ``rows``, each (trial, epoch) once in ``epochs``, both in the order of
    their first appearance, with their last values. ``superseded`` are the rows that a later row of the same trial
    replaced: the failures that were tried again. ``events`` are plain values, each with a ``name``. ``unfinished`` are
    the trials that have begun and not ended since; ``earlier`` of the epochs were there before the last start.
    """

    folder: Path
    study: dict[str, Any]
    rows: tuple[Row, ...]
    epochs: tuple[Epoch, ...]
    events: tuple[dict[str, Any], ...]
    superseded: tuple[Row, ...] = ()
    unfinished: tuple[str, ...] = ()
    earlier: int = 0

    def current(self) -> Store:
        """Without the rows of configurations and seeds that have left the study since; they stay in the journal."""
        networks, seeds = self.study.get("networks"), self.study["seeds"]
        rows = tuple(r for r in self.rows if r.seed in seeds and (networks is None or r.config in networks))
        return replace(self, rows=rows)

    @property
    def state(self) -> str:
        """The last of the events in STATES; empty before the first."""
        names = (event["name"] for event in reversed(self.events))
        return next((name for name in names if name in STATES), "")

    def curve(self, trial: str) -> list[Epoch]:
        """The epochs of one trial, in their order."""
        return sorted((epoch for epoch in self.epochs if epoch.trial == trial), key=lambda epoch: epoch.epoch)


class Journal:
    """The one writer of a folder's journal; a context manager.

    The lock is ``flock`` on ``run.lock`` and ends with the process, however it ends. UserError when the folder is
    missing or cannot be written, and when another process holds the lock.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = expanded(folder)
        self.path = self.folder / JOURNAL
        if not self.folder.is_dir():
            raise UserError(f"{self.folder}: no such folder")
        self._lock = _locked(self.folder)
        try:
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
            self._end = last_whole_line(self._file)
            os.ftruncate(self._file, self._end)
            _sync_folder(self.folder)
        except OSError as error:
            os.close(self._lock)
            raise UserError(f"{self.path}: cannot be written: {error.strerror or error}") from None

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the lock back. Closing twice is allowed."""
        if self._lock >= 0:
            os.close(self._file)
            os.close(self._lock)
            self._lock = self._file = -1

    def append_row(self, row: Row) -> None:
        """Add a row; it is on the disk when this returns. UserError when it cannot be written."""
        self._append(encode_record(row), durable=True)

    def append_epoch(self, epoch: Epoch) -> None:
        """Add an epoch; a power cut may still lose it, since its trial would then be run again from a checkpoint."""
        self._append(encode_record(epoch), durable=False)

    def append_begin(self, **values: Any) -> None:
        """Add the event that a trial begins, with the BEGIN_KEYS; a power cut may lose it: nothing is decided by it."""
        time = datetime.now(UTC).isoformat(timespec="seconds")
        self._append(encode("event", {**values, "time": time, "name": BEGIN}), durable=False)

    def append_event(self, name: str, **values: Any) -> None:
        """Add an event of plain JSON values, such as ``start``, ``interrupted``, ``aborted`` or ``finished``."""
        self._append(encode("event", {**values, "name": name}), durable=True)

    def _append(self, line: bytes, durable: bool) -> None:
        if self._lock < 0:
            raise ValueError(f"{self.path}: this journal is closed")
        try:
            rest = memoryview(line)
            while rest:
                rest = rest[os.write(self._file, rest) :]
            if durable:
                os.fsync(self._file)
        except BaseException as error:
            self._cut()
            if not isinstance(error, OSError):
                raise
            remedy = "free space and" if error.errno in DISK_FULL else "put this right and"
            reason = error.strerror or str(error)
            raise UserError(f"{self.path}: {reason}; {remedy} run the same command again") from None
        self._end += len(line)

    def _cut(self) -> None:
        # Should even this fail, the torn line is still the last: the next writer cuts it off and readers pass over it.
        try:
            os.ftruncate(self._file, self._end)
        except OSError:
            return


def read(folder: Path | str) -> Store:
    """What ``folder`` holds, at any time and without a lock: during a run, after a crash, from a copy.

    UserError when the folder does not exist, is not that of a run, cannot be read, or when a whole line of the journal
    is not what was once written there (told as ``file:line``).
    """
    folder = expanded(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    study = _study(folder / STUDY)
    records = _records(folder / JOURNAL)
    rows, superseded = _last([r for r in records if isinstance(r, Row)], lambda row: row.trial)
    epochs, _ = _last([r for r in records if isinstance(r, Epoch)], lambda epoch: (epoch.trial, epoch.epoch))
    events = tuple(r for r in records if isinstance(r, dict))
    return Store(folder, study, rows, epochs, events, superseded, *_present(records))


def _present(records: list[Row | Epoch | dict[str, Any]]) -> tuple[tuple[str, ...], int]:
    """The trials that have begun and not ended since, and how many epochs there were at the last start."""
    begun: dict[str, None] = {}
    known: set[tuple[str, int]] = set()
    earlier = 0
    for record in records:
        if isinstance(record, Epoch):
            known.add((record.trial, record.epoch))
        elif isinstance(record, Row):
            begun.pop(record.trial, None)
        elif record["name"] == BEGIN:
            begun[record["trial"]] = None
        elif record["name"] == "start":
            earlier = len(known)
    return tuple(begun), earlier


def _last(records: list[Value], key: Callable[[Value], Key]) -> tuple[tuple[Value, ...], tuple[Value, ...]]:
    kept: dict[Key, Value] = {}
    replaced = []
    for record in records:
        if key(record) in kept:
            replaced.append(kept[key(record)])
        kept[key(record)] = record
    return tuple(kept.values()), tuple(replaced)


def _records(path: Path) -> list[Row | Epoch | dict[str, Any]]:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None
    records = []
    for number, line in enumerate(content.split(b"\n")[:-1], start=1):
        try:
            records.append(decode(line))
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}:{number}: damaged line: {error}; restore the file from a copy") from None
    return records


def _study(path: Path) -> dict[str, Any]:
    try:
        study = json.loads(path.read_bytes().decode("utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path.parent}: not the folder of a run: it holds no {STUDY}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON: {error}") from None
    if not isinstance(study, dict) or study.get("format") != FORMAT:
        found = study.get("format") if isinstance(study, dict) else None
        raise UserError(f"{path}: format must be {FORMAT}, but got {found!r}")
    if wrong := [key for key, kind in STUDY_KEYS.items() if not isinstance(study.get(key), kind)]:
        raise UserError(f"{path}: not a resolved study: it lacks {', '.join(wrong)}, or holds something else there")
    return study


def _locked(folder: Path) -> int:
    path = folder / LOCK
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}") from None
    try:
        _lock(handle)
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()} on {socket.gethostname()}\n".encode(), 0)
    except BlockingIOError:
        holder = os.pread(handle, 200, 0).decode(errors="replace").strip() or "unknown"
        os.close(handle)
        raise UserError(f"{folder}: another run is writing here: process {holder}; wait for it or stop it") from None
    except OSError as error:
        os.close(handle)
        raise UserError(f"{path}: cannot be locked: {error.strerror or error}") from None
    return handle


def _lock(handle: int) -> None:
    """Take the lock; BlockingIOError if another run holds it for longer than somebody who only looks, as `status`."""
    for _ in range(LOOKS):
        try:
            return fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sleep(LOOK_SECONDS)
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _sync_folder(folder: Path) -> None:
    # A new file survives a power cut only when its folder's entry is on the disk too.
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
