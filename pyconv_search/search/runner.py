"""Running a study with Ray Tune: Ray places trials on the machines, everything else is decided here.

Tune's own record of the experiment is not used to go on, because it lags behind and repeats trials: it is written to a
temporary folder and dropped. Each run starts a fresh Tune experiment over what the journal says is left.
"""

from __future__ import annotations

import json
import re
import signal
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any, cast

from ray import tune
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher
from rich.console import Console

from pyconv_search.errors import UserError
from pyconv_search.files import expanded
from pyconv_search.results import store
from pyconv_search.results.row import Row, epoch_from_dict, row_from_dict
from pyconv_search.results.spent import is_planned, spent
from pyconv_search.results.store import Journal
from pyconv_search.search import folder as folders
from pyconv_search.search import planning
from pyconv_search.search.actor import Steps, make_actor, make_group_actor
from pyconv_search.search.connection import connected, needs, room, whole_device
from pyconv_search.search.distributed import across_workers
from pyconv_search.search.joining import Cluster
from pyconv_search.search.ledger import MEASURES
from pyconv_search.search.measuring import sizes
from pyconv_search.search.outcome import blank_row, now
from pyconv_search.search.progress import Progress
from pyconv_search.search.retry import Retry
from pyconv_search.search.strategies import make_strategy
from pyconv_search.search.trial import Trial, forget
from pyconv_search.search.work import Work
from pyconv_search.study.plan import Candidate
from pyconv_search.study.study import Study

