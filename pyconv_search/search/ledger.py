"""The Optuna study in the run's folder that records what became of each configuration.

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
from collections.abc import Callable, Collection, Sequence
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
from pyconv_search.space.space import COSTS, Assignment
from pyconv_search.study.plan import Candidate, candidate
from pyconv_search.study.study import Study

STORAGE = "optuna.journal"
MEASURES = {"top1_error": "val_top1_error", "top5_error": "val_top5_error", "loss": "val_loss"}

CurveOf = Callable[[str], Sequence[Epoch]]


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
        return [t for t in self.optuna.get_trials(deepcopy=False) if config_of(t) is not None]

    def agree(self, rows: Sequence[Row], curve_of: CurveOf, departed: Collection[str] = ()) -> None:
        """Make this file say what the study's ``rows`` say: add what is missing; if anything differs, begin anew.

        So does what has left the study, the ``departed`` configurations.
        """
        networks = self._networks(rows)
        stored = {config_of(t): t for t in self.trials()}
        for config, trial in stored.items():
            own = networks.get(config or "")
            differs = config in departed if own is None else not _says(trial, attributes(*own))
            if trial.state.is_finished() and differs:
                optuna.delete_study(study_name=self.optuna.study_name, storage=self.optuna._storage)
                self.optuna, stored = _opened(self.study, self._path), {}
                break
        for config, (row, ended) in networks.items():
            if config not in stored or not stored[config].state.is_finished():
                self.record(row, ended, curve_of(ended[0].trial))

    def _networks(self, rows: Sequence[Row]) -> dict[str, tuple[Candidate, list[Row]]]:
        """The configurations of the rows that the study's space holds, each with its rows in the seeds' order."""
        grouped: dict[str, list[Row]] = {}
        for row in rows:
            if row.seed in self.study.seeds:
                grouped.setdefault(row.config, []).append(row)
        found = {}
        for config, ended in grouped.items():
            problems = Problems()
            values = self.study.space.complete(ended[0].parameters, (), problems)
            network = None if problems.found else candidate(self.study, values, ended[0].name)
            if network is not None and network.config == config:
                found[config] = (network, sorted(ended, key=lambda r: self.study.seeds.index(r.seed)))
        return found

    def record(self, row: Candidate, rows: Sequence[Row], curve: Sequence[Epoch]) -> None:
        """Record what became of a network; while seeds are missing, that it is under way. What is told stays told."""
        known = [t for t in self.trials() if config_of(t) == row.config]
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


def config_of(trial: FrozenTrial) -> str | None:
    """The configuration that a trial stands for; None of one that was refused."""
    found: str | None = trial.user_attrs.get("config", trial.user_attrs.get("arch_id"))
    return found


def identity(row: Candidate) -> dict[str, str]:
    """What a configuration is known by in Optuna's file: its architecture, and more where its recipe is its own."""
    own = {"config": row.config} if row.overrides else {}
    return {**own, "arch_id": row.architecture.arch_id}


def attributes(row: Candidate, rows: Sequence[Row]) -> dict[str, Any]:
    """What Optuna keeps beside the parameters."""
    return {
        **identity(row),
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


def decode(domain: Domain, value: Any) -> Any:
    """A value in the terms of :func:`distribution` as a value of the domain."""
    if isinstance(domain.values, range):
        return value
    return domain.values[value] if domain.ordered else json.loads(value)
