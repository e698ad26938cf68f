"""The Ray Tune Trainable around a trial: an actor that outlives its trials and runs one epoch per step.

What it sends to the driver is plain JSON text, so that nothing in Tune's own merging and flattening can change it.
"""

from __future__ import annotations

import json
import os
from typing import Any, Protocol

from ray import tune

from pyconv_search.errors import UserError
from pyconv_search.results.row import Epoch, Row, to_dict
from pyconv_search.results.standing import MEASURES
from pyconv_search.search import noise
from pyconv_search.search.outcome import failed_row
from pyconv_search.search.places import sign_of
from pyconv_search.search.together import Group
from pyconv_search.search.trial import Trial
from pyconv_search.training import pulse
from pyconv_search.training.device import broken


class Steps(Protocol):
    """What a trial must be able to do (see :class:`pyconv_search.search.trial.Trial`)."""

    history: list[Epoch]

    def __init__(self, spec: dict[str, Any]) -> None: ...
    @property
    def done(self) -> bool: ...
    def advance(self) -> Epoch: ...
    def finish(self) -> Row: ...
    def so_far(self) -> Row: ...
    def fail(self, error: BaseException) -> Row: ...
    def close(self) -> None: ...


class LostWorker(Exception):
    """A process that the trial needs has died; another attempt goes on from the checkpoint."""


def show_life(spec: dict[str, Any]) -> None:
    """Let whoever watches over this trial see that its batches are computed."""
    pulse.of(sign_of(spec["folder"], spec["trial"]) if spec["folder"] else None)


def make_actor(trial: type[Steps]) -> type[tune.Trainable]:
    """The Trainable that runs trials of the given class, one after another."""

    class TrialActor(tune.Trainable):
        """Runs the trial that ``config["spec"]`` describes; checkpoints are the trial's own business."""

        _trial: Steps | None = None

        def setup(self, config: dict[str, Any]) -> None:
            self.reset_config(config)
            self._drain = noise.of_worker(self._spec["folder"])

        def cleanup(self) -> None:
            if self._trial is not None:
                self._trial.close()
            self._trial = None

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self.cleanup()
            self._spec: dict[str, Any] = json.loads(new_config["spec"])
            self._told = 0
            show_life(self._spec)
            return True

        def step(self) -> dict[str, Any]:
            if self._drain is not None:
                self._drain.bound()
            try:
                row = self._advance()
            except UserError as error:
                return {"abort": str(error), "done": True}
            except LostWorker:
                raise  # Tune tries again, as when this process itself had died.
            except Exception as error:
                row = self._failed(error)
            return self._result(row)

        def _advance(self) -> Row:
            if self._trial is None:
                self._trial = trial(self._spec)
            if not self._trial.done:
                self._trial.advance()
            return self._trial.finish() if self._trial.done else self._trial.so_far()

        def _failed(self, error: Exception) -> Row:
            if broken(error):
                os._exit(1)  # Tune goes on with the trial, and its successors, in a fresh process.
            if self._trial is None:
                return failed_row(self._spec, error)
            return self._trial.fail(error)

        def _result(self, row: Row) -> dict[str, Any]:
            history = self._trial.history if self._trial is not None else []
            fresh, self._told = history[self._told :], len(history)
            result = {
                "rows": json.dumps([to_dict(row)]),
                "epochs": json.dumps([to_dict(epoch) for epoch in fresh]),
                "epoch": row.epochs,
                "done": row.status != "stopped",
            }
            if row.status != "failed" and history:
                result |= {name: getattr(history[-1], column) for name, column in MEASURES.items()}
            return result

        def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
            return {}

        def load_checkpoint(self, checkpoint: Any) -> None:
            return None

    return TrialActor


def make_group_actor(trial: type[Trial]) -> type[tune.Trainable]:
    """The Trainable that runs groups of trials of the given class, one group after another."""

    class GroupActor(tune.Trainable):
        """Runs the trials that ``config["spec"]`` lists, together."""

        _group: Group | None = None

        def setup(self, config: dict[str, Any]) -> None:
            self.reset_config(config)
            self._drain = noise.of_worker(self._specs[0]["folder"])

        def cleanup(self) -> None:
            if self._group is not None:
                self._group.close()
            self._group = None

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self.cleanup()
            self._specs: list[dict[str, Any]] = json.loads(new_config["spec"])
            self._told: dict[tuple[str, int], Epoch] = {}
            show_life(self._specs[0])
            return True

        def step(self) -> dict[str, Any]:
            if self._drain is not None:
                self._drain.bound()
            try:
                if self._group is None:
                    self._group = Group(self._specs, trial)
                if not self._group.done:
                    self._group.advance()
            except UserError as error:
                return {"abort": str(error), "done": True}
            except Exception as error:
                if broken(error):
                    os._exit(1)
                raise  # Which Tune takes for the loss of this process.
            return self._result(self._group)

        def _result(self, group: Group) -> dict[str, Any]:
            # A stack that failed is trained again one by one from its checkpoints: the same epochs, other numbers.
            fresh = [epoch for epoch in group.epochs if self._told.get((epoch.trial, epoch.epoch)) != epoch]
            self._told |= {(epoch.trial, epoch.epoch): epoch for epoch in fresh}
            return {
                "rows": json.dumps([to_dict(row) for row in group.rows]),
                "epochs": json.dumps([to_dict(epoch) for epoch in fresh]),
                "done": group.done,
            }

        def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
            return {}

        def load_checkpoint(self, checkpoint: Any) -> None:
            return None

    return GroupActor
