"""The strategies that choose networks. A new one is a class here and a line in ``STRATEGIES``."""

from __future__ import annotations

import hashlib
import itertools
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeGuard

import optuna
from optuna.distributions import IntDistribution
from optuna.trial import TrialState

from pyconv_search.results.row import Epoch, Row
from pyconv_search.search.ledger import CurveOf, Ledger, config_of, decode, distribution, encode, identity
from pyconv_search.space.domains import Domain
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

    def __init__(self, study: Study, ledger: Ledger) -> None:
        super().__init__(study, ledger)
        self._left = candidates(study)

    def propose(self) -> list[Candidate]:
        proposed, self._left = self._left, []
        return proposed


class Tpe(Strategy):
    """Tree-structured Parzen estimator (Bergstra et al. 2011) of Optuna, told the truth.

    Networks that break a constraint, and repetitions of one that was proposed before, cost nothing: Optuna is told so
    at once and asked again; after PATIENCE refusals in a row seeded random draws take the turn, as they do for the
    first ``startup`` networks. What is proposed is a function of the search's seed and the recorded history, so that an
    interrupted search goes on as it would have.
    """

    def __init__(self, study: Study, ledger: Ledger) -> None:
        super().__init__(study, ledger)
        self._seen: set[str] = set()
        self._resumed: list[Candidate] = []
        self._drawn = 0
        self._reopen()

    def _reopen(self) -> None:
        """Propose again what earlier runs proposed: some was under way, and the study may have more seeds by now."""
        for trial in self._ledger.optuna.get_trials(deepcopy=False):
            if trial.state == TrialState.RUNNING and config_of(trial) is None:
                self._ledger.optuna.tell(trial.number, state=TrialState.FAIL)
        domains = {p.name: p.domain for p in self._study.space.parameters}
        for trial in self._ledger.trials():
            values = {name: decode(domains[name], trial.params[name]) for name in domains if name in trial.params}
            row = candidate(self._study, values)
            if self._is_new(row):
                self._seen.add(row.config)
                self._resumed.append(row)

    def propose(self) -> list[Candidate]:
        if self._resumed:
            proposed, self._resumed = self._resumed, []
            return proposed
        if len(self._seen) >= self._study.searched:
            return []
        for _ in range(PATIENCE if len(self._seen) >= self._study.search.startup else 0):
            trial, row = self._ask()
            if self._is_new(row):
                return [self._opened(trial, row)]
            trial.set_user_attr("refused", "infeasible" if row is None else "repeated")
            self._ledger.optuna.tell(trial, state=TrialState.PRUNED if row is None else TrialState.FAIL)
        return self._draw()

    def _is_new(self, row: Candidate | None) -> TypeGuard[Candidate]:
        return row is not None and row.config not in self._seen

    def _draw(self) -> list[Candidate]:
        """The next network of the seeded random stream that was not proposed before, or else of all that there are."""
        study = self._study
        for values in itertools.chain(self._stream(), study.supply or ()):
            if self._is_new(candidate(study, values)):
                self._ledger.optuna.enqueue_trial(encode(study, values))
                trial, row = self._ask()
                if self._is_new(row):
                    return [self._opened(trial, row)]
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

    def _opened(self, trial: optuna.trial.Trial, row: Candidate) -> Candidate:
        for key, value in identity(row).items():
            trial.set_user_attr(key, value)
        self._seen.add(row.config)
        return row

    def _ask(self) -> tuple[optuna.trial.Trial, Candidate | None]:
        study, optuna_study = self._study, self._ledger.optuna
        optuna_study.sampler = _sampler(study, len(optuna_study.get_trials(deepcopy=False)))
        trial = optuna_study.ask()
        values: Assignment = {}
        for parameter in study.space.parameters:
            if parameter.active(values):
                values[parameter.name] = _suggested(trial, parameter.name, parameter.domain)
        return trial, candidate(study, values)


def _sampler(study: Study, number: int) -> optuna.samplers.BaseSampler:
    digest = hashlib.sha256(f"{study.search.seed}/tpe/{number}".encode()).digest()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(
            n_startup_trials=study.search.startup,
            multivariate=True,
            group=True,
            constant_liar=True,
            seed=int.from_bytes(digest[:4]),
        )


def _suggested(trial: optuna.trial.Trial, name: str, domain: Domain) -> Any:
    form = distribution(domain)
    if isinstance(form, IntDistribution):
        return decode(domain, trial.suggest_int(name, form.low, form.high, step=form.step))
    return decode(domain, trial.suggest_categorical(name, form.choices))  # type: ignore[attr-defined]


STRATEGIES: dict[str, type[Listed] | type[Tpe]] = {"rows": Listed, "grid": Listed, "random": Listed, "tpe": Tpe}


def make_strategy(
    study: Study, folder: Path, rows: Sequence[Row] = (), curve_of: CurveOf = lambda trial: ()
) -> Strategy:
    """The strategy that the study names, going on where an earlier run in ``folder`` stopped with ``rows``."""
    ledger = Ledger(study, folder)
    ledger.agree(rows, curve_of)
    return STRATEGIES[study.search.kind](study, ledger)
