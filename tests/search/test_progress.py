"""What a run prints where nobody watches a terminal, on a clock that only the test moves."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from pyconv_search.results.row import row_from_dict
from pyconv_search.search import progress
from pyconv_search.search.progress import Progress, row_text
from pyconv_search.search.work import Totals


def test_a_run_without_events_is_not_silent_and_does_not_chatter(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
    monkeypatch.setattr(progress, "time", clock)
    study = SimpleNamespace(measure="top1_error")
    work: Any = SimpleNamespace(ended=[], running={}, waiting=0, totals=Totals("top1_error"), study=study)
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


def test_an_ended_trial_is_one_line_with_what_the_study_compares_by() -> None:
    what = {"trial": "a", "arch_id": "x", "name": "wide", "seed": 1, "parameters": {}}
    costs = {"params": 1, "macs": 1, "activations": 1, "receptive_field": 1}
    end = {"status": "complete", "reason": "", "detail": "", "epochs": 3}
    whole = row_from_dict({**what, **costs, **end, "val_loss": 0.61304, "val_top1_error": 22.3})
    assert row_text(whole, "loss") == "wide (seed 1) complete: validation loss 0.6130"
    assert row_text(whole, "top1_error") == "wide (seed 1) complete: validation top-1 error 22.30 %"
    stopped = replace(whole, status="stopped", reason="scheduler", epochs=1)
    assert row_text(stopped, "loss") == "wide (seed 1) stopped after 1 epoch: validation loss 0.6130"
    failed = replace(whole, status="failed", reason="error", detail="ValueError: no\nmore", epochs=2)
    assert row_text(failed, "loss") == "wide (seed 1) failed after 2 epochs: error: ValueError: no"
    assert row_text(replace(failed, reason="lost", detail=""), "loss") == "wide (seed 1) failed after 2 epochs: lost"
