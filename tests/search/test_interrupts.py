"""Signals to this very process, and what is made of them."""

from __future__ import annotations

import os
import signal
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
