"""The strategies that choose networks, and the Optuna study in the run's folder that records what became of each.

The journal of the run is the truth; ``optuna.journal`` beside it holds the same search in Optuna's own format, with
honest states: COMPLETE with the means over seeds if every seed is complete, FAIL with the reasons if one failed, PRUNED
with its learning curve if the scheduler stopped one. (PRUNED is also what TPE's proposals are that break a constraint.)
TPE learns from it. Where it no longer agrees with the journal, after a retry or with more seeds, it is made anew.
"""

from __future__ import annotations

import hashlib
import json
import statistics
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeGuard

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
PATIENCE = 20
MOST_DRAWN = 2000
MEASURES = {"top1_error": "val_top1_error", "top5_error": "val_top5_error", "loss": "val_loss"}


CurveOf = Callable[[str], Sequence[Epoch]]


class Strategy(ABC):
    """Proposes networks; what becomes of them goes to the ledger.

    ``shortfall`` says why the search ended before the number of networks that the study asks for; else it is empty.
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


def objective_values(study: Study, rows: Sequence[Row]) -> list[float] | None:
    """The mean of each objective over the rows, in the study's order; None unless all are complete.

    The mean of those seeds that happened to survive would flatter a network that fails or is stopped with others.
    """
    if outcome(rows) != TrialState.COMPLETE:
        return None
    return [statistics.fmean(_value(name, row) for row in rows) for name in study.objectives]


def _value(name: str, row: Row) -> float:
    if name in COSTS:
        return row.macs / 1e9 if name == "gmacs" else getattr(row, name)
    return getattr(row, MEASURES[name])


class Ledger:
    """The Optuna study in a run's folder.

    Only one process at a time may hold a folder's journal and with it this file, so that a lock or half a line which a
    killed process left behind is safe to remove. A file that is damaged beyond that is set aside, and made again from
    the journal with :meth:`agree`.
    """

    def __init__(self, study: Study, folder: Path) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        path = folder / STORAGE
        for suffix in (".lock", ".lock.rename"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        self.study, self._path = study, path
        try:
            _cut_torn_line(path)
            self.optuna = _opened(study, path)
        except OSError:
            raise
        except Exception:  # Optuna has no word of its own for a damaged file.
            path.replace(path.with_name(path.name + ".corrupt"))
            self.optuna = _opened(study, path)

    def trials(self) -> list[FrozenTrial]:
        """The trials of networks that were accepted, whatever their state."""
        return [t for t in self.optuna.get_trials(deepcopy=False) if "arch_id" in t.user_attrs]

    def agree(self, rows: Sequence[Row], curve_of: CurveOf) -> None:
        """Make this file say what the journal's ``rows`` say: add what is missing; if anything differs, begin anew."""
        networks = self._networks(rows)
        stored = {t.user_attrs["arch_id"]: t for t in self.trials()}
        for arch_id, (row, ended) in networks.items():
            trial = stored.get(arch_id)
            if trial is not None and trial.state.is_finished() and not _says(trial, attributes(row, ended)):
                optuna.delete_study(study_name=self.optuna.study_name, storage=self.optuna._storage)
                self.optuna, stored = _opened(self.study, self._path), {}
                break
        for arch_id, (row, ended) in networks.items():
            if arch_id not in stored or not stored[arch_id].state.is_finished():
                self.record(row, ended, curve_of(ended[0].trial))

    def _networks(self, rows: Sequence[Row]) -> dict[str, tuple[Candidate, list[Row]]]:
        """The networks of the rows that the study's space holds, each with its rows in the order of the seeds."""
        grouped: dict[str, list[Row]] = {}
        for row in rows:
            if row.seed in self.study.seeds:
                grouped.setdefault(row.arch_id, []).append(row)
        found = {}
        for arch_id, ended in grouped.items():
            problems = Problems()
            values = self.study.space.complete(ended[0].parameters, (), problems)
            network = None if problems.found else candidate(self.study, values, ended[0].name)
            if network is not None and network.architecture.arch_id == arch_id:
                found[arch_id] = (network, sorted(ended, key=lambda r: self.study.seeds.index(r.seed)))
        return found

    def record(self, row: Candidate, rows: Sequence[Row], curve: Sequence[Epoch]) -> None:
        """Record what became of a network; while seeds are missing, that it is under way. What is told stays told."""
        known = [t for t in self.trials() if t.user_attrs["arch_id"] == row.architecture.arch_id]
        whole = len(rows) == len(self.study.seeds)
        if not known:
            self._add(row, rows, curve, outcome(rows) if whole else TrialState.RUNNING)
        elif whole and not known[0].state.is_finished():
            self._tell(known[0], row, rows, curve)

    def _add(self, row: Candidate, rows: Sequence[Row], curve: Sequence[Epoch], state: TrialState) -> None:
        """A network that Optuna did not propose."""
        self.optuna.add_trial(
            optuna.trial.create_trial(
                state=state,
                params=encode(self.study, row.values),
                distributions=distributions(self.study, row.values),
                values=objective_values(self.study, rows) if state == TrialState.COMPLETE else None,
                user_attrs=attributes(row, rows),
                intermediate_values=self.steps(curve),
            )
        )

    def _tell(self, trial: FrozenTrial, row: Candidate, rows: Sequence[Row], curve: Sequence[Epoch]) -> None:
        handle = optuna.trial.Trial(self.optuna, trial._trial_id)
        for step, value in self.steps(curve).items():
            if step not in trial.intermediate_values:
                handle.report(value, step)
        for key, attribute in attributes(row, rows).items():
            handle.set_user_attr(key, attribute)
        self.optuna.tell(trial.number, objective_values(self.study, rows), state=outcome(rows))

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
    """COMPLETE if every seed is complete, FAIL if any failed, else PRUNED."""
    statuses = {row.status for row in rows}
    if statuses == {"complete"}:
        return TrialState.COMPLETE
    return TrialState.FAIL if "failed" in statuses else TrialState.PRUNED


