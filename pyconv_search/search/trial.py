"""One trial: from plain JSON to a Row. It knows nothing of what schedules it.

A trial is described by a plain dictionary::

    {"trial": id, "name": str, "seed": int, "architecture": arch.spec.to_dict(…), "parameters": {…},
     "recipe": study.recipe.to_dict(…), "data": {"name": str, "root": str | None, "validation": int | None},
     "workers": int, "threads": int, "device": "auto" | "cpu" | "cuda", "folder": run folder or None,
     "keep_weights": bool, "checkpoints": {"every": epochs, "minutes": float, "keep": "last" | "all"},
     "config": what names architecture and recipe in the study, "overrides": {…}, values of the recipe that are its own}

Equal descriptions give equal numbers, by a deterministic recipe bit for bit on the same machine, however often the
trial was interrupted between.
With several ``workers`` (1 unless given) each of so many processes, which have met in a process group of
torch.distributed, runs the same trial at the same time; ``threads`` are those of one. All have the same numbers, the
first writes the files. ``accumulated`` and ``alone`` are there in a trial that is retried in its own way
(:class:`pyconv_search.search.retry.Retry`).
"""

from __future__ import annotations

import hashlib
import json
import logging
import socket
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyconv_search.arch.canonical import from_dict
from pyconv_search.errors import UserError
from pyconv_search.models import build
from pyconv_search.models.scales import scale_allocation
from pyconv_search.results.row import Epoch, Row
from pyconv_search.search import images
from pyconv_search.search.outcome import blank_row, device_name, environment, failed_row, now, reason_of, why
from pyconv_search.study import recipe as recipes
from pyconv_search.training import checkpoint, data, device, loop, memory, parallel
from pyconv_search.training.learner import Learner, make_learner
from pyconv_search.training.source import Source, View
from pyconv_search.training.streaming import source_of
from pyconv_search.training.tally import Scores, Tally

_log = logging.getLogger(__name__)

# Steps between two looks at the clock where several processes have to agree on what it says.
_AGREE = 32
# Seconds of processor time that a checkpoint may take whenever it is due.
_NOTICEABLE = 0.1


