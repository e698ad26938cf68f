"""The store in the folder of a run: an append-only journal that one process writes and any process reads.

``journal.jsonl`` is the truth (see :mod:`pyconv_search.results.lines` for a line of it), ``study.json`` the resolved
study, written by the study layer. Everything else in the folder can be made again from these two. Lines are only ever
added; a line that a crash, a kill or a full disk cut short is the last one and has no newline, so that a reader passes
over it and the next writer cuts it off. Damage beyond that is reported by file and line, and
:mod:`pyconv_search.results.repair` sets it aside.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from time import sleep
from types import TracebackType
from typing import Any

from pyconv_search.errors import UserError
from pyconv_search.files import expanded, read_json
from pyconv_search.results.curves import Curves
from pyconv_search.results.files import last_whole_line
from pyconv_search.results.lines import BEGIN, decode, encode, encode_record
from pyconv_search.results.listing import Listing, is_listing, listing
from pyconv_search.results.records import MOST_LINE, Record, records
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
NUMBER = (int, float)
# What may be missing, by its place; a reader relies on its type where it is there.
OPTIONAL: dict[tuple[str, ...], type | tuple[type, ...]] = {
    ("space", "parameters"): dict,
    ("data", "train"): int,
    ("data", "validation"): int,
    ("search", "rows"): list,
    ("resources",): dict,
    ("resources", "cpu"): NUMBER,
    ("resources", "gpu"): NUMBER,
    ("scheduler",): dict,
    ("source",): dict,
    ("planned",): int,
    ("baseline",): dict,
    ("surplus",): list,
    ("input",): list,
    ("classes",): int,
    **{("recipe", key): NUMBER for key in ("epochs", "lr", "batch", "lr_batch")},
}
STATES = ("start", "interrupted", "aborted", "finished")
NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
MOST_STUDY = 1 << 28


@dataclass(frozen=True, slots=True)
class Store:
    """What a folder holds, as the study calls it now and in its order: by configuration and seed.

    ``rows`` has each trial once, ``epochs`` each (trial, epoch) once: those of the latest training, in
    ``curves``. What the study does not list stands last, in the order of its first appearance and by the names that it
    had then. ``superseded`` are the rows that a later row of the same trial replaced: the failures that were tried
    again. ``events`` are plain values, each with a ``name``. ``left_out`` counts, by why, the rows that
    :meth:`current` leaves out, or has left out. ``unfinished`` are the trials that have begun and not ended since,
    ``recent`` the epochs that were run since the last start.
    """

    folder: Path
    study: dict[str, Any]
    rows: tuple[Row, ...]
    curves: dict[str, list[Epoch]]
    events: tuple[dict[str, Any], ...]
    superseded: tuple[Row, ...] = ()
    listing: Listing | None = None
    left_out: dict[str, int] = field(default_factory=dict)
    unfinished: tuple[str, ...] = ()
    recent: tuple[Epoch, ...] = ()

    @property
    def epochs(self) -> tuple[Epoch, ...]:
        """The epochs of every trial."""
        return tuple(epoch for curve in self.curves.values() for epoch in curve)

    def current(self) -> Store:
        """Without the trials that have left the study since: their rows and epochs stay in the journal."""
        listed, seeds = self.listing, self.study["seeds"]
        rows = tuple(r for r in self.rows if (r.seed in seeds if listed is None else listed.holds(r)))
        gone = {row.trial for row in self.rows} - {row.trial for row in rows}
        if listed is not None:
            ended = {row.trial for row in rows}
            gone |= {trial for trial in self.curves if trial not in ended and not listed.holds_trial(trial)}
        kept = {trial: curve for trial, curve in self.curves.items() if trial not in gone}
        superseded = tuple(row for row in self.superseded if row.trial not in gone)
        unfinished = tuple(trial for trial in self.unfinished if listed is None or listed.holds_trial(trial))
        return replace(self, rows=rows, curves=kept, superseded=superseded, unfinished=unfinished)

    @property
    def departed(self) -> set[str]:
        """The configurations of rows that have left the study."""
        return {row.config for row in self.rows} - {row.config for row in self.current().rows}

    @property
    def state(self) -> str:
        """The last of the events in STATES; empty before the first."""
        names = (event["name"] for event in reversed(self.events))
        return next((name for name in names if name in STATES), "")

    def curve(self, trial: str) -> list[Epoch]:
        """The epochs of one trial, in their order."""
        return self.curves.get(trial, [])


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
        self._lock = lock(self.folder)
        try:
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
            self._end = _mended(self._file)
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
    is not what was once written there (reported as ``file:line``).
    """
    folder = expanded(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    study = read_study(folder)
    return store_of(folder, study, records(folder / JOURNAL))


def store_of(folder: Path, study: dict[str, Any], found: Iterable[Record]) -> Store:
    """The store of a resolved study and the records of its journal."""
    rows: dict[str, Row] = {}
    superseded, events, curves = [], [], Curves()
    unfinished: dict[str, None] = {}
    recent: list[Epoch] = []
    for record in found:
        if isinstance(record, Epoch):
            recent += [record] * curves.add(record)
        elif isinstance(record, Row):
            unfinished.pop(record.trial, None)
            curves.end(record)
            if record.trial in rows and rows[record.trial] != record:  # A line that is there twice replaces nothing.
                superseded.append(rows[record.trial])
            rows[record.trial] = record
        else:
            events.append(record)
            if record["name"] == BEGIN:
                unfinished[record["trial"]] = None
            elif record["name"] == "start":
                recent.clear()
    listed = listing(study, events)
    trials = list(dict.fromkeys((*rows, *curves.trials())))
    if listed is not None:
        trials.sort(key=lambda trial: (listed.order(trial, rows.get(trial)), trial))
        superseded.sort(key=lambda row: (listed.order(row.trial, row), row.trial))
        rows = {trial: listed.called(row) for trial, row in rows.items()}
        superseded = [listed.called(row) for row in superseded]
        left_out = listed.departed(rows.values())
    else:
        gone = sum(row.seed not in study["seeds"] for row in rows.values())
        left_out = {"of seeds that the study no longer has": gone} if gone else {}
    points = {trial: curve for trial in trials if (curve := curves.of(trial))}
    ended = tuple(rows[trial] for trial in trials if trial in rows)
    left, fresh = tuple(unfinished), tuple(recent)
    return Store(folder, study, ended, points, tuple(events), tuple(superseded), listed, left_out, left, fresh)


def read_study(folder: Path) -> dict[str, Any]:
    """The resolved study that a run keeps in its folder. UserError where there is none, or it is damaged."""
    path = folder / STUDY
    if not path.exists():
        raise UserError(f"{folder}: not the folder of a run: it holds no {STUDY}")
    try:
        study = read_json(path, MOST_STUDY, "a study")
    except UserError as error:
        raise UserError(f"{error}; `pyconv-search run` of the study with --out {folder} writes it anew") from None
    if not isinstance(study, dict) or study.get("format") != FORMAT:
        found = study.get("format") if isinstance(study, dict) else None
        raise UserError(f"{path}: format must be {FORMAT}, but got {found!r:.80}")
    wrong = [key for key, kind in STUDY_KEYS.items() if not isinstance(study.get(key), kind)]
    if not wrong:
        wrong = [".".join(place) for place, kind in OPTIONAL.items() if not _fits(study, place, kind)]
        wrong += [] if all(type(seed) is int for seed in study["seeds"]) else ["seeds"]
        wrong += [] if is_listing(study.get("networks")) else ["networks"]
    if wrong:
        raise UserError(f"{path}: not a resolved study: it lacks {', '.join(wrong)}, or holds something else there")
    return study


def _fits(study: dict[str, Any], place: tuple[str, ...], kind: type | tuple[type, ...]) -> bool:
    value: Any = study
    for key in place:
        value = value.get(key) if isinstance(value, dict) else None
    return value is None or (isinstance(value, kind) and not isinstance(value, bool))


def _mended(handle: int) -> int:
    """Where an open journal ends once its last line is whole: it gets its newline if that is all it lacks, or goes."""
    end, size = last_whole_line(handle), os.fstat(handle).st_size
    tail = os.pread(handle, min(size - end, MOST_LINE), end)
    try:
        decode(tail)
    except (ValueError, RecursionError):
        os.ftruncate(handle, end)
        return end
    os.write(handle, b"\n")
    return size + 1


def lock(folder: Path) -> int:
    """A handle that holds the folder of a run for one writer until it is closed. UserError if another process does."""
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
        remedy = "; this file system has no locks: choose a folder on another with --out"
        raise UserError(
            f"{path}: cannot be locked: {error.strerror or error}{remedy if error.errno in NO_LOCKS else ''}"
        ) from None
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
    # A new file survives a power cut only when its folder's entry is on the disk too. Some file systems, such as SMB,
    # sync files alone; what a file holds is synced all the same.
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
