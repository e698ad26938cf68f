"""Running a study with Ray Tune: Ray places trials on the machines, everything else is decided here.

Tune's own record of the experiment is not used to go on, because it lags behind and repeats trials: it is written to a
temporary folder and dropped. Each run starts a fresh Tune experiment over what the journal says is left.
"""

from __future__ import annotations

import json
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from ray import tune
from ray._private import auto_init_hook
from ray.exceptions import RayError
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher
from rich.console import Console

from pyconv_search.errors import UserError
from pyconv_search.files import expanded
from pyconv_search.results import store
from pyconv_search.results.row import Row, epoch_from_dict, row_from_dict
from pyconv_search.results.spent import is_planned, spent
from pyconv_search.results.store import Journal
from pyconv_search.search import folder as folders
from pyconv_search.search import interrupts, losses, noise, planning
from pyconv_search.search.actor import Steps, make_actor, make_group_actor
from pyconv_search.search.connection import connected, needs, room, whole_device
from pyconv_search.search.distributed import across_workers
from pyconv_search.search.interrupts import Interrupts
from pyconv_search.search.joining import Cluster
from pyconv_search.search.measuring import sizes
from pyconv_search.search.outcome import blank_row, now
from pyconv_search.search.patching import patched
from pyconv_search.search.places import Places
from pyconv_search.search.progress import Progress
from pyconv_search.search.retry import Retry
from pyconv_search.search.schedulers import scheduler_of
from pyconv_search.search.sessions import Guard
from pyconv_search.search.strategies import Strategy, make_strategy
from pyconv_search.search.supervision import Supervisor
from pyconv_search.search.trial import Trial, forget
from pyconv_search.search.waiting import console as standard_error
from pyconv_search.search.waiting import say, waiting
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
    console = console or standard_error()
    if isinstance(retry_failed, Retry):
        retry_failed.check(study)
    with interrupts.heard() as heard:
        with waiting("reading the data", console):
            study, values = folders.open_folder(study, folder, command)
        with heard.orderly(), Journal(folder) as journal, folders.noted_end(journal):
            with waiting("reading what has been run", console):
                values, found, proposed = folders.begin(study, values, journal, now())
                if isinstance(retry_failed, Retry):
                    retry_failed.check_rows(study, found.current().rows)
                strategy = make_strategy(study, folder, found.current().rows, found.curve, proposed, found.departed)
                work = Work(study, strategy, journal, found, retry_failed)
                left = work.more()
            bridge = Bridge(work, heard, max((epoch.seconds for epoch in found.epochs), default=0.0))
            if not left:
                say(console, f"nothing left to run: {len(work.ended)} of {values['planned']} trials have ended")
            elif not bridge.ending:
                cluster = Cluster(address) if isinstance(address, str) else address
                order = _Order(study, values["planned"], cluster, trial, retry_failed)
                measure = trial is Trial and not is_planned(found, values["planned"]) and planning.worth(study)
                try:
                    _with_ray(order, bridge, console, journal if measure else None)
                except UserError as error:
                    bridge.abort = bridge.abort or str(error)
            with waiting("writing the tables", console):
                _close(bridge, strategy, journal)
            if bridge.abort:
                raise UserError(bridge.abort)
        complete = sum(row.status == "complete" for row in work.ended)
        return Outcome(folder, values["planned"], len(work.ended), complete, bool(heard.received), strategy.shortfall)


def _close(bridge: Bridge, strategy: Strategy, journal: Journal) -> None:
    """Bring everything beside the journal up to it, and note how the run ended."""
    # What ended the run, such as a full disk, may be in the way of this, too: it is what is reported.
    with suppress(UserError, OSError) if bridge.abort else nullcontext():
        strategy.settle(bridge.work.ended, bridge.work.curve)
        held = store.read(journal.folder)
        journal.append_event("spent", time=now(), **spent(held).to_event())
        store.write_tables(journal.folder, held)
        if not bridge.abort:
            journal.append_event("interrupted" if bridge.ending else "finished", time=now())


@dataclass(frozen=True, slots=True)
class _Order:
    """What is to be run, and where; as :func:`run` has it."""

    study: Study
    planned: int
    cluster: Cluster | None
    trial: type[Steps]
    retry: Retry | bool

    @property
    def alone(self) -> bool:
        return isinstance(self.retry, Retry) and self.retry.alone


def _with_ray(order: _Order, bridge: Bridge, console: Console, planned: Journal | None) -> None:
    """Run what is left, under supervision; first note in the journal ``planned`` what it will take, if there is one.

    Raises:
        UserError: if Ray cannot be used, or the study has no room on the machines.
    """
    folder, guard = bridge.work.folder, Guard() if order.cluster is None else None
    with (
        noise.of_driver(folder) as drain,
        # A call that comes after the end of Ray must not start another one.
        patched(auto_init_hook, "enable_auto_connect", False),
        tempfile.TemporaryDirectory(prefix="pyconv-search-", ignore_cleanup_errors=True) as scratch,
        Progress(bridge.work, order.planned, console) as progress,
    ):
        supervisor = Supervisor(bridge, bridge.heard, console, guard, drain)
        bridge.say = supervisor.say

        def job() -> None:
            with _connection(order.cluster, guard, supervisor, console):
                if planned is not None:
                    with waiting("measuring how long the study takes", console):
                        _plan(order.study, planned, bridge, console)
                progress.begin()
                supervisor.tick = progress.tick
                _run_all(order, bridge, scratch, console)

        try:
            supervisor.run(job)
        except RayError as error:
            raise UserError(f"Ray failed: {losses.gist(str(error))}; the same command goes on") from None
        finally:
            bridge.places.close()
            if guard is not None:
                guard.close()


