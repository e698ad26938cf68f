"""Ctrl-C, SIGTERM and SIGHUP: before a run has begun they end it at once, from then on in order."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
TAKEN = (signal.SIGTERM,)  # by Ray
# `timeout` and some terminals send the same signal twice, to the process and to its group: a second one counts after
# this time.
TWICE_SECONDS = 1.0

_current: Interrupts | None = None


class Interrupts:
    """What signals have arrived: ``received`` is the name of the first, or empty.

    Within :meth:`orderly` the first one is only noted; whoever works there looks at ``received`` and ends. Anywhere
    else, and a second time, a signal raises KeyboardInterrupt.
    """

    def __init__(self) -> None:
        self.received = ""
        self._first = 0.0
        self._orderly = 0
        self._numbers: tuple[signal.Signals, ...] = ()

    @contextmanager
    def orderly(self) -> Iterator[None]:
        """A stretch of work that ends by itself soon after ``received`` is set."""
        self._orderly += 1
        try:
            yield
        finally:
            self._orderly -= 1

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let SIGTERM wait for :meth:`listen`, in this thread and in those that it starts meanwhile.

        Ray's C++ core takes SIGTERM for itself when it starts and leaves it deadly when it ends, both unknown to
        Python. The kernel gives a signal to any thread that does not block it.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        handler, mask = signal.getsignal(signal.SIGTERM), signal.pthread_sigmask(signal.SIG_BLOCK, TAKEN)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, handler)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def listen(self) -> dict[signal.Signals, Any]:
        """Handle the signals that are not ignored, and what :meth:`held` has let wait; the handlers before."""
        if threading.current_thread() is not threading.main_thread():
            return {}
        self._numbers = self._numbers or tuple(n for n in SIGNALS if signal.getsignal(n) is not signal.SIG_IGN)
        before = {number: signal.signal(number, self.hear) for number in self._numbers}
        if signal.sigtimedwait(TAKEN, 0) is not None and signal.SIGTERM in self._numbers:
            self.hear(signal.SIGTERM, None)
        return before

    def hear(self, number: int, frame: FrameType | None) -> None:
        """The handler of the signals."""
        if not self.received:
            self.received, self._first = signal.Signals(number).name, time.monotonic()
            if self._orderly:
                return
        elif time.monotonic() - self._first < TWICE_SECONDS:
            return
        raise KeyboardInterrupt


@contextmanager
def heard() -> Iterator[Interrupts]:
    """Listen to the signals; within another such block, as a part of it.

    A signal that is ignored already, as under nohup, stays ignored. Outside of the main thread, which alone can
    listen, nothing is heard.
    """
    global _current
    if _current is not None or threading.current_thread() is not threading.main_thread():
        yield _current if threading.current_thread() is threading.main_thread() and _current else Interrupts()
        return
    _current = found = Interrupts()
    kept = found.listen()
    try:
        yield found
    finally:
        _current = None
        for number, handler in kept.items():
            signal.signal(number, handler)


@contextmanager
def heard_by_children() -> Iterator[None]:
    """Processes that this thread starts meanwhile hear SIGTERM, whether it is held here or not."""
    mask = signal.pthread_sigmask(signal.SIG_UNBLOCK, TAKEN)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def ignore() -> None:
    """Let no further signal disturb a process that is about to end."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
