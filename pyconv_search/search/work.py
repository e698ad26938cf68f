"""Which trial runs next, and what came of those that ended: the authority over a run, whoever executes it.

Ray's own record of an experiment lags behind and repeats trials after a crash; here every decision follows from the
journal, keyed by what a trial is. So a finished trial never runs again, whichever process asks.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pyconv_search.results.curves import Curves
from pyconv_search.results.listing import PROPOSED, to_entry
from pyconv_search.results.row import Epoch, Row
from pyconv_search.results.standing import best_so_far
from pyconv_search.results.store import Journal, Store
from pyconv_search.search.retry import Retry
from pyconv_search.search.strategies import Strategy
from pyconv_search.study.plan import Candidate, trial_id, trial_spec
from pyconv_search.study.study import Study


@dataclass(slots=True)
class Running:
    """A trial under way."""

    spec: dict[str, Any]
    macs: int
    epochs: int = 0

    @property
    def planned(self) -> int:
        """The epochs of its recipe."""
        return int(self.spec["recipe"]["epochs"])


@dataclass(slots=True)
class Totals:
    """Sums over the trials of a study, kept up as trials are queued, started and ended, since they are shown at each.

    ``best`` is the complete trial with the lowest value of ``measure``. ``done`` are the
    multiply-adds of ended trials times the epochs that they trained for, ``whole`` times those of their recipes,
    ``queued`` the same of the waiting trials.
    """

    measure: str
    statuses: Counter[str] = field(default_factory=Counter)
    best: Row | None = None
    done: int = 0
    whole: int = 0
    queued: int = 0

    def end(self, row: Row, usual: int) -> None:
        """Count a row; ``usual``: the epochs of a recipe that does not say its own."""
        self.statuses[row.status] += 1
        self.done += row.macs * row.epochs
        self.whole += row.macs * row.recipe.get("epochs", usual)
        self.best = best_so_far([row] if self.best is None else [self.best, row], self.measure)


class Work:
    """The trials of one run: hand out with :meth:`next`, hand back with :meth:`epoch` and :meth:`end`.

    ``retry_failed`` runs the trials that failed before once more, as they were or in the way that it says.
    ``on_change`` is called after every change. ``ended`` are the rows of the trials that belong to the study as it is
    now; the journal may hold others.
    """

    def __init__(
        self, study: Study, strategy: Strategy, journal: Journal, store: Store, retry_failed: Retry | bool = False
    ) -> None:
        self.study, self._strategy, self._journal, self.folder = study, strategy, journal, journal.folder
        self._retry = retry_failed if isinstance(retry_failed, Retry) else Retry()
        self._failed = {row.trial: row for row in store.rows if retry_failed and row.status == "failed"}
        self.rows = {row.trial: row for row in store.rows if row.trial not in self._failed}
        self.running: dict[str, Running] = {}
        self.on_change: Callable[[], None] = lambda: None
        self.ended: list[Row] = []
        self.totals = Totals(study.measure)
        self._queue: OrderedDict[str, tuple[Candidate, int]] = OrderedDict()
        self._trials: dict[str, tuple[Candidate, list[str]]] = {}
        self._apart = set(self._failed)  # Tried again, each in its own way.
        self._left = {row.trial for row in store.rows} - {row.trial for row in store.current().rows}
        self._listed = None if store.listing is None else set(store.listing.configs)
        self._curves = Curves()
        for epoch in store.epochs:
            self._curves.add(epoch)

    def next(self) -> dict[str, Any] | None:
        """The next trial as plain JSON values; None when there is nothing left to start."""
        if not self.more():
            return None
        trial, (row, seed) = self._queue.popitem(last=False)
        self.totals.queued -= _effort(row)
        spec = trial_spec(self.study, row, seed, str(self._journal.folder.resolve()))
        if trial in self._failed:
            spec = self._retry.applied(spec, self._failed[trial].reason)
        self.running[trial] = running = Running(spec, row.cost.macs)
        names = {"network": row.name, "config": row.config, "seed": seed}
        self._journal.append_begin(trial=trial, **names, macs=running.macs, epochs=running.planned)
        self.on_change()
        return spec

    def next_group(self, most: Callable[[Candidate], int]) -> list[dict[str, Any]]:
        """The next trial and those of its network that differ in their seed alone, at most as many as ``most`` says.

        Empty where there is nothing left to start.
        """
        if not self.more():
            return []
        first = next(iter(self._queue))
        row, siblings = self._trials[first]
        own = [trial for trial in siblings if trial in self._queue and trial not in self._apart]
        chosen = own[: max(most(row), 1)] if first in own else [first]
        for trial in reversed(chosen):
            self._queue.move_to_end(trial, last=False)
        return [spec for _ in chosen if (spec := self.next()) is not None]

    def put_back(self, specs: Sequence[dict[str, Any]]) -> None:
        """Trials that were lost together and have no row: each is to run by itself."""
        for spec in specs:
            if self.running.pop(spec["trial"], None) is not None:
                self._apart.add(spec["trial"])
                self._wait(spec["trial"], self._trials[spec["trial"]][0], spec["seed"])
        self.on_change()

    def more(self) -> bool:
        """Whether there is a trial left to start."""
        while not self._queue:
            if not self._refill():
                return False
        return True

    def _refill(self) -> bool:
        """Ask the strategy for more; every network gets its first seed before any gets its second."""
        proposed = [
            (row, [trial_id(self.study, row, seed) for seed in self.study.seeds]) for row in self._strategy.propose()
        ]
        for row, trials in proposed:
            for trial in trials:
                if trial in self.rows and trial not in self._trials:
                    self._count(self.rows[trial])
                self._trials[trial] = (row, trials)
            self._list(row, trials)
            self._observe(trials[0])
        for i, seed in enumerate(self.study.seeds):
            for row, trials in proposed:
                if trials[i] not in self.rows:
                    self._wait(trials[i], row, seed)
        return bool(proposed)

    def _wait(self, trial: str, row: Candidate, seed: int) -> None:
        if trial not in self._queue:
            self._queue[trial] = (row, seed)
            self.totals.queued += _effort(row)

    def _count(self, row: Row) -> None:
        self.ended.append(row)
        self.totals.end(row, self.study.recipe.epochs)

    def _list(self, row: Candidate, trials: Sequence[str]) -> None:
        """Note a network that was not known when the run began."""
        if self._listed is not None and row.config not in self._listed:
            self._journal.append_event(PROPOSED, network=to_entry(row.config, row.name, row.values, trials))
            self._listed.add(row.config)

    def epoch(self, epoch: Epoch) -> None:
        """Note one epoch of a running trial; one whose numbers are already in the journal is not written again."""
        if self._curves.add(epoch):
            self._journal.append_epoch(epoch)
        if epoch.trial in self.running:
            self.running[epoch.trial].epochs = epoch.epoch
            self.on_change()

    def end(self, row: Row) -> None:
        """Note what became of a trial; a second row of the same trial is not taken."""
        if row.trial in self.rows:
            return
        if not row.epochs and not row.device:  # All that is known of it is what came before.
            row = replace(row, epochs=len(self.curve(row.trial)))
        self._curves.end(row)
        self._journal.append_row(row)
        self.rows[row.trial] = row
        self._count(row)
        self.running.pop(row.trial, None)
        self._observe(row.trial)
        self.on_change()

    def _observe(self, trial: str) -> None:
        """Tell the strategy when all seeds of the trial's network have ended."""
        row, trials = self._trials[trial]
        if all(other in self.rows for other in trials):
            self._strategy.observe(row, [self.rows[other] for other in trials], self.curve(trials[0]))

    def measured(self, column: str) -> dict[str, dict[int, float]]:
        """One column of the learning curves that are known so far, by trial and epoch.

        Without those that have left the study, and those of trials that begin anew.
        """
        anew = {trial for trial, row in self._failed.items() if self._retry.anew(row) and trial not in self.rows}
        return {
            trial: {epoch.epoch: getattr(epoch, column) for epoch in self.curve(trial)}
            for trial in self._curves.trials()
            if trial not in anew and (trial not in self._left or trial in self._trials)
        }

    def curve(self, trial: str) -> list[Epoch]:
        """The epochs of a trial that are known so far."""
        return self._curves.of(trial)

    @property
    def waiting(self) -> int:
        """How many trials wait."""
        return len(self._queue)

    @property
    def queued(self) -> list[Candidate]:
        """The networks of the waiting trials, without those that an adaptive search has yet to propose."""
        return [row for row, _ in list(self._queue.values())]


def _effort(row: Candidate) -> int:
    return row.cost.macs * row.recipe.epochs