class Trial:
    """A trial that is run epoch by epoch, and ended by :meth:`finish` or :meth:`fail`.

    ``begun`` is what was trained of the next epoch, as in :class:`Checkpoint`, ``train_seconds`` wall time of training
    alone; ``together`` says how many trials were trained in one stack with it at most.

    Where the run folder holds a checkpoint of this trial it goes on from there; one that is damaged, or of another
    training, is set aside. Raises UserError when the run folder, the data set or the device is not there, or when the
    network does not fit the data.
    """

    def __init__(self, spec: dict[str, Any]) -> None:
        self.spec = spec
        self.history: list[Epoch] = []
        self._started, self._resumed, self.train_seconds = now(), 0, 0.0
        self.begun: tuple[int, tuple[float, ...]] = (0, (0.0, 0.0, 0.0, 0.0))
        self.together = 1
        self._best: dict[str, Tensor] = {}
        self._timed = self._saved = self._saving = 0.0
        self._row: Row | None = None
        self._rank, self._world = parallel.place()
        if self._world != spec.get("workers", 1):
            raise ValueError(f"a trial of {spec.get('workers', 1)} workers is run by {self._world} processes")
        self._folder = _existing(spec["folder"])
        self._recipe = recipes.from_dict(spec["recipe"])
        self._architecture = from_dict(spec["architecture"])
        self._device = device.find_device(spec["device"])
        self.settle()
        wanted = spec["data"]
        self._data_key = images.key_of(wanted)
        images.check_fit(self._architecture, self._data())
        self._learner: Learner | None = self._fresh()
        with parallel.first_before_others():  # It sets a damaged checkpoint aside.
            self._resume()
        parallel.check_equal("the checkpoint", self.epochs_run, self.begun[0])
        self._learner = parallel.joined(self._learner)

    @property
    def epochs_run(self) -> int:
        """How many epochs are behind it, those before an interruption included."""
        return len(self.history)

    @property
    def done(self) -> bool:
        """Whether all epochs of the recipe are run."""
        return self.epochs_run >= self._recipe.epochs

    def advance(self) -> Epoch:
        """Train and validate one more epoch, and write checkpoints where they are due.

        Raises:
            Diverged: if a loss is not finite.
            UserError: if the checkpoint cannot be written.
        """
        learner = self.learner
        if self.done:
            raise ValueError(f"trial {self.spec['trial']} has run all of its {self._recipe.epochs} epochs")
        self.settle()
        try:
            epoch = self._epoch(learner)
        except BaseException:
            self._learner = None  # Trained by a part of an epoch: to go on with it would be another training.
            raise
        self.note(epoch)
        return epoch

    def note(self, epoch: Epoch) -> None:
        """Take an epoch that was trained and validated for one of this trial; write a checkpoint where it is due.

        Raises:
            UserError: if the checkpoint cannot be written.
        """
        self.history.append(epoch)
        self.begun = (0, (0.0, 0.0, 0.0, 0.0))
        self._remember(self.learner)
        if self.done or self._due():
            self.save()

    def _due(self) -> bool:
        """Whether this epoch's checkpoint is worth its time: at most a twentieth of it all, if it is noticeable."""
        wanted = self.spec["checkpoints"]
        rare = self._saving > _NOTICEABLE and time.perf_counter() - self._saved < 20 * self._saving
        return self.epochs_run % wanted["every"] == 0 and (wanted["keep"] == "all" or not rare)

    def finish(self) -> Row:
        """The row of the complete trial. The test split is read here, once; asked again, it is the same row.

        The checkpoint stays until :func:`forget`, so that a row lost on its way to the disk costs no training.

        Raises:
            ValueError: if epochs are left to run.
            UserError: if the weights cannot be written.
        """
        if self._row is not None:
            return self._row
        if not self.done:
            raise ValueError(f"trial {self.spec['trial']} has run {self.epochs_run} of {self._recipe.epochs} epochs")
        self.settle()
        learner, found = self.learner, self._data()
        if self._best:
            learner.evaluated.load_state_dict(self._best)
        view = loop.view_of(learner, self._recipe.epochs, self._image, full=True)
        scores = loop.evaluate(learner, source_of(found.test, found.info, self._device, self._views), view)
        if self._folder and self.spec["keep_weights"] and not self._rank:
            path = self._folder / "weights" / f"{self.spec['trial']}.safetensors"
            checkpoint.save_weights(learner.evaluated, path, self._weights_metadata())
        row = replace(
            self._ended("complete"),
            test_loss=scores.loss,
            test_top1_error=scores.top1_error,
            test_top5_error=scores.top5_error,
            scales=scale_allocation(learner.evaluated),
        )
        return self._end(row)

    def so_far(self) -> Row:
        """The row that this trial would have if the scheduler ended it now."""
        return self._ended("stopped", "scheduler")

    def fail(self, error: BaseException) -> Row:
        """The row of a trial that ``error`` ended; another attempt goes on from its checkpoint."""
        if reason_of(error) == "error":
            _log.warning("trial %s failed", self.spec["trial"], exc_info=error)
        traceback.clear_frames(error.__traceback__)  # They hold tensors.
        return self._row or self._end(self._ended("failed", *why(self.spec, error)))

    def close(self) -> None:
        """Give back the memory of a trial that will not go on here; whoever shares the device can have it."""
        self._learner = None
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _data(self) -> data.DataSet:
        return images.data_set(*self._data_key)

    def settle(self) -> None:
        """Let this process compute as the trial is described."""
        device.settle(self._device, self.spec["threads"], self._recipe.deterministic)

    @property
    def learner(self) -> Learner:
        """What is trained; ValueError after the end of the trial."""
        if self._learner is None:
            raise ValueError(f"trial {self.spec['trial']} has ended")
        return self._learner

    @property
    def _image(self) -> tuple[int, int]:
        """Height and width of the images that the network is made for."""
        *_, height, width = self._architecture.input
        return height, width

    @property
    def _views(self) -> int:
        return self._recipe.clips * self._recipe.crops

    def _epoch(self, learner: Learner) -> Epoch:
        train, held_out = self.sources
        memory.reset_peak(self._device)
        view = self.view
        begun, before = time.perf_counter(), self.train_seconds
        self._timed = begun

        def watch(step: int, tally: Tally) -> None:
            if self._world > 1 and step % _AGREE:
                return
            due = time.perf_counter() - self._timed > 60 * self.spec["checkpoints"]["minutes"]
            if parallel.decided(due, self._device):
                loop.check(learner, tally)
                self._count_time()
                self.save((step, parallel.gathered(tally)))
                self._timed = time.perf_counter()

        seen = loop.train(learner, train, view, self.begun, watch)
        self._count_time()
        found = loop.evaluate(learner, held_out, self.whole_view)
        return self.epoch_of(seen, found, time.perf_counter() - begun, self.train_seconds - before)

    @property
    def sources(self) -> tuple[Source, Source]:
        """The images to train on and those to validate with."""
        return images.on_device(self._data_key, self._device, self._views)

    @property
    def view(self) -> View:
        """How the next epoch looks at the images it trains on."""
        return loop.view_of(self.learner, self.epochs_run, self._image)

    @property
    def whole_view(self) -> View:
        """How the images to validate with are looked at."""
        return replace(self.view, size=self._image)

    def epoch_of(self, seen: Scores, found: Scores, seconds: float, training: float) -> Epoch:
        """The next epoch, which took so many seconds in all, and so many to train."""
        train, _ = self.sources
        fresh = len(train) - self.begun[0] * self._recipe.batch
        return Epoch(
            trial=self.spec["trial"],
            epoch=self.epochs_run + 1,
            lr=loop.first_rate(self.learner, train, self.epochs_run),
            train_loss=seen.loss,
            train_top1_error=seen.top1_error,
            val_loss=found.loss,
            val_top1_error=found.top1_error,
            val_top5_error=found.top5_error,
            seconds=seconds,
            images_per_second=max(fresh, 0) / training,
            peak_memory=parallel.largest(memory.peak(self._device), self._device),
        )

    def _count_time(self) -> None:
        """Add the time since the last count to that of training."""
        now = time.perf_counter()
        self.train_seconds, self._timed = self.train_seconds + now - self._timed, now

    def _remember(self, learner: Learner) -> None:
        """Keep the weights of the best epoch so far, the first of equals, where the recipe selects it."""
        errors = [epoch.val_top1_error for epoch in self.history]
        if self._recipe.select == "best" and errors[-1] < min(errors[:-1], default=101.0):
            self._best = {name: tensor.clone() for name, tensor in learner.evaluated.state_dict().items()}

    def _fresh(self) -> Learner:
        seed = self.spec["seed"]
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            model = build(self._architecture)
        return make_learner(model, self._recipe, seed, self._device)

    @property
    def _checkpoint(self) -> Path | None:
        return checkpoint_of(self.spec)

    def _resume(self) -> None:
        path = self._checkpoint
        if path is None:
            return
        try:
            found = checkpoint.load(path)
            if found is None:
                return
            if (found.trial, found.plan) != (self.spec["trial"], self._plan()):
                raise checkpoint.DamagedCheckpoint(f"{path}: the checkpoint of another training")
            checkpoint.restore(found, self.learner)
        except checkpoint.DamagedCheckpoint as reason:
            checkpoint.set_aside(path, reason)
            self._learner = self._fresh()
            return
        self.history = list(found.history)
        self._started, self.train_seconds = found.started, found.train_seconds
        self._resumed, self.together = found.resumed + 1, found.numbers.get("together", 1)
        steps, sums = found.begun
        self.begun = (steps, sums[4 * self._rank :][:4] if steps else sums)
        self._best = {name: tensor.to(self._device) for name, tensor in found.best.items()}

    def _plan(self) -> str:
        found = self._data()
        computing = (self._device.type, device.precision(self._recipe, self._device))
        return plan_of(self.spec, computing, (len(found.train), len(found.validation)))

    def save(self, begun: tuple[int, tuple[float, ...]] = (0, (0.0, 0.0, 0.0, 0.0))) -> None:
        """Write the checkpoint; ``begun`` as in :class:`Checkpoint`. UserError if it cannot be written."""
        path, started = self._checkpoint, time.process_time()
        if path is None or self._rank:
            return
        tensors, numbers = checkpoint.state_of(self.learner)
        state = checkpoint.Checkpoint(
            trial=self.spec["trial"],
            plan=self._plan(),
            history=tuple(self.history),
            resumed=self._resumed,
            started=self._started,
            train_seconds=self.train_seconds,
            tensors=tensors,
            numbers=numbers | {"together": self.together},
            begun=begun,
            best=self._best,
        )
        checkpoint.save(path, state)
        if self.spec["checkpoints"]["keep"] == "all" and not begun[0]:
            checkpoint.keep(path, self.epochs_run)
        self._saved, self._saving = time.perf_counter(), time.process_time() - started

    def _weights_metadata(self) -> dict[str, str]:
        return {
            "trial": self.spec["trial"],
            "arch_id": self._architecture.arch_id,
            "architecture": json.dumps(self.spec["architecture"], sort_keys=True),
            "seed": str(self.spec["seed"]),
            "epochs": str(self.epochs_run),
            "selected_epoch": str(self._selected.epoch),
        }

    def _ended(self, status: str, reason: str = "", detail: str = "") -> Row:
        name = device_name(self._device)
        row = replace(
            blank_row(self.spec, status, reason, detail),
            epochs=self.epochs_run,
            train_seconds=self.train_seconds,
            device=f"{self._world} × {name}" if self._world > 1 else name,
            started=self._started,
            resumed=self._resumed,
            environment=environment(device.precision(self._recipe, self._device), self.spec)
            | ({"together": str(self.together)} if self.together > 1 else {}),
        )
        if not self.history:
            return row
        last = self._selected if status == "complete" else self.history[-1]
        if last is not self.history[-1]:
            row = replace(row, environment=row.environment | {"selected_epoch": str(last.epoch)})
        seen = self.epochs_run * len(self._data().train)
        return replace(
            row,
            val_loss=last.val_loss,
            val_top1_error=last.val_top1_error,
            val_top5_error=last.val_top5_error,
            images_per_second=seen / self.train_seconds,
            peak_memory=max(epoch.peak_memory for epoch in self.history),
        )

    @property
    def _selected(self) -> Epoch:
        """The epoch whose weights are tested and saved when the trial is complete."""
        if self._recipe.select == "last":
            return self.history[-1]
        return min(self.history, key=lambda epoch: epoch.val_top1_error)

    def _end(self, row: Row) -> Row:
        self._row = row
        self.close()
        return row


