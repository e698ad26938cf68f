"""Which trials have made no progress for too long, on a clock that only the test moves."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import ray

from pyconv_search.search import places
from pyconv_search.search.places import Places, sign_of


class Clock:
    """Time that passes when it is told to; whoever watches looks at every second of it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(places, "time", found)
    return found


def after(seconds: float, clock: Clock, watched: Places) -> list[str]:
    """The trials that are found stalled within so many seconds, looked for every ten."""
    found: list[str] = []
    for _ in range(round(seconds / 10)):
        clock.now += 10
        found += [key for key, _ in watched.stalled() if key not in found]
    return found


def test_a_study_says_how_long(clock: Clock, tmp_path: Path) -> None:
    watched = Places(tmp_path, 2.0, longest=1e6)
    watched.put("a", None, "trial-a")
    watched.put("b", None, "trial-b")
    assert after(100, clock, watched) == []
    watched.progress("a", 5.0)
    assert after(30, clock, watched) == ["b"]
    assert after(100, clock, watched) == ["b", "a"]
    watched.leave("b")
    assert [key for key, _ in watched.stalled()] == ["a"]
    never = Places(tmp_path, float("inf"), 0.0)
    never.put("a", None, "trial-a")
    assert after(10**6, clock, never) == []


def test_by_default_it_follows_from_the_epochs(clock: Clock, tmp_path: Path) -> None:
    watched = Places(tmp_path, None, longest=0.0)
    watched.put("a", None, "trial-a")
    assert after(59 * 60, clock, watched) == []  # It may read its data from a slow disk.
    watched.progress("a", 10.0)
    assert after(9 * 60, clock, watched) == []
    assert after(2 * 60, clock, watched) == ["a"]
    watched.progress("a", 300.0)
    assert after(99 * 60, clock, watched) == []
    assert after(2 * 60, clock, watched) == ["a"]
    earlier = Places(tmp_path, None, longest=600.0)
    earlier.put("a", None, "trial-a")
    assert after(199 * 60, clock, earlier) == []
    assert after(2 * 60, clock, earlier) == ["a"]


def test_batches_that_are_computed_are_progress(clock: Clock, tmp_path: Path) -> None:
    watched = Places(tmp_path, 1.0, 0.0)
    watched.put("a", None, "trial-a")
    sign = sign_of(str(tmp_path), "trial-a")
    sign.parent.mkdir()
    sign.touch()
    for stamp in range(1, 20):
        os.utime(sign, (stamp, stamp))
        assert after(50, clock, watched) == []
    assert after(80, clock, watched) == ["a"]
    watched.leave("a")
    assert not sign.exists()


def test_time_in_which_the_watcher_stood_still_does_not_count(clock: Clock, tmp_path: Path) -> None:
    watched = Places(tmp_path, 1.0, 0.0)
    watched.put("a", None, "trial-a")
    watched.stalled()
    clock.now += 10**6  # Ctrl-Z, and fg a week later
    assert watched.stalled() == []
    assert after(80, clock, watched) == ["a"]


def test_killed_ones_are_counted(clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[str] = []
    monkeypatch.setattr(ray, "kill", killed.append)
    watched = Places(tmp_path, 1.0, 0.0)
    for worker in ("first", "second"):
        watched.put("a", worker, "trial-a")
        watched.kill("a", 90.0)
        watched.kill("a", 90.0)
    assert (killed, watched.stalls("a"), watched.stalls("b")) == (["first", "second"], [90.0, 90.0], [])
    watched.put("a", "third", "trial-a")
    watched.kill_all()
    assert (killed[-1], len(watched), watched.stalls("a")) == ("third", 0, [90.0, 90.0])