LOST_WORKER_RETRIES = 2


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended: how many trials were planned, have a row and are complete, and whether it was interrupted.

    ``shortfall`` says why an adaptive search found fewer networks than it was asked for; else it is empty.
    """

    folder: Path
    planned: int
    ended: int
    complete: int
    interrupted: bool
    shortfall: str = ""


def run(
    study: Study,
    folder: Path | str,
    address: Cluster | str | None = None,
    retry_failed: Retry | bool = False,
    console: Console | None = None,
    trial: type[Steps] = Trial,
) -> Outcome:
    """Run what is left of ``study`` in ``folder``; an earlier run there is continued.

    ``address`` joins a running Ray cluster instead of starting Ray on this machine; it must ask for a token, unless a
    :class:`Cluster` says ``insecure``. ``retry_failed`` runs the trials that failed once more, as they were or as a
    :class:`Retry` says; ``trial`` is what workers run.

    Raises:
        UserError: if the study, the data, the folder or the cluster cannot be used, or the disk is full. What is in the
            journal by then stays; the same command goes on.
    """
    folder, command = expanded(folder), folders.command_line()
    alone = isinstance(retry_failed, Retry) and retry_failed.alone
    if isinstance(retry_failed, Retry):
        retry_failed.check(study)
    study, values = folders.open_folder(study, folder, command)
    with Journal(folder) as journal, folders.noted_end(journal):
        folders.write_study(folder, values)
        found = store.read(folder)
        journal.append_event("start", command=command, time=now(), **folders.provenance(study))
        strategy = make_strategy(study, folder, found.rows, found.curve)
        work = Work(study, strategy, journal, found, retry_failed)
        bridge = Bridge(work)
        console = console or Console(stderr=True)
        if not work.more():
            console.print(
                f"nothing left to run: {len(work.ended)} of {values['planned']} trials have ended", highlight=False
            )
        else:
            with connected(address), _signals(bridge):
                if trial is Trial and not is_planned(found, values["planned"]) and planning.worth(study):
                    _plan(study, journal, bridge, console)
                with Progress(work, values["planned"], console):
                    if study.resources.together != 1:
                        bridge.most = sizes(study, work, console, lambda: bridge.ending)
                    while work.more() and not bridge.ending:  # Groups that were lost are queued again at the end.
                        _tune(study, bridge, _scheduler(study, work), trial, alone)
        if bridge.abort:
            raise UserError(bridge.abort)
        strategy.settle(list(work.rows.values()), work.curve)
        _note_spent(journal)
        journal.append_event("interrupted" if bridge.interrupted else "finished", time=now())
        store.write_tables(folder)
    complete = sum(row.status == "complete" for row in work.ended)
    return Outcome(folder, values["planned"], len(work.ended), complete, bridge.interrupted, strategy.shortfall)


def _plan(study: Study, journal: Journal, bridge: Bridge, console: Console) -> None:
    """Note what the run will take; where that cannot be found out it goes on without."""
    fits = room(study)
    try:
        values = planning.planned(study, fits, lambda: bridge.ending)
    except UserError as error:
        console.print(f"not estimated: {error}", highlight=False, markup=False, soft_wrap=True)
        return
    if values is not None:
        journal.append_event("planned", time=now(), **values)


def _note_spent(journal: Journal) -> None:
    found = spent(store.read(journal.folder))
    journal.append_event(
        "spent", time=now(), training_device_seconds=found.training, device_seconds=found.everything, unit=found.unit
    )


class Bridge(Searcher):
    """Hands trials from :class:`Work` to Tune and results back; also what tells Tune to stop.

    What Tune calls a trial is a group of so many of ours as ``most`` says of their network, where it is set. A trial
    whose worker died LOST_WORKER_RETRIES + 1 times becomes a failed row, and those of a group are tried one by one. One
    that is under way when the run is interrupted gets no row, and continues from its checkpoint in the next run.
    """

    def __init__(self, work: Work) -> None:
        super().__init__()
        self.work = work
        self.most: Callable[[Candidate], int] | None = None
        self.interrupted = False
        self.abort = ""
        self._specs: dict[str, list[dict[str, Any]]] = {}

    @property
    def ending(self) -> bool:
        """Whether no further trial may start and those under way are to end."""
        return self.interrupted or bool(self.abort)

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        specs: list[dict[str, Any]] = []
        with self._orderly():
            specs = [] if self.ending else self.work.next_group(self.most or (lambda network: 1))
        if not specs:
            return Searcher.FINISHED  # type: ignore[return-value]  # a word of Tune's that its own annotation forgets
        self._specs[trial_id] = specs
        return {"spec": json.dumps(specs if self.most else specs[0])}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        with self._orderly():
            self._note(trial_id, result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        with self._orderly():
            if result and not error and (result["done"] or not self.ending):
                self._note(trial_id, result)
                for row in _rows(result):
                    self._end(trial_id, row)

    @contextmanager
    def _orderly(self) -> Iterator[None]:
        """A full disk, or what a worker could not do, ends the run in order instead of unwinding through Tune."""
        try:
            yield
        except UserError as error:
            self.abort = self.abort or str(error)
        except OSError as error:
            self.abort = self.abort or f"{error.filename or self.work.folder}: {error.strerror or error}"

    def _note(self, trial_id: str, result: dict[str, Any]) -> None:
        if "abort" in result:
            raise UserError(result["abort"])
        for values in json.loads(result["epochs"]):
            self.work.epoch(epoch_from_dict(values))
        for row in _rows(result):
            if row.status != "stopped":  # Which is what would be, if the scheduler ended it now.
                self._end(trial_id, row)

    def _end(self, trial_id: str, row: Row) -> None:
        self.work.end(row)
        if row.status != "failed":
            forget(next(spec for spec in self._specs[trial_id] if spec["trial"] == row.trial))

    def lost(self, trial_id: str, report: str) -> None:
        """Ray has given a trial up, for what its ``report`` says: the worker died again and again, or cannot start."""
        with self._orderly():
            if "creation task" in report:
                raise UserError(f"no worker can start: {_gist(report)}; has every machine the same version installed?")
            specs = self._specs[trial_id]
            if len(specs) > 1:
                self.work.put_back(specs)
            elif not self.ending:
                times = f"the worker process died {LOST_WORKER_RETRIES + 1} times"
                self.work.end(blank_row(specs[0], "failed", "lost", f"{times}: {_gist(report)}"))

    def save(self, checkpoint_path: str) -> None:
        return None

    def restore(self, checkpoint_path: str) -> None:
        return None

    def __reduce__(self) -> tuple[type, tuple[()]]:
        # Tune pickles its searcher for its own way to restore, which is not used here.
        return Searcher, ()


def _whole(config: dict[str, Any]) -> bool:
    """Whether what a worker is given, a trial or a list of them, is to have a whole device."""
    found = json.loads(config["spec"])
    return any(spec.get("alone") for spec in (found if isinstance(found, list) else [found]))


def _rows(result: dict[str, Any]) -> list[Row]:
    return [row_from_dict(values) for values in json.loads(result["rows"])]


def _gist(report: str) -> str:
    """The line of one of Ray's long reports that says what happened."""
    lines = [line.strip() for line in report.splitlines() if line.strip()]
    told = [line for line in lines if re.match(r"[A-Za-z_.]*(Error|Exception)\b.*:", line)]
    return (told or ["killed, out of memory, or its machine lost"])[-1]


