"""Timing that both benchmarks share: repeated passes, and where the time of a call goes."""

from __future__ import annotations

import functools
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock


def per_second(action: Callable[[Any], Any], items: list[Any], before: Callable[[], Any], seconds: float) -> float:
    """How many items a second ``action`` takes: the median of passes over all items, made for at least ``seconds``.

    ``before`` is called ahead of every pass and not timed.
    """
    passes: list[float] = []
    while len(passes) < 3 or sum(passes) < seconds:
        before()
        begun = time.perf_counter()
        for item in items:
            action(item)
        passes.append(time.perf_counter() - begun)
    return len(items) / statistics.median(passes)


class Sections:
    """Wall time by section: a call of a watched function, without the watched functions called inside it.

    ``seconds`` and ``begun`` (when a section was first entered) go by the names of the sections around it and its own.
    """

    def __init__(self) -> None:
        self.seconds: dict[tuple[str, ...], float] = defaultdict(float)
        self.begun: dict[tuple[str, ...], float] = {}
        self._open: tuple[str, ...] = ()
        self._since = time.perf_counter()

    @contextmanager
    def section(self, name: str) -> Iterator[None]:
        """Count the body as ``name``, inside the section that is open."""
        outer = self._open
        self._switch((*outer, name))
        try:
            yield
        finally:
            self._switch(outer)

    @contextmanager
    def watch(self, owner: Any, attribute: str, name: str) -> Iterator[None]:
        """Count every call of ``owner.attribute`` as ``name``, until the context is left."""
        original = getattr(owner, attribute)

        @functools.wraps(original)
        def timed(*arguments: Any, **named: Any) -> Any:
            with self.section(name):
                return original(*arguments, **named)

        with mock.patch.object(owner, attribute, timed):
            yield

    def _switch(self, to: tuple[str, ...]) -> None:
        now = time.perf_counter()
        self.seconds[self._open] += now - self._since
        self.begun.setdefault(to, now)
        self._open, self._since = to, now
