"""A sign of life of a trial, for whoever watches over it: a file whose time changes while batches are computed."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

EVERY_SECONDS = 5.0

_path: Path | None = None
_last = 0.0


def of(path: Path | None) -> None:
    """From now on :func:`beat` is a sign of the trial whose file this is; None: of none."""
    global _path, _last
    _path, _last = path, 0.0


def beat() -> None:
    """A batch was computed. The file is touched every EVERY_SECONDS at most; that it cannot be is no failure."""
    global _last
    now = time.monotonic()
    if _path is None or now - _last < EVERY_SECONDS:
        return
    _last = now
    with contextlib.suppress(OSError):
        _path.parent.mkdir(exist_ok=True)
        _path.touch()
