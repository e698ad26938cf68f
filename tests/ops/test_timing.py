"""Timing in turns, with clocks that say what time it is."""

from __future__ import annotations

import re
import statistics
import time

import pytest
import torch

from pyconv_search.errors import UserError
from pyconv_search.ops import timing
from pyconv_search.ops.timing import Spread, clock_of, interleaved, wall_clock


class Machine:
    """A machine whose actions last what it is told, one time after the other; it remembers what it was made to do."""

    def __init__(self, **lasting: list[float]) -> None:
        self.left = {name: list(times) for name, times in lasting.items()}
        self.log: list[str] = []
        self.actions = {name: lambda name=name: self.log.append(name) for name in lasting}

    def clock(self, action):
        action()
        name = self.log[-1]
        seconds = self.left[name].pop(0)

        def read():
            self.log.append(f"read {name}")
            return seconds

        return read


def test_every_round_calls_each_once_and_begins_with_the_next():
    machine = Machine(a=[1] * 4, b=[1] * 4, c=[1] * 4)
    interleaved(machine.actions, rounds=4, warmup=0, clock=machine.clock)
    called = "".join(name for name in machine.log if "read" not in name)
    assert called == "abc" + "bca" + "cab" + "abc"


def test_a_round_is_read_when_all_its_actions_are_under_way():
    machine = Machine(a=[1], b=[1])
    interleaved(machine.actions, rounds=1, warmup=0, clock=machine.clock)
    assert machine.log == ["a", "b", "read a", "read b"]


def test_warming_up_is_not_timed():
    machine = Machine(a=[1], b=[1])
    interleaved(machine.actions, rounds=1, warmup=2, clock=machine.clock)
    assert machine.log[:4] == ["a", "a", "b", "b"]
    assert machine.log.count("read a") == 1


def test_ratios_are_taken_within_the_round():
    """The machine slows down tenfold in the second round: no ratio of overall medians would be 2 and 2 and 3."""
    machine = Machine(slow=[2.0, 20.0, 3.0], base=[1.0, 10.0, 1.0])
    times = interleaved(machine.actions, "base", rounds=3, clock=machine.clock)
    assert times["slow"].ratio == Spread(2.0, 2.0, 2.0, 2.5, 3.0)
    assert times["base"].ratio == Spread(1.0, 1.0, 1.0, 1.0, 1.0)
    assert times["slow"].seconds == Spread(2.0, 2.5, 3.0, 11.5, 20.0)
    assert times["base"].seconds.median == 1.0
    assert list(times) == ["slow", "base"]


def test_without_a_baseline_there_are_no_ratios():
    machine = Machine(a=[0.0], b=[1.0])
    times = interleaved(machine.actions, rounds=1, clock=machine.clock)
    assert [one.ratio for one in times.values()] == [None, None]


@pytest.mark.parametrize(("rounds", "seconds", "expected"), [(2, 0.0, 2), (1, 4.0, 2), (1, 4.1, 3), (5, 4.0, 5)])
def test_rounds_go_on_until_both_bounds_are_met(rounds: int, seconds: float, expected: int):
    machine = Machine(a=[1.5] * 9, b=[0.5] * 9)
    times = interleaved(machine.actions, rounds=rounds, seconds=seconds, clock=machine.clock)
    assert [one.rounds for one in times.values()] == [expected, expected]
    assert machine.log.count("read a") == expected


@pytest.mark.parametrize("count", [2, 3, 4, 7, 20])
def test_spread_is_that_of_the_standard_library(count: int):
    values = torch.rand(count, generator=torch.Generator().manual_seed(count)).tolist()
    spread = Spread.of(values)
    quartiles = statistics.quantiles(values, n=4, method="inclusive")
    found = [spread.lower_quartile, spread.median, spread.upper_quartile]
    assert found == pytest.approx(quartiles, rel=1e-12)
    assert (spread.lowest, spread.highest) == (min(values), max(values))
    assert spread.median == pytest.approx(statistics.median(values), rel=1e-12)


def test_spread_of_one_value_and_of_none():
    assert Spread.of([3.0]) == Spread(3.0, 3.0, 3.0, 3.0, 3.0)
    with pytest.raises(UserError, match="values must hold at least one number, but got none"):
        Spread.of([])


def test_the_wall_clock_times_the_call_alone():
    begun = time.perf_counter()
    read = wall_clock(lambda: time.sleep(0.02))
    ended = time.perf_counter()
    time.sleep(0.05)
    assert 0.02 <= read() <= ended - begun


class FakeEvent:
    """What is recorded of a CUDA event; a stream is a list of what was put on it, each lasting 3 ms."""

    waits = 0

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing
        self.at: int | None = None
        self.waited = False

    def record(self, stream: list) -> None:
        self.at = len(stream)

    def synchronize(self) -> None:
        self.waited = True
        FakeEvent.waits += 1

    def elapsed_time(self, other: FakeEvent) -> float:
        assert other.waited, "an event that has not happened has no time"
        return 3.0 * (other.at - self.at)


def test_cuda_is_timed_by_events_around_the_action_on_the_current_stream(monkeypatch: pytest.MonkeyPatch):
    streams = {torch.device("cuda:0"): [], torch.device("cuda:1"): ["earlier"]}
    monkeypatch.setattr(FakeEvent, "waits", 0)
    monkeypatch.setattr(timing.torch.cuda, "Event", FakeEvent)
    monkeypatch.setattr(timing.torch.cuda, "current_stream", lambda device: streams[device])
    second = torch.device("cuda:1")
    read = clock_of(second)(lambda: streams[second].extend(["kernel", "kernel"]))
    streams[second].append("later")
    assert FakeEvent.waits == 0, "the device works on while nobody asks for the time"
    assert read() == pytest.approx(0.006)
    assert clock_of(torch.device("cpu")) is wall_clock


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_events_see_the_work_and_not_only_its_launch():
    x = torch.randn(4096, 4096, device="cuda")
    clock = clock_of(x.device)
    torch.mm(x, x)

    def times(count: int):
        return lambda: [torch.mm(x, x) for _ in range(count)]

    found = interleaved({"one": times(1), "eight": times(8)}, "one", rounds=9, clock=clock)
    assert found["eight"].ratio is not None
    assert 6 < found["eight"].ratio.median < 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"actions": {}}, "actions must hold at least one action, but got none"),
        ({"baseline": "on"}, "baseline must be one of one, two, but got 'on'; did you mean one?"),
        ({"rounds": 0}, "rounds must be 1 or more, but got 0"),
        ({"seconds": -1.0}, "seconds must be 0 or more and finite, but got -1.0"),
        ({"seconds": float("nan")}, "seconds must be 0 or more and finite, but got nan"),
        ({"warmup": -1}, "warmup must be 0 or more, but got -1"),
        ({"baseline": "one"}, "baseline 'one' took no time that the clock could tell"),
    ],
)
def test_wrong_arguments_are_told(arguments: dict, message: str):
    machine = Machine(one=[0.0] * 9, two=[1.0] * 9)
    with pytest.raises(UserError, match=re.escape(message)):
        interleaved(**{"actions": machine.actions, "clock": machine.clock, **arguments})
