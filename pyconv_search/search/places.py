"""Which worker has which trial, and whether the trial still gets on there."""

from __future__ import annotations

import contextlib
import math
import shutil
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

RUNNING = "running"
# Unless the study says how long: so many times the longest epoch, but at least so many minutes; and before a worker's
# first batch, while it may read the data from a slow disk or tune kernels, at least so many.
EPOCHS, LEAST_MINUTES, LEAST_AT_START = 20, 10.0, 60.0
# Whoever looks does so every second. After a longer pause it was this process that stood still.
PAUSE_SECONDS = 20.0


def sign_of(folder: str, trial: str) -> Path:
    """The file whose time changes while the trial's batches are computed."""
    return Path(folder) / RUNNING / trial


@dataclass(slots=True)
class Place:
    """A worker, when the trial that it has last got on, and what the time of the trial's file was then."""

    worker: Any
    sign: Path
    since: float
    stamp: float = 0.0
    begun: bool = False


class Places:
    """The places of the trials that run, by what Tune calls them.

    ``minutes``: how long a trial may make no progress; None where that follows from the ``longest`` epoch, in seconds.
    """

    def __init__(self, folder: Path, minutes: float | None, longest: float) -> None:
        self.longest = longest
        self._folder, self._minutes = folder, minutes
        self._places: dict[str, Place] = {}
        self._killed: dict[str, list[float]] = {}
        self._looked = time.monotonic()
        self._asking, self._ray_ends = threading.Lock(), False

    def __len__(self) -> int:
        return len(self._places)

    @property
    def begun(self) -> bool:
        """Whether any of the trials has made progress since it was given to its worker."""
        return any(place.begun for place in list(self._places.values()))

    def put(self, key: str, worker: Any, trial: str) -> None:
        """The trial starts on a worker."""
        self._places[key] = Place(worker, sign_of(str(self._folder), trial), time.monotonic())

    def progress(self, key: str, longest: float = 0.0) -> None:
        """The trial has given a result; the longest of its epochs took so many seconds."""
        self.longest = max(self.longest, longest)
        if place := self._places.get(key):
            place.since, place.begun = time.monotonic(), True

    def leave(self, key: str) -> None:
        """The trial no longer runs there."""
        if place := self._places.pop(key, None):
            with contextlib.suppress(OSError):
                place.sign.unlink(missing_ok=True)

    def close(self) -> None:
        """No trial runs any more."""
        self._places.clear()
        shutil.rmtree(self._folder / RUNNING, ignore_errors=True)

    def stalled(self) -> list[tuple[str, float]]:
        """The trials that have made no progress for too long, and for how many seconds."""
        now = time.monotonic()
        pause, self._looked = now - self._looked, now
        found = []
        for key, place in list(self._places.items()):
            if pause > PAUSE_SECONDS:
                place.since += pause
            quiet = now - place.since
            if quiet > min(self.limit(place), 5.0) and self._beats(place):
                place.since, place.begun = now, True
            elif quiet > self.limit(place):
                found.append((key, quiet))
        return found

    def limit(self, place: Place) -> float:
        """How many seconds a trial may be without progress at this place."""
        if self._minutes is not None:
            return 60 * self._minutes
        least = LEAST_MINUTES if place.begun else LEAST_AT_START
        return max(60 * least, EPOCHS * self.longest)

    def _beats(self, place: Place) -> bool:
        """Whether batches were computed since the last look."""
        try:
            stamp = place.sign.stat().st_mtime
        except OSError:
            return False
        before, place.stamp = place.stamp, stamp
        return stamp != before

    def kill(self, key: str, quiet: float = math.nan) -> None:
        """End the worker, which has been without progress for so many seconds; Tune takes it for one that died."""
        place = self._places.pop(key, None)
        if place is None:
            return
        if not math.isnan(quiet):
            self._killed.setdefault(key, []).append(quiet)
        # Ray may not answer, and whoever watches must not wait for it.
        thread = threading.Thread(target=self._end, args=(place.worker,), daemon=True)
        thread.start()
        thread.join(1.0)

    def _end(self, worker: Any) -> None:
        with self._asking:
            if not self._ray_ends and ray.is_initialized():
                with contextlib.suppress(Exception):  # The worker may be gone already.
                    ray.kill(worker)

    def ray_ends(self) -> None:
        """Ask nothing of Ray from now on: its C++ core ends the process if it is asked while it is being ended."""
        with self._asking:
            self._ray_ends = True

    def kill_all(self) -> None:
        """End all workers; nothing more is expected of them."""
        for key in list(self._places):
            self.kill(key)

    def stalls(self, key: str) -> list[float]:
        """How long the trial was without progress each time that its worker was killed for this."""
        return self._killed.get(key, [])
