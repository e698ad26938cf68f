"""The Optuna study in the run's folder that records what became of each configuration.

The journal of the run is the truth; ``optuna.journal`` beside it holds the same search in Optuna's own format, with
honest states: COMPLETE with the means over seeds if every seed is complete, FAIL with the reasons if one failed, PRUNED
with its learning curve if the scheduler stopped one. TPE learns from it. It holds the networks that were accepted, not
what was asked for and refused. Where it no longer agrees with the journal, after a retry or with more seeds, it is made
anew.
"""

from __future__ import annotations

import hashlib
import json
import statistics
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from pyconv_search.fields import Problems
from pyconv_search.results.files import last_whole_line
from pyconv_search.results.row import Epoch, Row
from pyconv_search.results.standing import MEASURES
from pyconv_search.space.domains import Domain
from pyconv_search.space.space import COSTS, Assignment
from pyconv_search.study.plan import Candidate, candidate
from pyconv_search.study.study import Study

STORAGE = "optuna.journal"

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
    """The Optuna study in a run's folder: the networks that were accepted, and what became of each.

    Only one process at a time may hold a folder's journal and with it this file. So it needs no lock of its own, and
    half a line that a killed process left behind is safe to remove. A file that is damaged beyond that is set aside,
    and made again from the journal with :meth:`agree`.
    """

    def __init__(self, study: Study, folder: Path) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        path = folder / STORAGE
        self.study, self._path = study, path
        self._forms = {p.name: distribution(p.domain) for p in study.space.parameters}
        try:
            _cut_torn_line(path)
            self._open()
        except (OSError, MemoryError):
            raise
        except Exception:  # Optuna has no word of its own for a damaged file.
            path.replace(path.with_name(path.name + ".corrupt"))
            self._open()

    def _open(self) -> None:
        self.optuna = _opened(self.study, self._path)
        every = self.optuna.get_trials(deepcopy=False)
        self._count = len(every)
        self._numbers = {config: t.number for t in every if (config := config_of(t)) is not None}

    def trials(self) -> list[FrozenTrial]:
        """The trials of networks that were accepted, whatever their state."""
        return [t for t in self.optuna.get_trials(deepcopy=False) if config_of(t) is not None]

    def agree(
        self,
        rows: Sequence[Row],
        curve_of: CurveOf,
        departed: Collection[str] = (),
        known: Sequence[Candidate] = (),
    ) -> None:
        """Make this file say what the study's ``rows`` say: add what is missing; if anything differs, begin anew.

        So does what has left the study, the ``departed`` configurations. ``known``: networks of the study that need not
        be worked out again.
        """
        grouped, stored = self._grouped(rows), {config_of(t): t for t in self.trials() if t.state.is_finished()}
        ready = {network.config: network for network in known}
        differing = {
            config: ended
            for config, ended in grouped.items()
            if config not in stored or not _says(stored[config], ended, ready.get(config))
        }
        networks = self._networks(differing, ready)
        if any(config in stored for config in networks) or any(c in departed for c in stored if c not in grouped):
            optuna.delete_study(study_name=self.optuna.study_name, storage=self.optuna._storage)
            self._open()
            networks = self._networks(grouped, ready)
        for config, network in networks.items():
            self.record(network, grouped[config], curve_of(grouped[config][0].trial))

    def _grouped(self, rows: Sequence[Row]) -> dict[str, list[Row]]:
        """The rows by configuration, in the seeds' order."""
        grouped: dict[str, list[Row]] = {}
        order = {seed: i for i, seed in enumerate(self.study.seeds)}
        for row in rows:
            if row.seed in order:
                grouped.setdefault(row.config, []).append(row)
        return {config: sorted(ended, key=lambda r: order[r.seed]) for config, ended in grouped.items()}

    def _networks(self, grouped: Mapping[str, list[Row]], ready: Mapping[str, Candidate]) -> dict[str, Candidate]:
        """The configurations of the rows that the study's space holds."""
        found = {}
        for config, ended in grouped.items():
            network = ready.get(config) or self._network(ended[0])
            if network is not None and network.config == config:
                found[config] = network
        return found

    def _network(self, row: Row) -> Candidate | None:
        problems = Problems()
        values = self.study.space.complete(row.parameters, (), problems)
        return None if problems.found else candidate(self.study, values, row.name)

    def record(self, row: Candidate, rows: Sequence[Row], curve: Sequence[Epoch]) -> None:
        """Record what became of a network; while seeds are missing, that it is under way. What has ended stays so."""
        whole = len(rows) == len(self.study.seeds)
        number = self._numbers.get(row.config)
        if number is None:
            self.add(row, rows, curve, outcome(rows) if whole else TrialState.RUNNING)
        elif whole:
            self._tell(number, row, rows, curve)

    def add(
        self,
        row: Candidate,
        rows: Sequence[Row] = (),
        curve: Sequence[Epoch] = (),
        state: TrialState = TrialState.RUNNING,
    ) -> FrozenTrial:
        """A network that is not in this file yet, as one line of it."""
        trial = optuna.trial.create_trial(
            state=state,
            params=encode(self.study, row.values),
            distributions={name: self._forms[name] for name in row.values},
            values=objective_values(self.study, rows) if state == TrialState.COMPLETE else None,
            user_attrs=attributes(row.config, row.architecture.arch_id, row.name, rows),
            intermediate_values=self.steps(curve),
        )
        self.optuna.add_trial(trial)
        self._numbers[row.config] = self._count
        self._count += 1
        return trial

    def _tell(self, number: int, row: Candidate, rows: Sequence[Row], curve: Sequence[Epoch]) -> None:
        handle = _handle(self.optuna, number)
        known = handle.storage.get_trial(handle._trial_id)
        if known.state.is_finished():
            return
        for key, attribute in attributes(row.config, row.architecture.arch_id, row.name, rows).items():
            if known.user_attrs.get(key) != attribute:
                handle.set_user_attr(key, attribute)
        tell(self.optuna, number, self.study, rows, self.steps(curve))

    def steps(self, curve: Sequence[Epoch]) -> dict[int, float]:
        """The first measured objective by epoch, where Optuna can hold it: it has no curves for several objectives."""
        if len(self.study.objectives) > 1:
            return {}
        return {point.epoch: getattr(point, MEASURES[self.study.measure]) for point in curve}


