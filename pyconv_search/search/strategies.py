"""The strategies that choose networks, and the Optuna study in the run's folder that records what became of each.

The journal of the run is the truth; ``optuna.journal`` beside it holds the same search in Optuna's own format, with
honest states: COMPLETE with the means over seeds, PRUNED with its learning curve for a network that the scheduler
stopped, FAIL with the reason for one that failed. TPE learns from it, and Optuna's dashboard can open it.
"""

from __future__ import annotations

import hashlib
import json
import statistics
import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from pyconv_search.fields import Problems
from pyconv_search.results.files import last_whole_line
from pyconv_search.results.row import Epoch, Row
from pyconv_search.space.domains import Domain
from pyconv_search.space.sampling import draw
from pyconv_search.space.space import COSTS, Assignment
from pyconv_search.study.plan import Candidate, candidate, candidates
from pyconv_search.study.study import Study

STORAGE = "optuna.journal"
PATIENCE = 200
MOST_REFUSED = 1000
MEASURES = {"top1_error": "val_top1_error", "top5_error": "val_top5_error", "loss": "val_loss"}


class Strategy(ABC):
    """Proposes networks and learns what became of them.

    ``shortfall`` says why the search ended before the number of networks that the study asks for; else it is empty.
    """

    shortfall: str = ""

    @abstractmethod
    def propose(self) -> list[Candidate]:
        """The next networks to train, each once per seed; none when the search is over."""

    @abstractmethod
    def observe(self, row: Candidate, rows: Sequence[Row], curve: Sequence[Epoch]) -> None:
        """Every seed of ``row`` has ended with ``rows``; ``curve`` is the learning curve of its first seed."""


def objective_values(study: Study, rows: Sequence[Row]) -> list[float] | None:
    """The mean of each objective over the complete rows, in the study's order; None if no row is complete."""
    complete = [row for row in rows if row.status == "complete"]
    if not complete:
        return None
    return [statistics.fmean(_value(name, row) for row in complete) for name in study.objectives]


def _value(name: str, row: Row) -> float:
    if name in COSTS:
        return row.macs / 1e9 if name == "gmacs" else getattr(row, name)
    return getattr(row, MEASURES[name])


