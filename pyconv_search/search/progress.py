"""How a run stands, reported while it goes on: a live table on a terminal, plain lines anywhere else."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pyconv_search.fields import printable
from pyconv_search.results.row import Epoch, Row
from pyconv_search.results.standing import MEASURES, WORDS, effort_left, failure_text, value_text
from pyconv_search.search.waiting import say
from pyconv_search.search.work import Work
from pyconv_search.units import duration

QUIET_SECONDS = 25.0
# While trials run without an event (an epoch may take hours) a summary follows after twice the time each, up to this.
LONGEST_QUIET_SECONDS = 300.0
MOST_SHOWN = 16


class Progress:
    """A context manager that shows ``work`` until it is left; a thread of its own may draw while ``work`` changes.

    On a terminal the picture is redrawn a few times a second; elsewhere every ended trial is one line, with a summary
    when QUIET_SECONDS pass without one, and later ones at growing intervals.
    """

    def __init__(self, work: Work, planned: int, console: Console) -> None:
        self.work, self.planned, self.console = work, planned, console
        self._begun = time.monotonic()
        self._spoke, self._patience = self._begun, QUIET_SECONDS
        self._told = len(work.ended)
        self._before = self._effort_done()
        self._measure = work.study.measure
        self._live = Live(get_renderable=self._picture, console=console, refresh_per_second=2, transient=False)

    def __enter__(self) -> Progress:
        self.work.on_change = self._changed
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.work.on_change = lambda: None
        if self.console.is_terminal:
            self._live.stop()

    def begin(self) -> None:
        """Trials are run from now on: the time before does not count for what is left."""
        self._begun, self._before = time.monotonic(), self._effort_done()

    def tick(self) -> None:
        """Called every second or so, whatever happens."""
        if not self.console.is_terminal and time.monotonic() - self._spoke > self._patience:
            patience = min(2 * self._patience, LONGEST_QUIET_SECONDS)
            self._say(self.summary())
            self._patience = patience

    def _changed(self) -> None:
        if self.console.is_terminal:
            return
        fresh, self._told = self.work.ended[self._told :], len(self.work.ended)
        for row in fresh:
            self._say(f"{row_text(row, self._measure)}; {self.summary()}")
        if time.monotonic() - self._spoke > QUIET_SECONDS:
            self._say(self.summary())

    def _say(self, line: str) -> None:
        self._spoke, self._patience = time.monotonic(), QUIET_SECONDS
        say(self.console, line)

    def summary(self) -> str:
        """Trials done, running and failed, the best so far, and the time left, in one line."""
        counts, best = self.work.totals.statuses, self.work.totals.best
        parts = [f"{len(self.work.ended)}/{self.planned} trials", f"{len(self.work.running)} running"]
        parts += [f"{counts[status]} {status}" for status in ("stopped", "failed") if counts[status]]
        parts += [f"best {self._value(best)} ({best.name})"] if best else []
        left = self.seconds_left()
        return ", ".join(parts + ([f"{duration(left, digits=2)} left"] if left is not None else []))

    def seconds_left(self) -> float | None:
        """The time left at the pace so far, counting every epoch of a network by its multiply-adds."""
        done, elapsed = self._effort_done() - self._before, time.monotonic() - self._begun
        if done <= 0 or len(self.work.ended) >= self.planned:
            return None
        return self._effort_left() * elapsed / done

    def _effort_done(self) -> float:
        return self.work.totals.done + sum(trial.macs * trial.epochs for trial in list(self.work.running.values()))

    def _effort_left(self) -> float:
        running = [(each.macs * each.planned, each.macs * each.epochs) for each in list(self.work.running.values())]
        totals = self.work.totals
        ended, queued = (len(self.work.ended), totals.whole), (self.work.waiting, totals.queued)
        return effort_left(self.planned, ended, running, queued)

    def _value(self, record: Row | Epoch) -> str:
        return value_text(getattr(record, MEASURES[self._measure]), self._measure)

    def _picture(self) -> Group:
        table = Table(box=None, pad_edge=False, header_style="dim")
        for heading in ("running", "seed", "epoch", WORDS[self._measure]):
            table.add_column(heading, no_wrap=True)
        for trial, state in list(self.work.running.items())[:MOST_SHOWN]:
            curve = self.work.curve(trial)
            error = self._value(curve[-1]) if curve else "–"
            table.add_row(
                Text(printable(state.spec["name"])), str(state.spec["seed"]), f"{state.epochs}/{state.planned}", error
            )
        bar = ProgressBar(total=max(self.planned, 1), completed=len(self.work.ended), width=40)
        return Group(Text(printable(self.summary())), bar, Text(), table)


def row_text(row: Row, measure: str) -> str:
    """One ended trial in one line, with what the study compares networks by."""
    what = f"{row.name} (seed {row.seed})"
    epochs = f"{row.epochs} epoch{'s' * (row.epochs != 1)}"
    if row.status == "failed":
        return f"{what} failed after {epochs}: {failure_text(row)}"
    value = getattr(row, MEASURES[measure])
    error = f": {WORDS[measure]} {value_text(value, measure)}" if value is not None else ""
    return f"{what} {row.status}{f' after {epochs}' if row.status == 'stopped' else ''}{error}"