class _Losses(tune.Callback):
    """Tells the bridge which trials Ray has given up, and why."""

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        try:
            report = Path(trial.error_file).read_text()
        except OSError:
            report = ""
        self._bridge.lost(trial.trial_id, report)

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return tune.Callback, ()


class _Ending(tune.Stopper):
    """Ends Tune's loop when the bridge says so."""

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._bridge.ending

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return object, ()


def _tune(study: Study, bridge: Bridge, scheduler: TrialScheduler, trial: type[Steps], alone: bool) -> None:
    several = study.resources.workers > 1
    if study.resources.together != 1:
        actor = make_group_actor(cast(type[Trial], trial))
    else:
        actor = make_actor(across_workers(trial) if several else trial)
    usual, whole = needs(study.resources), needs(whole_device(study.resources))
    with tempfile.TemporaryDirectory(prefix="pyconv-search-") as scratch:
        tune.Tuner(
            tune.with_resources(actor, lambda config: whole if _whole(config) else usual),
            tune_config=tune.TuneConfig(
                search_alg=bridge,
                scheduler=scheduler,
                num_samples=-1,
                # Without this Tune starts its workers one after the other for a searcher of one's own.
                max_concurrent_trials=room(study),
                # Those that wait for a next trial of their kind would keep what workers and whole devices need.
                reuse_actors=not (several or alone),
                trial_dirname_creator=lambda t: t.trial_id,
            ),
            run_config=tune.RunConfig(
                name="run",
                storage_path=scratch,
                stop=_Ending(bridge),
                callbacks=[_Losses(bridge)],
                failure_config=tune.FailureConfig(max_failures=LOST_WORKER_RETRIES),
                verbose=0,
            ),
        ).fit()


class _Asha(AsyncHyperBandScheduler):
    """ASHA (Li et al. 2020) that knows what earlier runs measured, so that it judges as if there had been one run.

    ``curves`` holds, for each trial that has a past, its measure by epoch.
    """

    def __init__(self, curves: dict[str, dict[int, float]], **options: Any) -> None:
        super().__init__(**options)
        self._curves = curves

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        super().on_trial_add(tune_controller, trial)
        self._show(trial, self._curves.pop(json.loads(trial.config["spec"])["trial"], {}))

    def show_ended(self, trials: Iterable[str]) -> None:
        """Show the curves of trials that will not run again."""
        for trial in trials:
            past: Any = SimpleNamespace(trial_id=f"past-{trial}")
            super().on_trial_add(cast(Any, None), past)  # ASHA does not look at the controller
            self._show(past, self._curves.pop(trial, {}))

    def _show(self, trial: Any, curve: dict[int, float]) -> None:
        for epoch, value in sorted(curve.items()):
            self.on_trial_result(cast(Any, None), trial, {"epoch": epoch, cast(str, self._metric): value})


def _scheduler(study: Study, work: Work) -> TrialScheduler:
    """The study's scheduler."""
    if study.scheduler.kind == "none":
        return FIFOScheduler()
    asha = _Asha(
        work.measured(MEASURES[study.measure]),
        time_attr="epoch",
        metric=study.measure,
        mode=study.objectives[study.measure],
        max_t=study.recipe.epochs,
        grace_period=study.scheduler.grace,
        reduction_factor=study.scheduler.factor,
        stop_last_trials=False,
    )
    asha.show_ended(list(work.rows))
    return asha


@contextmanager
def _signals(bridge: Bridge) -> Iterator[None]:
    """Ctrl-C and SIGTERM end the run in order; a second one ends it at once, which loses nothing but time."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        if bridge.interrupted:
            raise KeyboardInterrupt
        bridge.interrupted = True

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
