"""Running a study with Ray Tune: Ray places trials on the machines, everything else is decided here.

Tune's own record of the experiment is not used to go on, because it lags behind and repeats trials: it is written to a
temporary folder and dropped. Each run starts a fresh Tune experiment over what the journal says is left.
"""

from __future__ import annotations

import json
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

from ray import tune
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher
from rich.console import Console

from pyconv_search.errors import UserError
from pyconv_search.results import store
from pyconv_search.results.row import epoch_from_dict, row_from_dict
from pyconv_search.results.store import Journal, Store
from pyconv_search.search import folder as folders
from pyconv_search.search.actor import Steps, make_actor
from pyconv_search.search.connection import connected, room
from pyconv_search.search.outcome import blank_row, now
from pyconv_search.search.progress import Progress
from pyconv_search.search.strategies import MEASURES, make_strategy
from pyconv_search.search.trial import Trial, forget
from pyconv_search.search.work import Work
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
    folder: Path,
    address: str | None = None,
    retry_failed: bool = False,
    console: Console | None = None,
    trial: type[Steps] = Trial,
) -> Outcome:
    """Run what is left of ``study`` in ``folder``; an earlier run there is continued.

    ``address`` joins a running Ray cluster instead of starting Ray on this machine; ``trial`` is what workers run.

    Raises:
        UserError: if the study, the data, the folder or the cluster cannot be used, or the disk is full. What is in the
            journal by then stays; the same command goes on.
    """
    command = folders.command_line()
    study, values = folders.open_folder(study, folder, command)
    with Journal(folder) as journal:
        folders.write_study(folder, values)
        found = store.read(folder)
        journal.append_event("start", command=command, time=now(), **folders.provenance(study))
        strategy = make_strategy(study, folder, found.rows)
        work = Work(study, strategy, journal, found, retry_failed)
        bridge = Bridge(work)
        if work.more():
            with (
                connected(address),
                _signals(bridge),
                Progress(work, values["planned"], console or Console(stderr=True)),
            ):
                _tune(study, bridge, _scheduler(study, found), trial)
        if bridge.abort:
            raise UserError(bridge.abort)
        journal.append_event("interrupted" if bridge.interrupted else "finished", time=now())
        store.write_tables(folder)
    complete = sum(row.status == "complete" for row in work.rows.values())
    return Outcome(folder, values["planned"], len(work.rows), complete, bridge.interrupted, strategy.shortfall)


class Bridge(Searcher):
    """Hands trials from :class:`Work` to Tune and results back; also what tells Tune to stop.

    A trial whose worker died LOST_WORKER_RETRIES + 1 times becomes a failed row; one that is under way when the run is
    interrupted gets no row, and continues from its checkpoint in the next run.
    """

    def __init__(self, work: Work) -> None:
        super().__init__()
        self.work = work
        self.interrupted = False
        self.abort = ""
        self._specs: dict[str, dict[str, Any]] = {}

    @property
    def ending(self) -> bool:
        """Whether no further trial may start and those under way are to end."""
        return self.interrupted or bool(self.abort)

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        spec = None
        with self._orderly():
            spec = None if self.ending else self.work.next()
        if spec is None:
            return Searcher.FINISHED  # type: ignore[return-value]  # a word of Tune's that its own annotation forgets
        self._specs[trial_id] = spec
        return {"spec": json.dumps(spec)}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        with self._orderly():
            self._note(result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        spec = self._specs.pop(trial_id)
        with self._orderly():
            if error:
                self._lost(spec)
            elif result and (result["done"] or not self.ending):
                self._note(result)
                self._end(spec, result)

    @contextmanager
    def _orderly(self) -> Iterator[None]:
        """A full disk, or what a worker could not do, ends the run in order instead of unwinding through Tune."""
        try:
            yield
        except UserError as error:
            self.abort = self.abort or str(error)
        except OSError as error:
            self.abort = self.abort or f"{error.filename or self.work.folder}: {error.strerror or error}"

    def _note(self, result: dict[str, Any]) -> None:
        if "abort" in result:
            raise UserError(result["abort"])
        for values in json.loads(result["epochs"]):
            self.work.epoch(epoch_from_dict(values))

    def _end(self, spec: dict[str, Any], result: dict[str, Any]) -> None:
        row = row_from_dict(json.loads(result["row"]))
        self.work.end(row)
        if row.status != "failed":
            forget(spec)

    def _lost(self, spec: dict[str, Any]) -> None:
        if not self.ending:
            detail = (
                f"the worker process died {LOST_WORKER_RETRIES + 1} times (killed, out of memory, or its machine lost)"
            )
            self.work.end(blank_row(spec, "failed", "lost", detail))

    def save(self, checkpoint_path: str) -> None:
        return None

    def restore(self, checkpoint_path: str) -> None:
        return None

    def __reduce__(self) -> tuple[type, tuple[()]]:
        # Tune pickles its searcher for its own way to restore, which is not used here.
        return Searcher, ()


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


def _tune(study: Study, bridge: Bridge, scheduler: TrialScheduler, trial: type[Steps]) -> None:
    resources = {"cpu": study.resources.cpu, "gpu": study.resources.gpu}
    with tempfile.TemporaryDirectory(prefix="pyconv-search-") as scratch:
        tune.Tuner(
            tune.with_resources(make_actor(trial), resources),
            tune_config=tune.TuneConfig(
                search_alg=bridge,
                scheduler=scheduler,
                num_samples=-1,
                # Without this Tune starts its workers one after the other for a searcher of one's own.
                max_concurrent_trials=room(study),
                reuse_actors=True,
                trial_dirname_creator=lambda t: t.trial_id,
            ),
            run_config=tune.RunConfig(
                name="run",
                storage_path=scratch,
                stop=_Ending(bridge),
                failure_config=tune.FailureConfig(max_failures=LOST_WORKER_RETRIES),
                verbose=0,
            ),
        ).fit()


def _scheduler(study: Study, found: Store) -> TrialScheduler:
    """The study's scheduler; ASHA is shown the curves of the trials that ended in earlier runs, to judge alike."""
    if study.scheduler.kind == "none":
        return FIFOScheduler()
    controller: Any = None  # ASHA does not look at it
    asha = AsyncHyperBandScheduler(
        time_attr="epoch",
        metric=study.measure,
        mode=study.objectives[study.measure],
        max_t=study.recipe.epochs,
        grace_period=study.scheduler.grace,
        reduction_factor=study.scheduler.factor,
        stop_last_trials=False,
    )
    for row in found.rows:
        past: Any = SimpleNamespace(trial_id=f"past-{row.trial}")
        asha.on_trial_add(controller, past)
        for epoch in found.epochs:
            if epoch.trial == row.trial:
                values = {"epoch": epoch.epoch, study.measure: getattr(epoch, MEASURES[study.measure])}
                asha.on_trial_result(controller, past, values)
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
