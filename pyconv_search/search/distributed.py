"""A trial of several processes: the workers of a Ray Train TorchTrainer, which train it together epoch by epoch.

The trainer runs in a thread of the trial's actor. Between the two stands a desk, an actor that takes orders from the
trial's and answers from the workers, so that no epoch begins before the scheduler has judged the one before.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray.exceptions import RayActorError
from ray.train import RunConfig, ScalingConfig, get_context
from ray.train.torch import TorchTrainer

from pyconv_search.errors import UserError
from pyconv_search.results.row import Epoch, Row
from pyconv_search.search import noise
from pyconv_search.search.actor import LostWorker, Steps, show_life
from pyconv_search.search.outcome import failed_row, now, why
from pyconv_search.training.parallel import severed

# Between two looks whether the trainer still runs.
_GLANCE_SECONDS = 0.5
# How long workers that wait for an order may take to end.
_PATIENCE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Said:
    """What a worker says of the trial: its row by now, its curve and whether all epochs are run, or what is wrong."""

    row: Row | None = None
    history: tuple[Epoch, ...] = ()
    done: bool = False
    abort: str = ""

    @property
    def failed(self) -> bool:
        return bool(self.abort) or (self.row is not None and self.row.status == "failed")


class Desk:
    """Orders by number, answers by number, and the first failure, which answers everything."""

    def __init__(self) -> None:
        self._orders: list[str] = []
        self._answers: list[Said] = []
        self._failure: Said | None = None
        self._changed = asyncio.Condition()

    async def give(self, order: str) -> None:
        """Let all workers do something: ``advance``, ``finish`` or ``stop``."""
        async with self._changed:
            self._orders.append(order)
            self._changed.notify_all()

    async def order(self, number: int) -> str:
        """The order of that number, once it is given."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self._orders) > number)
            return self._orders[number]

    async def say(self, said: Said) -> None:
        """Leave an answer."""
        async with self._changed:
            if said.failed:
                self._failure = self._failure or said
            else:
                self._answers.append(said)
            self._changed.notify_all()

    async def hear(self, number: int) -> Said:
        """The answer of that number, once it is there, or a failure."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._failure is not None or len(self._answers) > number)
            return self._failure or self._answers[number]


class TrialFailed(Exception):
    """A worker has given the row in which the trial ends."""

    def __init__(self, row: Row) -> None:
        super().__init__(row.detail)
        self.row = row


def across_workers(trial: type[Steps]) -> type[Steps]:
    """The class that runs trials of the given class in as many processes as their descriptions say."""

    class Workers(Steps):
        """As :class:`pyconv_search.search.actor.Steps` has it."""

        def __init__(self, spec: dict[str, Any]) -> None:
            self.spec, self._heard = spec, 0
            self._desk: Any = ray.remote(num_cpus=0)(Desk).remote()
            self._end = ""
            self._thread = threading.Thread(target=self._train, daemon=True)
            self._thread.start()
            self._hear()

        @property
        def done(self) -> bool:
            return self._said.done

        def advance(self) -> Epoch:
            self._do("advance")
            return self.history[-1]

        def finish(self) -> Row:
            if self._said.row is None or self._said.row.status != "complete":
                self._do("finish")
            self.close()
            return self.so_far()

        def so_far(self) -> Row:
            if self._said.row is None:
                raise ValueError(f"trial {self.spec['trial']} has no row")
            return self._said.row

        def fail(self, error: BaseException) -> Row:
            self.close()
            if isinstance(error, TrialFailed):
                return error.row
            reason, detail = why(self.spec, error)
            return replace(self.so_far(), status="failed", reason=reason, detail=detail, finished=now())

        def close(self) -> None:
            """Let the workers go and wait until they have; what does not go in time ends with this process."""
            self._desk.give.remote("stop")
            self._thread.join(_PATIENCE_SECONDS)

        def _do(self, order: str) -> None:
            if not self._said.failed:
                ray.get(self._desk.give.remote(order))
                self._hear()
            if self._said.row is not None and self._said.failed:
                raise TrialFailed(self._said.row)

        def _hear(self) -> None:
            answer = self._desk.hear.remote(self._heard)
            self._heard += 1
            while not ray.wait([answer], timeout=_GLANCE_SECONDS)[0]:
                if not self._thread.is_alive() and not ray.wait([answer], timeout=_GLANCE_SECONDS)[0]:
                    raise LostWorker(self._end)
            try:
                self._said: Said = ray.get(answer)
            except RayActorError as error:
                raise LostWorker(str(error)) from None
            self.history = list(self._said.history)
            if self._said.abort:
                self.close()
                raise UserError(self._said.abort)

        def _train(self) -> None:
            with tempfile.TemporaryDirectory(prefix="pyconv-search-") as scratch:
                try:
                    _trainer(self.spec, _loop(trial, self.spec, self._desk), scratch).fit()
                except Exception as error:
                    self._end = str(error)

    return Workers


def _trainer(spec: dict[str, Any], work: Callable[[], None], scratch: str) -> TorchTrainer:
    gpu = spec["device"] == "cuda"
    each = {"CPU": spec["threads"]} | ({"GPU": 1} if gpu else {})
    scaling = ScalingConfig(num_workers=spec["workers"], use_gpu=gpu, resources_per_worker=each)
    return TorchTrainer(work, scaling_config=scaling, run_config=RunConfig(name="run", storage_path=scratch))


def _loop(trial: type[Steps], spec: dict[str, Any], desk: Any) -> Callable[[], None]:
    """What every worker runs: the orders of the desk one after the other; the first worker answers them."""

    def say(said: Said) -> None:
        ray.get(desk.say.remote(said))

    def obey(subject: Steps) -> None:
        first = get_context().get_world_rank() == 0
        row = subject.so_far()
        for number in itertools.count():
            if first:
                say(Said(row, tuple(subject.history), subject.done))
            order = ray.get(desk.order.remote(number))
            if order == "stop":
                return
            if order == "advance":
                subject.advance()
            row = subject.so_far() if order == "advance" else subject.finish()

    def work() -> None:
        subject = None
        noise.of_worker(spec["folder"])
        show_life(spec)
        try:
            subject = trial(spec)
            obey(subject)
        except UserError as error:
            say(Said(abort=str(error)))
            raise
        except Exception as error:
            if not severed(error):
                row = subject.fail(error) if subject is not None else failed_row(spec, error)
                say(Said(row, tuple(subject.history) if subject is not None else ()))
            logging.getLogger(__name__).warning("a worker of trial %s ends", spec["trial"], exc_info=error)
            raise

    return work