def run_trial(spec: dict[str, Any], on_epoch: Callable[[Epoch], None] | None = None) -> Row:
    """Run a trial to its row, going on from its checkpoint where there is one.

    ``on_epoch`` is given every epoch, those before an interruption first; what it raises passes through. Whatever
    training throws becomes a failed row, but for UserErrors (no folder, no data, a full disk), which concern the whole
    study, and KeyboardInterrupt: these are raised, and the checkpoint allows to go on.
    """
    try:
        trial = Trial(spec)
    except UserError:
        raise
    except Exception as error:
        return failed_row(spec, error)
    report = on_epoch or (lambda epoch: None)
    for epoch in trial.history:
        report(epoch)
    while not trial.done:
        try:
            epoch = trial.advance()
        except UserError:
            raise
        except Exception as error:
            return trial.fail(error)
        report(epoch)
    try:
        row = trial.finish()
    except UserError:
        raise
    except Exception as error:
        return trial.fail(error)
    forget(spec)
    return row


def checkpoint_of(spec: dict[str, Any]) -> Path | None:
    """Where the trial's checkpoint is, or would be."""
    return Path(spec["folder"]) / "checkpoints" / f"{spec['trial']}.safetensors" if spec["folder"] else None


def forget(spec: dict[str, Any]) -> None:
    """Remove the checkpoint of a trial whose row is safe."""
    path = checkpoint_of(spec)
    if path is not None:
        checkpoint.remove(path)


def plan_of(spec: dict[str, Any], computing: tuple[str, str], images: tuple[int, ...]) -> str:
    """A digest of all that decides the numbers of a training: where the data lie, and what it is called, do not.

    ``computing``: device and precision in which it is really computed; ``images``: how many it trains on and validates
    with.
    """
    decides = {key: spec[key] for key in ("architecture", "seed")}
    decides["recipe"] = recipes.essence(recipes.from_dict(spec["recipe"]))
    decides["computing"] = computing
    decides["workers"] = spec.get("workers", 1)
    decides["threads"] = spec["threads"] if computing[0] == "cpu" else None
    decides["data"] = [spec["data"]["name"], spec["data"]["validation"], *images]
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


def _existing(folder: str | None) -> Path | None:
    if folder is None or Path(folder).is_dir():
        return Path(folder) if folder else None
    raise UserError(
        f"{folder}: no such folder on {socket.gethostname()}; a run on several machines needs a folder that all of "
        "them see under the same path: put the run on a shared file system, or run it on one machine"
    )