def tell(to: optuna.Study, number: int, study: Study, rows: Sequence[Row], steps: Mapping[int, float]) -> None:
    """Tell an Optuna study what became of its trial ``number``, which is under way."""
    handle = _handle(to, number)
    known = handle.storage.get_trial(handle._trial_id).intermediate_values
    for step, value in steps.items():
        if step not in known:
            handle.report(value, step)
    to.tell(number, objective_values(study, rows), state=outcome(rows))


def _handle(of: optuna.Study, number: int) -> optuna.trial.Trial:
    return optuna.trial.Trial(of, of._storage.get_trial_id_from_study_id_trial_number(of._study_id, number))


class _NoLock(JournalFileOpenLock):
    """Locks nothing: the holder of the run's own lock alone writes the file, and Optuna's lock needs symbolic links."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        return None


def directions(study: Study) -> list[StudyDirection]:
    """Optuna's words for which way is better, in the order of the objectives."""
    return [StudyDirection.MINIMIZE if to == "min" else StudyDirection.MAXIMIZE for to in study.objectives.values()]


def _opened(study: Study, path: Path) -> optuna.Study:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        storage = optuna.storages.JournalStorage(JournalFileBackend(str(path), lock_obj=_NoLock(str(path))))
        found = optuna.create_study(
            storage=storage, study_name=search_name(study), directions=directions(study), load_if_exists=True
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


def _says(trial: FrozenTrial, rows: Sequence[Row], network: Candidate | None) -> bool:
    """Whether a trial says what the rows of its configuration say; ``network``: what the study calls it."""
    name = network.name if network else rows[0].name
    wanted = attributes(rows[0].config, rows[0].arch_id, name, rows)
    return all(trial.user_attrs.get(key) == value for key, value in wanted.items())


def attributes(config: str, arch_id: str, name: str, rows: Sequence[Row]) -> dict[str, Any]:
    """What Optuna keeps beside the parameters.

    A configuration is known by its architecture, and by ``config`` too where its recipe is its own.
    """
    return {
        **({"config": config} if config != arch_id else {}),
        "arch_id": arch_id,
        "name": name,
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