@contextmanager
def _connection(
    cluster: Cluster | None, guard: Guard | None, supervisor: Supervisor, console: Console
) -> Iterator[None]:
    """Ray as :func:`connected` has it, watched over; it is reported what takes its time."""
    stack = ExitStack()
    with waiting(f"joining the cluster at {cluster.address}" if cluster else "starting Ray", console):
        stack.enter_context(connected(cluster, guard))
    supervisor.cluster.begin(joined=cluster is not None)
    try:
        yield
    finally:
        supervisor.leave()
        with waiting("ending Ray", console):
            stack.close()


def _run_all(order: _Order, bridge: Bridge, scratch: str, console: Console) -> None:
    study, work = order.study, bridge.work
    if study.resources.together != 1:
        with waiting("measuring whether seeds train faster together", console):
            bridge.most = sizes(study, work, console, lambda: bridge.ending)
    while work.more() and not bridge.ending:  # Groups that were lost are queued again at the end.
        _tune(order, bridge, scheduler_of(study, work), scratch)


def _plan(study: Study, journal: Journal, bridge: Bridge, console: Console) -> None:
    """Note what the run will take; where that cannot be found out it goes on without."""
    fits = room(study)
    try:
        values = planning.planned(study, fits, lambda: bridge.ending)
    except UserError as error:
        say(console, f"not estimated: {error}")
        return
    if values is not None:
        with bridge.orderly():
            journal.append_event("planned", time=now(), **values)


