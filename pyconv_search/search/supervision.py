"""What uses Ray runs in a thread of its own; the main thread listens to signals and looks after everything else.

Ray's calls do not return when its processes have died, and do not let a signal through. So they are not waited for
without end: where the thread does not end in time it is left behind, Ray's processes are ended by force, and the run
ends in order all the same. Everything that counts is in the journal by then.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from rich.console import Console

from pyconv_search.search import watch
from pyconv_search.search.interrupts import Interrupts
from pyconv_search.search.noise import LOGS, Drain
from pyconv_search.search.places import Places
from pyconv_search.search.sessions import Guard
from pyconv_search.search.waiting import Patience, say

GLANCE_SECONDS = 0.05
# After a signal: when workers that have not stopped are ended, and when what then still runs is left behind.
WORKERS_SECONDS, LEAVE_SECONDS = 3.0, 9.0
# The same after a death in Ray, after which nothing of it will end by itself.
BEREFT_SECONDS = 4.0

_abandoned = False


def abandoned() -> bool:
    """Whether a thread was left behind in this process, which can then end by ``os._exit`` alone."""
    return _abandoned


class Run(Protocol):
    """What is supervised (see :class:`pyconv_search.search.runner.Bridge`)."""

    abort: str
    places: Places

    def close(self) -> None: ...
    def stage(self) -> str: ...
    def name_of(self, key: str) -> str: ...


class Supervisor:
    """Runs a job that uses Ray; ``guard`` is that of a Ray of our own, None where a cluster is joined."""

    def __init__(self, run: Run, heard: Interrupts, console: Console, guard: Guard | None, drain: Drain) -> None:
        self._run, self._heard, self._console, self._guard, self._drain = run, heard, console, guard, drain
        self.tick: Callable[[], None] = lambda: None
        self.cluster = watch.ClusterWatch(self.say)
        self._error: BaseException | None = None
        self._over, self._leaving = threading.Event(), False
        self._ending = self._leave = 0.0
        self._stage, self._patience = "", Patience()
        self._glances = 0

    def say(self, line: str) -> None:
        """One line to the user."""
        say(self._console, line)

    def run(self, job: Callable[[], None]) -> None:
        """Run the job to its end, or to ours; what it raises is raised here, unless it was left behind.

        Raises:
            KeyboardInterrupt: at a second signal. The job is left behind.
        """
        with self._heard.held():
            threading.Thread(target=self._do, args=(job,), daemon=True, name="ray").start()
            try:
                while not self._over.wait(GLANCE_SECONDS):
                    if self._glance():
                        self._abandon()
                        return
            except BaseException:
                self._abandon()
                raise
        if self._error is not None and not self._run.abort:
            raise self._error

    def leave(self) -> None:
        """Called by the job when Ray is about to be ended: what ends from now on has not died."""
        self._bereft()
        self._leaving = True
        self._run.places.ray_ends()
        self.cluster.end()

    def _do(self, job: Callable[[], None]) -> None:
        try:
            job()
        except BaseException as error:
            self._error = error
        finally:
            self._over.set()

    def _glance(self) -> bool:
        """Look at everything once; whether it is time to leave the job behind."""
        now = time.monotonic()
        self._heard.listen()
        if self._heard.received and not self._ending:
            self._ending, self._leave = now, now + LEAVE_SECONDS
            self.say(f"{self._heard.received}: the run ends in order; a second signal ends it at once")
        if self._bereft() and not self._leave:
            self._leave = now + BEREFT_SECONDS
        if self._run.abort and not self._leave:
            self._ending, self._leave = now, now + LEAVE_SECONDS
        if self._ending and now > self._ending + WORKERS_SECONDS and not self._leaving:
            self._run.places.kill_all()
        if self._leave:
            self._report("ending: the trials that run are stopped")
            return now > self._leave
        self._report(self._run.stage())
        self._glances += 1
        if self._glances % 20 == 0:
            self._drain.bound()
            if not self._leaving:
                self._look_for_stalls()
            self.tick()
        return False

    def _bereft(self) -> bool:
        """Whether something of Ray has died without which the run cannot go on; the first time it is noted why."""
        if self._leaving or self._run.abort:
            return False
        found = watch.died(self._guard.leaders) if self._guard is not None else ""
        found = found or self.cluster.lost
        if self._guard is not None and self._guard.ending:  # asked only now: it is said before the first is ended
            return False
        if found:
            self._run.abort = (
                f"{found}; everything up to now is in the journal, and the same command goes on "
                f"(Ray's own lines are in {Path(LOGS) / 'ray.log'} of the run's folder)"
            )
            if self._guard is not None and self._guard.folder is not None:
                self._drain.add(watch.logs(self._guard.folder))
        return bool(found)

    def _look_for_stalls(self) -> None:
        for key, quiet in self._run.places.stalled():
            self.say(
                f"{self._run.name_of(key)}: no progress for {quiet / 60:.3g} minutes; its worker is ended, and the "
                "trial tried again from its checkpoint"
            )
            self._run.places.kill(key, quiet)

    def _report(self, stage: str) -> None:
        if stage != self._stage:
            self._stage, self._patience = stage, Patience()
        if stage and self._patience.due:
            self.say(self._patience.said(stage))

    def _abandon(self) -> None:
        global _abandoned
        _abandoned = True
        self._leaving = True
        self._run.close()
        self.cluster.end()
        if self._guard is not None:
            self._guard.close()
