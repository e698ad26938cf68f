"""How a run stands, from its folder alone: its state, what is under way, the best so far, the time left."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pyconv_search.results.files import runs
from pyconv_search.results.lines import BEGIN
from pyconv_search.results.row import Row
from pyconv_search.results.store import JOURNAL, LOCK, Store

# The columns of rows and epochs that objectives name, which networks are compared by.
MEASURES = {"top1_error": "val_top1_error", "top5_error": "val_top5_error", "loss": "val_loss"}
WORDS = {"top1_error": "validation top-1 error", "top5_error": "validation top-5 error", "loss": "validation loss"}


@dataclass(frozen=True, slots=True)
class UnderWay:
    """A trial that has begun and not ended: ``epoch`` of ``epochs`` are run, the last with ``value``.

    ``macs`` are its network's multiply-adds. Where an older version began it, ``name`` is empty, and these and
    ``epochs`` are 0.
    """

    trial: str
    name: str
    seed: int | None
    epoch: int
    epochs: int
    macs: int
    value: float | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """``state`` is running, killed, interrupted, aborted (by the error in ``reason``), finished, or not started.

    ``process`` and ``host``: who writes, or wrote last (empty: not known). ``since``: when it began, or ended.
    ``last``: when the journal was last written to. ``running``: the trials of a process that runs; ``unfinished``:
    those that one which has ended left behind, for the next. ``seconds_left`` at the pace since the start (None: not
    known). ``certain``: false of a run that counts as killed because its lock is free, where its process may be alive:
    on a machine whose locks are not seen here, or in the folder that this one is a copy of.
    """

    state: str
    process: str
    host: str
    since: datetime | None
    last: datetime | None
    running: tuple[UnderWay, ...]
    unfinished: tuple[UnderWay, ...]
    best: Row | None
    measure: str
    seconds_left: float | None
    certain: bool = True
    reason: str = ""


def standing(store: Store) -> Standing:
    """How the run in a store's folder stands now. The folder may be a copy, or that of an older version."""
    present, measure = store.current(), measure_of(store.study)
    held, process, host = holder(store)
    last = store.state
    state = "running" if held else {"": "not started", "start": "killed"}.get(last, last)
    under_way = _under_way(present, measure)
    begun = _begun_now(store) if held else set()
    running = tuple(each for each in under_way if each.trial in begun)
    return Standing(
        state=state,
        process=process if state in ("running", "killed") else "",
        host=host if state in ("running", "killed") else "",
        since=_when(store, last),
        last=_written(store),
        running=running,
        unfinished=tuple(each for each in under_way if each.trial not in begun),
        best=best_so_far(present.rows, measure),
        measure=measure,
        seconds_left=_seconds_left(present, running) if held else None,
        reason=_reason(store) if state == "aborted" else "",
        certain=state != "killed"
        or (host == socket.gethostname() and not (process.isdecimal() and runs(int(process)))),
    )


