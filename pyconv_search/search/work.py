"""Which trial runs next, and what came of those that ended: the authority over a run, whoever executes it.

Ray's own record of an experiment lags behind and repeats trials after a crash; here every decision follows from the
journal, keyed by what a trial is. So a finished trial never runs again, whichever process asks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pyconv_search.results.curves import Curves
from pyconv_search.results.listing import PROPOSED, to_entry
from pyconv_search.results.row import Epoch, Row
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


class Work:
    """The trials of one run: hand out with :meth:`next`, hand back with :meth:`epoch` and :meth:`end`.

    ``retry_failed`` runs the trials that failed before once more, as they were or in the way that it says.
    ``on_change`` is called after every change.
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
        self._queue: deque[tuple[str, Candidate, int]] = deque()
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
        trial, row, seed = self._queue.popleft()
        spec = trial_spec(self.study, row, seed, str(self._journal.folder.resolve()))
        if trial in self._failed:
            spec = self._retry.applied(spec, self._failed[trial].reason)
        self.running[trial] = Running(spec, row.cost.macs)
        self.on_change()
        return spec

    def next_group(self, most: Callable[[Candidate], int]) -> list[dict[str, Any]]:
        """The next trial and those of its network that differ in their seed alone, at most as many as ``most`` says.

        Empty where there is nothing left to start.
        """
        if not self.more():
            return []
        first = self._queue[0]
        own = [entry for entry in self._queue if entry[1] is first[1] and entry[0] not in self._apart]
        chosen = own[: max(most(first[1]), 1)] if first in own else [first]
        for entry in reversed(chosen):
            self._queue.remove(entry)
            self._queue.appendleft(entry)
        return [spec for _ in chosen if (spec := self.next()) is not None]

    def put_back(self, specs: Sequence[dict[str, Any]]) -> None:
        """Trials that were lost together and have no row: each is to run by itself."""
        for spec in specs:
            if self.running.pop(spec["trial"], None) is not None:
                self._apart.add(spec["trial"])
                self._queue.append((spec["trial"], self._trials[spec["trial"]][0], spec["seed"]))
        self.on_change()

    def more(self) -> bool:
        """Whether there is a trial left to start."""
        while not self._queue:
            if not self._refill():
                return False
        return True

    def _refill(self) -> bool:
        """Ask the strategy for more; every network gets its first seed before any gets its second."""
        proposed = self._strategy.propose()
        for row in proposed:
            trials = [trial_id(self.study, row, seed) for seed in self.study.seeds]
            self._trials.update(dict.fromkeys(trials, (row, trials)))
            self._list(row, trials)
            self._observe(trials[0])
        for seed in self.study.seeds:
            numbered = ((trial_id(self.study, row, seed), row, seed) for row in proposed)
            self._queue.extend(entry for entry in numbered if entry[0] not in self.rows)
        return bool(proposed)

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
    def ended(self) -> list[Row]:
        """The rows of the trials that belong to the study as it is now; the journal may hold others."""
        return [row for trial, row in list(self.rows.items()) if trial in self._trials]

    @property
    def queued(self) -> list[Candidate]:
        """The networks of the waiting trials, without those that an adaptive search has yet to propose."""
        return [row for _, row, _ in list(self._queue)]
