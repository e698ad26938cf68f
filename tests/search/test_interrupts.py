"""Signals to this very process, and what is made of them."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from pyconv_search.search import interrupts


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    kept = {number: signal.getsignal(number) for number in interrupts.SIGNALS}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", interrupts.SIGNALS)
def test_orderly_work_is_not_broken_off_and_anything_else_is(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with interrupts.heard() as heard:
        with heard.orderly():
            os.kill(os.getpid(), number)
            assert heard.received == number.name
        assert signal.getsignal(number) == heard.hear
    assert signal.getsignal(number) is before
    with interrupts.heard() as heard, pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), number)
    assert heard.received == number.name


def test_the_same_signal_sent_twice_is_one_and_a_later_one_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with interrupts.heard() as heard, heard.orderly():
        for _ in range(3):  # As `timeout` does: to its child, and to the group.
            os.kill(os.getpid(), signal.SIGTERM)
        monkeypatch.setattr(interrupts, "TWICE_SECONDS", 0.0)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        assert heard.received == "SIGTERM"


def test_what_nohup_ignores_stays_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with interrupts.heard() as heard:
        os.kill(os.getpid(), signal.SIGHUP)
    assert heard.received == ""
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_within_each_other_they_are_one_and_in_another_thread_nothing_is_touched() -> None:
    found: list[interrupts.Interrupts] = []

    def elsewhere() -> None:
        with interrupts.heard() as own:
            found.append(own)

    with interrupts.heard() as outer, interrupts.heard() as inner:
        assert inner is outer
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        assert found[0] is not outer
        assert signal.getsignal(signal.SIGTERM) == outer.hear


def test_a_library_that_takes_a_signal_for_itself_does_not_keep_it() -> None:
    """Ray's C++ core takes SIGTERM without Python's knowledge."""
    with interrupts.heard() as heard, heard.orderly():
        ctypes.CDLL(None).signal(signal.SIGTERM, 1)  # SIG_IGN
        os.kill(os.getpid(), signal.SIGTERM)
        assert heard.received == ""
        heard.listen()
        os.kill(os.getpid(), signal.SIGTERM)
        assert heard.received == "SIGTERM"


# A process of its own, as a signal goes to any thread that does not block it, of which this one may have some.
HELD = """
import ctypes, os, signal, sys, threading
from pyconv_search.search import interrupts

def deadly():
    ctypes.CDLL(None).signal(signal.SIGTERM, 0)  # SIG_DFL, as Ray leaves it

def job():
    deadly()
    os.kill(os.getpid(), signal.SIGTERM)

with interrupts.heard() as heard, heard.orderly():
    with heard.held():
        thread = threading.Thread(target=job)
        thread.start()
        thread.join()
        assert heard.received == ""
        if sys.argv[1] == "listens":
            heard.listen()
            assert heard.received == "SIGTERM"
            deadly()
    assert heard.received == "SIGTERM"
    interrupts.TWICE_SECONDS = 0.0
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    except KeyboardInterrupt:
        print("a second one ends at once")
"""


@pytest.mark.parametrize("how", ["listens", "does not"])
def test_a_signal_that_is_held_meets_no_handler_but_ours(how: str) -> None:
    done = subprocess.run([sys.executable, "-c", HELD, how], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "a second one ends at once\n"), done.stderr


def test_an_ignored_signal_stays_so_although_it_was_held() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with interrupts.heard() as heard:
        with heard.held():
            signal.raise_signal(signal.SIGTERM)
            ctypes.CDLL(None).signal(signal.SIGTERM, 0)
            heard.listen()
        assert heard.received == ""
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
