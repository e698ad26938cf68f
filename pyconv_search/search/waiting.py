"""Saying what a run waits for, to a stream that may have gone away."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from rich.console import Console

from pyconv_search.fields import printable

# A wait is reported after the first time, then each time the second one has passed.
FIRST_SECONDS = 3.0
AGAIN_SECONDS = 30.0


class Lasting:
    """A text stream whose reader may end before us, as a closed terminal or ``tee`` does: then nothing is written."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write what still can be written."""
        try:
            return self._stream.write(text)
        except (OSError, ValueError):
            self._forsake()
            return len(text)

    def flush(self) -> None:
        """Flush what still can be flushed."""
        try:
            self._stream.flush()
        except (OSError, ValueError):
            self._forsake()

    def _forsake(self) -> None:
        """Lead the stream nowhere, so that what it still holds does not fail later."""
        with contextlib.suppress(OSError, ValueError), open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), self._stream.fileno())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def console() -> Console:
    """Standard error as it is now, whatever becomes of its reader, and wherever Ray's own lines are sent later."""
    try:
        # Ray's lines are led away from descriptor 2 while it runs; ours go to where it leads now.
        own: TextIO = os.fdopen(
            os.dup(sys.stderr.fileno()), "w", encoding=sys.stderr.encoding, errors="replace", buffering=1
        )
    except (OSError, ValueError, AttributeError):
        own = sys.stderr
    return Console(file=Lasting(own))  # type: ignore[arg-type]


def say(console: Console, line: str) -> None:
    """One line, as it is."""
    console.print(printable(line), highlight=False, markup=False, soft_wrap=True)


class Patience:
    """Tells when a wait is to be reported: after FIRST_SECONDS, then every AGAIN_SECONDS."""

    def __init__(self) -> None:
        self.begun = time.monotonic()
        self._due = self.begun + FIRST_SECONDS

    @property
    def due(self) -> bool:
        """Whether it is time to report; asked again it is not, for a while."""
        now = time.monotonic()
        if now < self._due:
            return False
        self._due = now + AGAIN_SECONDS
        return True

    def said(self, what: str) -> str:
        """``what`` with the time that it has taken, once this is more than the first report's."""
        seconds = round(time.monotonic() - self.begun)
        return f"{what} …" if seconds < AGAIN_SECONDS else f"{what} … ({seconds} s)"


@contextmanager
def waiting(what: str, console: Console | Callable[[], Console]) -> Iterator[None]:
    """Report that one waits for ``what`` (``starting Ray``) if it takes more than FIRST_SECONDS, and again at times."""
    over, patience = threading.Event(), Patience()

    def report() -> None:
        while not over.wait(0.2):
            if patience.due:
                say(console() if callable(console) else console, patience.said(what))

    thread = threading.Thread(target=report, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(1.0)