def attributes(row: Candidate, rows: Sequence[Row]) -> dict[str, Any]:
    """What Optuna keeps beside the parameters."""
    return {
        "arch_id": row.architecture.arch_id,
        "name": row.name,
        "trials": [r.trial for r in rows],
        "states": [f"stopped@{r.epochs}" if r.status == "stopped" else r.status for r in rows],
        "reasons": [r.reason for r in rows if r.status == "failed"],
    }


def _says(trial: FrozenTrial, wanted: dict[str, Any]) -> bool:
    return all(trial.user_attrs.get(key) == value for key, value in wanted.items())


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
            if trial.state == TrialState.RUNNING and "arch_id" not in trial.user_attrs:
                self._ledger.optuna.tell(trial.number, state=TrialState.FAIL)
        domains = {p.name: p.domain for p in self._study.space.parameters}
        for trial in self._ledger.trials():
            values = {name: _decoded(domains[name], trial.params[name]) for name in domains if name in trial.params}
            row = candidate(self._study, values)
            if self._is_new(row):
                self._seen.add(row.architecture.arch_id)
                self._resumed.append(row)

    def propose(self) -> list[Candidate]:
        if self._resumed:
            proposed, self._resumed = self._resumed, []
            return proposed
        if len(self._seen) >= self._study.search.trials:
            return []
        for _ in range(PATIENCE if len(self._seen) >= self._study.search.startup else 0):
            trial, row = self._ask()
            if self._is_new(row):
                return [self._opened(trial, row)]
            trial.set_user_attr("refused", "infeasible" if row is None else "repeated")
            self._ledger.optuna.tell(trial, state=TrialState.PRUNED if row is None else TrialState.FAIL)
        return self._draw()

    def _is_new(self, row: Candidate | None) -> TypeGuard[Candidate]:
        return row is not None and row.architecture.arch_id not in self._seen

    def _draw(self) -> list[Candidate]:
        """The next network of the seeded random stream that was not proposed before; none if there seems to be none."""
        study = self._study
        for _ in range(MOST_DRAWN):
            values = draw(study.space, study.search.seed, self._drawn)
            self._drawn += 1
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

    def _opened(self, trial: optuna.trial.Trial, row: Candidate) -> Candidate:
        trial.set_user_attr("arch_id", row.architecture.arch_id)
        self._seen.add(row.architecture.arch_id)
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
        return _decoded(domain, trial.suggest_int(name, form.low, form.high, step=form.step))
    return _decoded(domain, trial.suggest_categorical(name, form.choices))  # type: ignore[attr-defined]


STRATEGIES: dict[str, type[Listed] | type[Tpe]] = {"rows": Listed, "grid": Listed, "random": Listed, "tpe": Tpe}


def make_strategy(
    study: Study, folder: Path, rows: Sequence[Row] = (), curve_of: CurveOf = lambda trial: ()
) -> Strategy:
    """The strategy that the study names, going on where an earlier run in ``folder`` stopped with ``rows``."""
    ledger = Ledger(study, folder)
    ledger.agree(rows, curve_of)
    return STRATEGIES[study.search.kind](study, ledger)
