"""Tune's schedulers, mended: for trials that had a past, and for those whose worker died between two trials."""

from __future__ import annotations

import json
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any, cast

from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler

from pyconv_search.results.standing import MEASURES
from pyconv_search.search.work import Work
from pyconv_search.study.study import Study


class _Recovering(TrialScheduler):
    """Lets a trial whose worker died between two trials have another one.

    Tune keeps it among those that a worker is being made ready for, and would never start it.
    """

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        getattr(tune_controller, "_resetting_trials", set()).discard(trial)
        super().on_trial_error(tune_controller, trial)


class Fifo(_Recovering, FIFOScheduler):
    """Trials in the order in which they are handed out."""


class Asha(_Recovering, AsyncHyperBandScheduler):
    """ASHA (Li et al. 2020) that knows what earlier runs measured, so that it judges as if there had been one run.

    ``curves`` holds, for each trial that has a past, its measure by epoch. Of a trial that turns out to have begun
    anew the past is forgotten.
    """

    def __init__(self, curves: dict[str, dict[int, float]], **options: Any) -> None:
        super().__init__(**options)
        self._curves = curves
        self._shown: dict[str, dict[int, float]] = {}
        self._added: dict[str, Any] = {}  # by our own name of a trial

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        super().on_trial_add(tune_controller, trial)
        name = json.loads(trial.config["spec"])["trial"]
        past = self._curves.pop(name, {})
        if name in self._added:  # Tune gave it up; it goes on under another of Tune's names.
            past = self._shown[self._added[name].trial_id]
            self._forget(self._added[name], {})
        self._added[name] = trial
        self._show(trial, past)

    def show_ended(self, trials: Iterable[str]) -> None:
        """Show the curves of trials that will not run again."""
        for trial in trials:
            past: Any = SimpleNamespace(trial_id=f"past-{trial}")
            super().on_trial_add(cast(Any, None), past)  # ASHA does not look at the controller
            self._show(past, self._curves.pop(trial, {}))

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        epoch, value = result.get("epoch"), result.get(cast(str, self._metric))
        past = self._shown.get(trial.trial_id, {})
        if value is not None and epoch is not None:
            if past.get(epoch, value) != value:
                self._forget(trial, {n: past[n] for n in past if n < epoch})
            self._shown.setdefault(trial.trial_id, {})[epoch] = value
        return super().on_trial_result(tune_controller, trial, result)

    def _forget(self, trial: Any, kept: dict[int, float]) -> None:
        """Take a trial out of the rungs, but for the epochs that still count."""
        for _, recorded in self._trial_info[trial.trial_id]._rungs:
            recorded.pop(trial.trial_id, None)
        self._show(trial, kept)

    def _show(self, trial: Any, curve: dict[int, float]) -> None:
        self._shown[trial.trial_id] = dict(curve)
        for epoch, value in sorted(curve.items()):
            super().on_trial_result(cast(Any, None), trial, {"epoch": epoch, cast(str, self._metric): value})


def scheduler_of(study: Study, work: Work) -> TrialScheduler:
    """The study's scheduler, which knows what ``work`` has of earlier runs."""
    if study.scheduler.kind == "none":
        return Fifo()
    asha = Asha(
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
