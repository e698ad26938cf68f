"""What a run prints where nobody watches a terminal, on a clock that only the test moves."""

from __future__ import annotations

from io import StringIO
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from pyconv_search.search import progress
from pyconv_search.search.progress import Progress


def test_a_run_without_events_is_not_silent_and_does_not_chatter(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
    monkeypatch.setattr(progress, "time", clock)
    work: Any = SimpleNamespace(
        ended=[], running={}, queued=[], study=SimpleNamespace(recipe=SimpleNamespace(epochs=2))
    )
    said = StringIO()
    shown = Progress(work, 4, Console(file=said, width=200))
    spoken = []
    for second in range(1, 3600):
        clock.now = float(second)
        before = said.tell()
        shown.tick()
        if said.tell() > before:
            spoken.append(second)
    assert spoken[0] < 30
    assert max(later - earlier for earlier, later in pairwise(spoken)) <= 301
    assert len(spoken) < 20
    assert set(said.getvalue().splitlines()) == {"0/4 trials, 0 running"}
