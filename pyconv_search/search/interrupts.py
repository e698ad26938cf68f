"""Ctrl-C, SIGTERM and SIGHUP: before a run has begun they end it at once, from then on in order."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
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

    @contextmanager
    def orderly(self) -> Iterator[None]:
        """A stretch of work that ends by itself soon after ``received`` is set."""
        self._orderly += 1
        try:
            yield
        finally:
            self._orderly -= 1

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
    kept = {n: signal.signal(n, found.hear) for n in SIGNALS if signal.getsignal(n) is not signal.SIG_IGN}
    try:
        yield found
    finally:
        _current = None
        for number, handler in kept.items():
            signal.signal(number, handler)


def ignore() -> None:
    """Let no further signal disturb a process that is about to end."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