class Bridge(Searcher):
    """Hands trials from :class:`Work` to Tune and results back; also what tells Tune to stop.

    What Tune calls a trial is a group of so many of ours as ``most`` says of their network, where it is set. A trial
    whose worker died LOST_WORKER_RETRIES + 1 times becomes a failed row, and those of a group are tried one by one. One
    that is under way when the run is interrupted gets no row, and continues from its checkpoint in the next run.
    """

    def __init__(self, work: Work, heard: Interrupts, longest: float = 0.0) -> None:
        super().__init__()
        self.work, self.heard = work, heard
        self.most: Callable[[Candidate], int] | None = None
        self.abort = ""
        self.places = Places(work.folder, work.study.stall, longest)
        self._specs: dict[str, list[dict[str, Any]]] = {}
        self._errors: dict[str, BaseException | None] = {}
        # By our own trials: one that Tune gave up early goes on as another one of Tune's.
        self._losses: Counter[tuple[str, ...]] = Counter()
        self._deaths: set[tuple[str, Any]] = set()
        self._stalls: Counter[str] = Counter()
        self.say: Callable[[str], None] = lambda line: None
        self._lock, self._closed, self._begun = threading.RLock(), False, False
        self._killed_by_kernel = losses.kernel_kills()

    @property
    def ending(self) -> bool:
        """Whether no further trial may start and those under way are to end."""
        return bool(self.heard.received or self.abort)

    def close(self) -> None:
        """Take nothing more from a Tune that was left behind."""
        with self._lock:
            self._closed = True

    def stage(self) -> str:
        """What the run waits for; empty while trials make progress."""
        if not self.work.running:
            return ""
        if not len(self.places):
            return "waiting for workers: they start and import PyTorch, or have no free place yet"
        return "" if self._begun or self.places.begun else "waiting for the first epoch: the workers read the data"

    def name_of(self, key: str) -> str:
        """What Tune calls ``key``, for people."""
        return " and ".join(f"{spec['name']} (seed {spec['seed']})" for spec in self._specs.get(key, []))

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        specs: list[dict[str, Any]] = []
        with self.orderly():
            specs = [] if self.ending else self.work.next_group(self.most or (lambda network: 1))
        if not specs:
            return Searcher.FINISHED  # type: ignore[return-value]  # a word of Tune's that its own annotation forgets
        self._specs[trial_id] = specs
        return {"spec": json.dumps(specs if self.most else specs[0])}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        with self.orderly():
            self._note(trial_id, result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        with self.orderly():
            if result and not error and (result["done"] or not self.ending):
                self._note(trial_id, result)
                for row in _rows(result):
                    self._end(trial_id, row)

    @contextmanager
    def orderly(self) -> Iterator[None]:
        """A full disk, or what a worker could not do, ends the run in order instead of unwinding through Tune.

        A Tune that was left behind is ended here.
        """
        with self._lock:
            if self._closed:
                raise RuntimeError("the run has ended without this thread")
            try:
                yield
            except UserError as error:
                self.abort = self.abort or str(error)
            except OSError as error:
                self.abort = self.abort or f"{error.filename or self.work.folder}: {error.strerror or error}"

    def _note(self, trial_id: str, result: dict[str, Any]) -> None:
        if "abort" in result:
            raise UserError(result["abort"])
        epochs = [epoch_from_dict(values) for values in json.loads(result["epochs"])]
        self._begun = True
        self.places.progress(trial_id, max((epoch.seconds for epoch in epochs), default=0.0))
        for epoch in epochs:
            self.work.epoch(epoch)
        for row in _rows(result):
            if row.status != "stopped":  # Which is what would be, if the scheduler ended it now.
                self._end(trial_id, row)

    def _end(self, trial_id: str, row: Row) -> None:
        self.work.end(row)
        if row.status != "failed":
            forget(next(spec for spec in self._specs[trial_id] if spec["trial"] == row.trial))

    def started(self, trial_id: str, worker: Any) -> None:
        """A worker has the trial."""
        self.places.put(trial_id, worker, self._specs[trial_id][0]["trial"])

    def stopped(self, trial_id: str) -> None:
        """The worker does not have it any more."""
        self.places.leave(trial_id)

    def noted(self, trial_id: str, error: BaseException | None) -> None:
        """The trial is lost, for the time being, by ``error``.

        A worker that dies between two trials is reported twice by Tune.
        """
        self.places.leave(trial_id)
        self._errors[trial_id] = error
        worker = getattr(error, "_actor_id", None)
        if worker is not None and (trial_id, worker) in self._deaths:
            return
        self._deaths.add((trial_id, worker))
        self._losses[self._trials(trial_id)] += 1
        stalls, self._stalls[trial_id] = self._stalls[trial_id], len(self.places.stalls(trial_id))
        if self.ending or losses.cannot_start(error) or self._exhausted(trial_id):
            return
        if stalls == self._stalls[trial_id]:  # Else it was reported when the worker was ended.
            _, why = losses.reason_of_loss(error, 1, killed_by_kernel=False)
            self.say(f"{self.name_of(trial_id)}: {why.splitlines()[0]}; the trial is tried again from its checkpoint")

    def lost(self, trial_id: str) -> None:
        """Tune has given a trial up: the worker died again and again, or between two trials, or cannot start."""
        error, specs = self._errors.get(trial_id), self._specs[trial_id]
        with self.orderly():
            if losses.cannot_start(error):
                raise UserError(
                    f"no worker can start: {losses.gist(str(error))}; has every machine the same version installed?"
                )
            if len(specs) > 1 or not self._exhausted(trial_id):
                self.work.put_back(specs)
            elif not self.ending:
                self.work.end(blank_row(specs[0], "failed", *self._reason(trial_id, error)))

    def _trials(self, trial_id: str) -> tuple[str, ...]:
        return tuple(spec["trial"] for spec in self._specs[trial_id])

    def _exhausted(self, trial_id: str) -> bool:
        """Whether the trial has been lost once more than it is tried again."""
        return self._losses[self._trials(trial_id)] > LOST_WORKER_RETRIES

    def _reason(self, trial_id: str, error: BaseException | None) -> tuple[str, str]:
        if stalls := self.places.stalls(trial_id):
            often = f", {len(stalls)} times" if len(stalls) > 1 else ""
            return "lost", f"no progress for {max(stalls) / 60:.3g} minutes{often}; the worker was ended"
        before, self._killed_by_kernel = self._killed_by_kernel, losses.kernel_kills()
        killed = None not in (before, self._killed_by_kernel) and before != self._killed_by_kernel
        return losses.reason_of_loss(error, self._losses[self._trials(trial_id)], killed)

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


class _Events(tune.Callback):
    """Tells the bridge which worker has which trial, and which trials Ray has given up."""

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._bridge.started(trial.trial_id, trial.temporary_state.ray_actor)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._bridge.stopped(trial.trial_id)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._bridge.lost(trial.trial_id)

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


def _tune(order: _Order, bridge: Bridge, scheduler: TrialScheduler, scratch: str) -> None:
    study, several = order.study, order.study.resources.workers > 1
    if study.resources.together != 1:
        actor = make_group_actor(cast(type[Trial], order.trial))
    else:
        actor = make_actor(across_workers(order.trial) if several else order.trial)
    usual, whole = needs(study.resources), needs(whole_device(study.resources))
    with losses.errors_noted(bridge.noted):
        tune.Tuner(
            tune.with_resources(actor, lambda config: whole if _whole(config) else usual),
            tune_config=tune.TuneConfig(
                search_alg=bridge,
                scheduler=scheduler,
                num_samples=-1,
                # Without this Tune starts its workers one after the other for a searcher of one's own.
                max_concurrent_trials=room(study),
                # Those that wait for a next trial of their kind would keep what workers and whole devices need.
                reuse_actors=not (several or order.alone),
                trial_dirname_creator=lambda t: t.trial_id,
            ),
            run_config=tune.RunConfig(
                name="run",
                storage_path=scratch,
                stop=_Ending(bridge),
                callbacks=[_Events(bridge)],
                failure_config=tune.FailureConfig(max_failures=LOST_WORKER_RETRIES),
                verbose=0,
            ),
        ).fit()