class Ledger:
    """The Optuna study in a run's folder.

    Only one process at a time may hold a folder's journal and with it this file, so that a lock or half a line which a
    killed process left behind is safe to remove. A file that is damaged beyond that is set aside, and made again from
    the journal with :meth:`rebuild`.
    """

    def __init__(self, study: Study, folder: Path) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        path = folder / STORAGE
        for suffix in (".lock", ".lock.rename"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        self.study = study
        try:
            _cut_torn_line(path)
            self.optuna = _opened(study, path)
        except OSError:
            raise
        except Exception:  # Optuna has no word of its own for a damaged file.
            path.replace(path.with_name(path.name + ".corrupt"))
            self.optuna = _opened(study, path)

    def closed(self) -> set[str]:
        """The ``arch_id`` of every network whose outcome is recorded."""
        return {
            t.user_attrs["arch_id"]
            for t in self.optuna.get_trials(deepcopy=False)
            if t.state.is_finished() and "arch_id" in t.user_attrs
        }

    def rebuild(self, rows: Sequence[Row]) -> None:
        """Record the networks of the journal that are missing here, should this file have been lost."""
        known = {t.user_attrs.get("arch_id") for t in self.optuna.get_trials(deepcopy=False)}
        missing: dict[str, list[Row]] = {}
        for row in rows:
            if row.arch_id not in known:
                missing.setdefault(row.arch_id, []).append(row)
        for ended in missing.values():
            problems = Problems()
            values = self.study.space.complete(ended[0].parameters, (), problems)
            found = None if problems.found else candidate(self.study, values, ended[0].name)
            if found is not None and len(ended) >= len(self.study.seeds):
                self.add(found, ended, [])

    def add(self, row: Candidate, rows: Sequence[Row], curve: Sequence[Epoch]) -> None:
        """Record the outcome of a network that Optuna did not propose."""
        values = objective_values(self.study, rows)
        self.optuna.add_trial(
            optuna.trial.create_trial(
                state=outcome(rows),
                params=encode(self.study, row.values),
                distributions=distributions(self.study, row.values),
                values=values,
                user_attrs=attributes(row, rows),
                intermediate_values=self.steps(curve),
            )
        )

    def steps(self, curve: Sequence[Epoch]) -> dict[int, float]:
        """The first measured objective by epoch, where Optuna can hold it: it has no curves for several objectives."""
        if len(self.study.objectives) > 1:
            return {}
        return {point.epoch: getattr(point, MEASURES[self.study.measure]) for point in curve}


def _opened(study: Study, path: Path) -> optuna.Study:
    directions = [
        StudyDirection.MINIMIZE if to == "min" else StudyDirection.MAXIMIZE for to in study.objectives.values()
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        storage = optuna.storages.JournalStorage(JournalFileBackend(str(path)))
        found = optuna.create_study(
            storage=storage, study_name=search_name(study), directions=directions, load_if_exists=True
        )
        found.set_metric_names(list(study.objectives))
    return found


def _cut_torn_line(path: Path) -> None:
    if path.exists():
        with path.open("r+b") as file:
            file.truncate(last_whole_line(file.fileno()))


def search_name(study: Study) -> str:
    """The study's name and a digest of its parameters and objectives: if these change, Optuna needs a new study."""
    parameters = {p.name: [p.domain.kind, *map(repr, p.domain.values)] for p in study.space.parameters}
    digest = hashlib.sha256(json.dumps([parameters, list(study.objectives.items())], sort_keys=True).encode())
    return f"{study.name} [{digest.hexdigest()[:8]}]"


def outcome(rows: Sequence[Row]) -> TrialState:
    """COMPLETE if any seed is complete, else PRUNED if any was stopped, else FAIL."""
    statuses = {row.status for row in rows}
    if "complete" in statuses:
        return TrialState.COMPLETE
    return TrialState.PRUNED if "stopped" in statuses else TrialState.FAIL


def attributes(row: Candidate, rows: Sequence[Row]) -> dict[str, Any]:
    """What Optuna keeps beside the parameters."""
    return {
        "arch_id": row.architecture.arch_id,
        "name": row.name,
        "trials": [r.trial for r in rows],
        "states": [f"stopped@{r.epochs}" if r.status == "stopped" else r.status for r in rows],
        "reasons": [r.reason for r in rows if r.status == "failed"],
    }


def distribution(domain: Domain) -> BaseDistribution:
    """Optuna's form of a domain: integers as they are, ordered values by position, choices as JSON texts."""
    if isinstance(domain.values, range):
        return IntDistribution(domain.values[0], domain.values[-1], step=domain.values.step)
    if domain.ordered:
        return IntDistribution(0, len(domain) - 1)
    return CategoricalDistribution([json.dumps(value) for value in domain.values])


def distributions(study: Study, values: Assignment) -> dict[str, BaseDistribution]:
    """The distribution of each parameter that the assignment holds."""
    return {name: distribution(study.space.by_name[name].domain) for name in values}


def encode(study: Study, values: Assignment) -> dict[str, Any]:
    """An assignment in the terms of :func:`distribution`."""
    return {name: _encoded(study.space.by_name[name].domain, value) for name, value in values.items()}


def _encoded(domain: Domain, value: Any) -> Any:
    if isinstance(domain.values, range):
        return value
    index = domain.index(value)
    return index if domain.ordered else json.dumps(domain.values[index or 0])


def _decoded(domain: Domain, value: Any) -> Any:
    if isinstance(domain.values, range):
        return value
    return domain.values[value] if domain.ordered else json.loads(value)


class Listed(Strategy):
    """Networks known beforehand: the study's rows, its grid, or its random sample."""

    def __init__(self, study: Study, ledger: Ledger) -> None:
        self._ledger, self._left = ledger, candidates(study)
        self._closed = ledger.closed()

    def propose(self) -> list[Candidate]:
        proposed, self._left = self._left, []
        return proposed

    def observe(self, row: Candidate, rows: Sequence[Row], curve: Sequence[Epoch]) -> None:
        if row.architecture.arch_id not in self._closed:
            self._closed.add(row.architecture.arch_id)
            self._ledger.add(row, rows, curve)


class Tpe(Strategy):
    """Tree-structured Parzen estimator (Bergstra et al. 2011) of Optuna, told the truth.

    Networks that break a constraint, and repetitions of one that was proposed before, cost nothing: Optuna is told so
    at once and asked again; after PATIENCE refusals in a row seeded random draws take the turn, as they do for the
    first ``startup`` networks. What is proposed is a function of the search's seed and the recorded history, so that an
    interrupted search goes on as it would have.
    """

    def __init__(self, study: Study, ledger: Ledger) -> None:
        self._study, self._ledger = study, ledger
        self._open: dict[str, optuna.trial.Trial | FrozenTrial] = {}
        self._seen: set[str] = set()
        self._resumed: list[Candidate] = []
        self._reopen()

    def _reopen(self) -> None:
        """Propose again what earlier runs proposed: some was under way, and the study may have more seeds by now."""
        domains = {p.name: p.domain for p in self._study.space.parameters}
        for trial in self._ledger.optuna.get_trials(deepcopy=False):
            arch_id = trial.user_attrs.get("arch_id")
            under_way = trial.state == TrialState.RUNNING
            if arch_id is None and under_way:
                self._ledger.optuna.tell(trial.number, state=TrialState.FAIL)
            if arch_id is None:
                continue
            self._seen.add(arch_id)
            values = {name: _decoded(domains[name], trial.params[name]) for name in domains if name in trial.params}
            row = candidate(self._study, values)
            if row is not None:
                self._resumed.append(row)
                self._open.update({arch_id: trial} if under_way else {})

    def propose(self) -> list[Candidate]:
        if self._resumed:
            proposed, self._resumed = self._resumed, []
            return proposed
        if len(self._seen) >= self._study.search.trials:
            return []
        for refused in range(MOST_REFUSED):
            trial, row = self._ask(refused)
            if row is not None and row.architecture.arch_id not in self._seen:
                return [self._opened(trial, row)]
            trial.set_user_attr("refused", "infeasible" if row is None else "repeated")
            self._ledger.optuna.tell(trial, state=TrialState.PRUNED if row is None else TrialState.FAIL)
        self.shortfall = (
            f"{self._study.space.document.file}: found {len(self._seen)} of {self._study.search.trials} different "
            f"networks and no further one in {MOST_REFUSED:,} proposals; the space holds "
            f"{self._study.space.size:,} assignments before its {len(self._study.space.constraints)} constraints"
        )
        return []

    def _opened(self, trial: optuna.trial.Trial, row: Candidate) -> Candidate:
        arch_id = row.architecture.arch_id
        trial.set_user_attr("arch_id", arch_id)
        self._seen.add(arch_id)
        self._open[arch_id] = trial
        return row

    def _ask(self, refused: int) -> tuple[optuna.trial.Trial, Candidate | None]:
        study, space, optuna_study = self._study, self._study.space, self._ledger.optuna
        number = len(optuna_study.get_trials(deepcopy=False))
        if refused >= PATIENCE or len(self._seen) < study.search.startup:
            optuna_study.enqueue_trial(encode(study, draw(space, study.search.seed, number)))
        optuna_study.sampler = _sampler(study, number)
        trial = optuna_study.ask()
        values: Assignment = {}
        for parameter in space.parameters:
            if parameter.active(values):
                values[parameter.name] = _suggested(trial, parameter.name, parameter.domain)
        return trial, candidate(study, values)

    def observe(self, row: Candidate, rows: Sequence[Row], curve: Sequence[Epoch]) -> None:
        arch_id = row.architecture.arch_id
        trial = self._open.pop(arch_id, None)
        if trial is None:
            return
        handle = optuna.trial.Trial(self._ledger.optuna, trial._trial_id)
        for step, value in self._ledger.steps(curve).items():
            handle.report(value, step)
        for key, attribute in attributes(row, rows).items():
            handle.set_user_attr(key, attribute)
        self._ledger.optuna.tell(trial.number, objective_values(self._study, rows), state=outcome(rows))


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
        return _decoded(domain, trial.suggest_int(name, form.low, form.high, step=form.step))
    return _decoded(domain, trial.suggest_categorical(name, form.choices))  # type: ignore[attr-defined]


STRATEGIES: dict[str, type[Listed] | type[Tpe]] = {"rows": Listed, "grid": Listed, "random": Listed, "tpe": Tpe}


def make_strategy(study: Study, folder: Path, rows: Sequence[Row] = ()) -> Strategy:
    """The strategy that the study names, going on where an earlier run in ``folder`` stopped with ``rows``."""
    ledger = Ledger(study, folder)
    ledger.rebuild(rows)
    return STRATEGIES[study.search.kind](study, ledger)