def holder(store: Store) -> tuple[bool, str, str]:
    """Whether a process holds the folder's lock, its number, and its machine; of the last that did, if none does.

    The lock ends with its process. Of a process on another machine it tells where the shared file system passes locks
    on, as NFS does.
    """
    try:
        handle = os.open(store.folder / LOCK, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False, "", ""
    try:
        process, _, host = os.pread(handle, 200, 0).decode(errors="replace").strip().partition(" on ")
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True, process, host
        return False, process, host
    except OSError:  # a folder in its place, or a file system without locks, where no run can be
        return False, "", ""
    finally:
        os.close(handle)


def measure_of(study: dict[str, Any]) -> str:
    """What the study compares networks by: its first objective that is measured."""
    return next((name for name in study["objectives"] if name in MEASURES), "top1_error")


def best_so_far(rows: Iterable[Row], measure: str = "top1_error") -> Row | None:
    """The complete trial with the lowest value of ``measure``; of several the cheapest, whichever ended first."""
    column = MEASURES[measure]
    known = [row for row in rows if row.status == "complete" and getattr(row, column) is not None]
    return min(known, key=lambda row: (getattr(row, column), row.macs, row.trial), default=None)


def value_text(value: float, measure: str = "top1_error") -> str:
    """``22.30 %``, of a loss ``0.6130``."""
    return f"{value:.4f}" if measure == "loss" else f"{value:.2f} %"


def failure_text(row: Row) -> str:
    """Why a trial failed, in one line; a row's ``detail`` may have many."""
    return ": ".join([row.reason, *row.detail.splitlines()[:1]])


def effort_left(
    planned: int, ended: tuple[int, int], running: Sequence[tuple[int, int]], queued: tuple[int, int]
) -> float:
    """What is left to train, each epoch counted by the multiply-adds of its network.

    ``ended`` and ``queued``: how many trials have ended and how many wait, and what they take in all; ``running``: of
    each trial under way, what it takes in all and what is done of it. Trials of the ``planned`` that are neither are
    taken for the mean of those that are known.
    """
    known, whole = ended[0] + len(running), ended[1] + sum(whole for whole, _ in running)
    unknown = max(planned - known - queued[0], 0)
    left = sum(whole - done for whole, done in running) + queued[1]
    return left + unknown * (whole / known if known else 0.0)


def _under_way(present: Store, measure: str) -> list[UnderWay]:
    """The trials of the study as it is now that have begun and not ended."""
    begun = {event["trial"]: event for event in present.events if event["name"] == BEGIN}
    ended = {row.trial for row in present.rows}
    older = [trial for trial in present.curves if trial not in begun and trial not in ended]
    found = []
    for trial in (*present.unfinished, *older):
        event, curve = begun.get(trial, {}), present.curve(trial)
        listed = present.listing.trial(trial) if present.listing else None
        name, seed = listed or (event.get("network", ""), event.get("seed"))
        if seed is not None and seed not in present.study["seeds"]:
            continue
        if present.listing and event and event["config"] not in present.listing.configs:
            continue
        value = getattr(curve[-1], MEASURES[measure]) if curve else None
        reached = curve[-1].epoch if curve else 0
        found.append(UnderWay(trial, name, seed, reached, event.get("epochs", 0), event.get("macs", 0), value))
    return found


def _begun_now(store: Store) -> set[str]:
    """The trials that began since the last start."""
    since: set[str] = set()
    for event in store.events:
        if event["name"] == "start":
            since.clear()
        elif event["name"] == BEGIN:
            since.add(event["trial"])
    return since


def _seconds_left(store: Store, running: Sequence[UnderWay]) -> float | None:
    """At the pace since the last start; None before the first epoch, and where an older version runs."""
    start = _when(store, "start")
    planned, usual = store.study.get("planned"), store.study["recipe"].get("epochs", 0)
    macs = {row.trial: row.macs for row in store.rows} | {each.trial: each.macs for each in running}
    done = sum(macs.get(epoch.trial, 0) for epoch in store.recent)
    if start is None or not done or not isinstance(planned, int) or len(store.rows) >= planned:
        return None
    parts = [(each.macs * each.epochs, each.macs * each.epoch) for each in running]
    ended = sum(row.macs * row.recipe.get("epochs", usual) for row in store.rows)
    left = effort_left(planned, (len(store.rows), ended), parts, (0, 0))
    return left * max((datetime.now(UTC) - start).total_seconds(), 0.0) / done


def _reason(store: Store) -> str:
    return next((str(event.get("reason", "")) for event in reversed(store.events) if event["name"] == "aborted"), "")


def _when(store: Store, name: str) -> datetime | None:
    """The time of the last event of that name."""
    times: list[Any] = [event.get("time") for event in store.events if event["name"] == name]
    try:
        found = datetime.fromisoformat(times[-1] if times else "")
    except (TypeError, ValueError):
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _written(store: Store) -> datetime | None:
    try:
        return datetime.fromtimestamp((store.folder / JOURNAL).stat().st_mtime, UTC)
    except (OSError, ValueError, OverflowError):
        return None
