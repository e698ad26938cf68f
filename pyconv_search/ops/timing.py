"""Timing several actions in one run, taking turns, so that what slows the machine for a while slows all of them.

The ratio of two actions is taken within each round and only then its median, since neighbours in time share the state
of the machine. Actions are called back to back: what one leaves in the caches is there for the next.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from pyconv_search.errors import UserError
from pyconv_search.fields import suggestion

# Calls an action and gives a function that tells its seconds, which a GPU knows only later.
Clock = Callable[[Callable[[], object]], Callable[[], float]]


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of some values, and how they lie around it; quartiles by linear interpolation, as NumPy's."""

    lowest: float
    lower_quartile: float
    median: float
    upper_quartile: float
    highest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of one or more values. Raises UserError if there is none."""
        if not values:
            raise UserError("values must hold at least one number, but got none")
        return cls(*np.quantile(values, (0, 0.25, 0.5, 0.75, 1)).tolist())


@dataclass(frozen=True, slots=True)
class Times:
    """The seconds of one action over ``rounds`` rounds, and their ratio to the baseline's of the same round, if any."""

    seconds: Spread
    rounds: int
    ratio: Spread | None = None


def wall_clock(action: Callable[[], object]) -> Callable[[], float]:
    """The :data:`Clock` of actions that are done when they return."""
    begun = time.perf_counter()
    action()
    seconds = time.perf_counter() - begun
    return lambda: seconds


def clock_of(device: torch.device) -> Clock:
    """The :data:`Clock` for actions on ``device``: events on its current stream for CUDA, else the wall clock.

    Reading a time waits for its own event alone, so that the device goes on working through later actions.
    """
    if device.type != "cuda":
        return wall_clock

    def clock(action: Callable[[], object]) -> Callable[[], float]:
        stream = torch.cuda.current_stream(device)
        begun, ended = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begun.record(stream)
        action()
        ended.record(stream)

        def seconds() -> float:
            ended.synchronize()
            return begun.elapsed_time(ended) / 1000  # it counts milliseconds

        return seconds

    return clock


def interleaved(
    actions: Mapping[str, Callable[[], object]],
    baseline: str | None = None,
    rounds: int = 3,
    seconds: float = 0.0,
    warmup: int = 1,
    clock: Clock = wall_clock,
) -> dict[str, Times]:
    """Time every action once a round, each round beginning with the next of them; gives their times by name.

    Args:
        actions: what is timed, by name; each is called without arguments.
        baseline: the name of the action to whose seconds the ratios are.
        rounds, seconds: the least number of rounds, and the least time that all timed calls together last.
        warmup: how often every action is called beforehand without being timed.
        clock: how a call is timed; :func:`clock_of` gives that of a device.

    Raises:
        UserError: if there is no action or no round, seconds or warmup is negative, the baseline is none of the
            actions, or it took no time that the clock could tell.
    """
    _check(actions, baseline, rounds, seconds, warmup)
    names = list(actions)
    for name in names:
        for _ in range(warmup):
            actions[name]()
    taken: dict[str, list[float]] = {name: [] for name in names}
    done, total = 0, 0.0
    while done < rounds or total < seconds:
        first = done % len(names)
        readings = {name: clock(actions[name]) for name in names[first:] + names[:first]}
        for name, read in readings.items():
            taken[name].append(read())
            total += taken[name][-1]
        done += 1
    return {name: Times(Spread.of(taken[name]), done, _ratio(taken, name, baseline)) for name in names}


def _ratio(taken: Mapping[str, list[float]], name: str, baseline: str | None) -> Spread | None:
    if baseline is None:
        return None
    if min(taken[baseline]) <= 0:
        raise UserError(f"baseline {baseline!r} took no time that the clock could tell; let it do more in one call")
    return Spread.of([own / other for own, other in zip(taken[name], taken[baseline], strict=True)])


def _check(actions: Mapping[str, object], baseline: str | None, rounds: int, seconds: float, warmup: int) -> None:
    if not actions:
        raise UserError("actions must hold at least one action, but got none")
    if baseline is not None and baseline not in actions:
        raise UserError(
            f"baseline must be one of {', '.join(actions)}, but got {baseline!r}{suggestion(baseline, actions)}"
        )
    if rounds < 1:
        raise UserError(f"rounds must be 1 or more, but got {rounds}")
    if not 0 <= seconds < float("inf"):
        raise UserError(f"seconds must be 0 or more and finite, but got {seconds}")
    if warmup < 0:
        raise UserError(f"warmup must be 0 or more, but got {warmup}")
