"""The strategies that choose networks. A new one is a class here and a line in ``STRATEGIES``."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TypeGuard

from optuna.trial import FrozenTrial

from pyconv_search.results.row import Epoch, Row
from pyconv_search.search.history import History
from pyconv_search.search.ledger import CurveOf, Ledger, config_of, decode
from pyconv_search.space.sampling import draw
from pyconv_search.space.space import Assignment
from pyconv_search.study.plan import Candidate, candidate, candidates
from pyconv_search.study.study import Study

PATIENCE = 20
MOST_DRAWN = 2000


class Strategy(ABC):
    """Proposes networks; what becomes of them goes to the ledger.

    ``shortfall`` says why the search ended before the number of networks that were planned; else it is empty.
    """

    shortfall: str = ""

    def __init__(self, study: Study, ledger: Ledger) -> None:
        self._study, self._ledger = study, ledger

    @abstractmethod
    def propose(self) -> list[Candidate]:
        """The next networks to train, each once per seed; none when the search is over."""

    def observe(self, row: Candidate, rows: Sequence[Row], curve: Sequence[Epoch]) -> None:
        """Every seed of ``row`` has ended with ``rows``; ``curve`` is the learning curve of its first seed."""
        self._ledger.record(row, rows, curve)

    def settle(self, rows: Sequence[Row], curve_of: CurveOf) -> None:
        """The run is over with ``rows``: the ledger is to say the same."""
        self._ledger.agree(rows, curve_of)


class Listed(Strategy):
    """Networks known beforehand: the study's rows, its grid, or its random sample."""

    def __init__(self, study: Study, ledger: Ledger, proposed: Sequence[Candidate] = ()) -> None:
        super().__init__(study, ledger)
        self._known = self._left = candidates(study)

    def propose(self) -> list[Candidate]:
        proposed, self._left = self._left, []
        return proposed

    def settle(self, rows: Sequence[Row], curve_of: CurveOf) -> None:
        self._ledger.agree(rows, curve_of, known=self._known)


class Tpe(Strategy):
    """Tree-structured Parzen estimator (Bergstra et al. 2011) of Optuna, given exact costs.

    Networks that break a constraint, and repetitions of one that was proposed before, are refused and leave no trace:
    what a network costs is known exactly and need not be learned. Optuna is asked again at once; after PATIENCE
    refusals in a row seeded random draws take the turn, as they do for the first ``startup`` networks. What is proposed
    is a function of the search's seed and the recorded history, so that an interrupted search goes on as it would have.
    ``proposed`` are the networks that earlier runs proposed, by the journal; they and those that only Optuna's file
    knows yet are as many as the study asks for at most.
    """

    def __init__(self, study: Study, ledger: Ledger, proposed: Sequence[Candidate] = ()) -> None:
        super().__init__(study, ledger)
        self._seen = History(study)
        self._resumed: list[Candidate] = []
        self._drawn = 0
        self._reopen(proposed)

    def _reopen(self, proposed: Sequence[Candidate]) -> None:
        """Propose again what earlier runs proposed: some was under way, and the study may have more seeds by now."""
        told = {config: t for t in self._ledger.trials() if (config := config_of(t)) is not None}
        for row in proposed:
            self._resume(row, told.get(row.config))
        domains = {p.name: p.domain for p in self._study.space.parameters}
        for config, trial in told.items():
            if config not in self._seen:
                values = {name: decode(domains[name], trial.params[name]) for name in domains if name in trial.params}
                self._resume(candidate(self._study, values), trial)

    def _resume(self, row: Candidate | None, trial: FrozenTrial | None) -> None:
        if self._is_new(row) and len(self._seen) < self._study.search.trials:
            self._seen.add(row.config, trial or self._ledger.add(row))
            self._resumed.append(row)

    def propose(self) -> list[Candidate]:
        if self._resumed:
            proposed, self._resumed = self._resumed, []
            return proposed
        if len(self._seen) >= self._study.searched:
            return []
        if len(self._seen) >= self._study.search.startup:
            for values in self._seen.proposals(PATIENCE):
                row = candidate(self._study, values)
                if self._is_new(row):
                    return [self._accepted(row)]
        return self._draw()

    def observe(self, row: Candidate, rows: Sequence[Row], curve: Sequence[Epoch]) -> None:
        super().observe(row, rows, curve)
        self._seen.tell(row.config, rows, self._ledger.steps(curve))

    def _is_new(self, row: Candidate | None) -> TypeGuard[Candidate]:
        return row is not None and row.config not in self._seen

    def _draw(self) -> list[Candidate]:
        """The next network of the seeded random stream that was not proposed before, or else of all that there are."""
        study = self._study
        for values in itertools.chain(self._stream(), study.supply or ()):
            row = candidate(study, values)
            if self._is_new(row):
                return [self._accepted(row)]
        self.shortfall = (
            f"{study.space.document.file}: found {len(self._seen)} of {study.search.trials} different networks and no "
            f"further one in {MOST_DRAWN:,} draws; the space holds {study.space.size:,} assignments before its "
            f"{len(study.space.constraints)} constraints"
        )
        return []

    def _stream(self) -> Iterator[Assignment]:
        for _ in range(MOST_DRAWN):
            self._drawn += 1
            yield draw(self._study.space, self._study.search.seed, self._drawn - 1)

    def _accepted(self, row: Candidate) -> Candidate:
        self._seen.add(row.config, self._ledger.add(row))
        return row


STRATEGIES: dict[str, type[Listed] | type[Tpe]] = {"rows": Listed, "grid": Listed, "random": Listed, "tpe": Tpe}


def make_strategy(
    study: Study,
    folder: Path,
    rows: Sequence[Row] = (),
    curve_of: CurveOf = lambda trial: (),
    proposed: Sequence[Candidate] = (),
    departed: Collection[str] = (),
) -> Strategy:
    """The strategy that the study names, going on where an earlier run in ``folder`` stopped with ``rows``.

    ``proposed`` are the networks that an adaptive search proposed there and the study still has, in their order;
    ``departed`` the configurations that have left the study.
    """
    ledger = Ledger(study, folder)
    ledger.agree(rows, curve_of, departed, candidates(study))
    return STRATEGIES[study.search.kind](study, ledger, proposed)
