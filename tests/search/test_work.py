"""Which trial is next: against the journal, without Ray."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from pyconv_search.results import store
from pyconv_search.results.row import Epoch, Row
from pyconv_search.results.store import Journal
from pyconv_search.search.outcome import blank_row
from pyconv_search.search.strategies import Strategy
from pyconv_search.search.work import Work
from pyconv_search.study.plan import Candidate, candidates
from pyconv_search.study.study import Study, study_to_dict


class Fixed(Strategy):
    """Proposes the study's rows once and remembers what it was told."""

    def __init__(self, study: Study) -> None:
        self.left = candidates(study)
        self.observed: list[tuple[str, list[str]]] = []

    def propose(self) -> list[Candidate]:
        proposed, self.left = self.left, []
        return proposed

    def observe(self, row: Candidate, rows: Sequence[Row], curve: Sequence[Epoch]) -> None:
        self.observed.append((row.name, [r.status for r in rows]))


@pytest.fixture
def begin(toy: Callable[..., Study], tmp_path: Path) -> Callable[..., tuple[Work, Fixed]]:
    """A Work over the toy study and whatever its folder holds by now."""
    import json

    study = toy()
    (tmp_path / "study.json").write_text(json.dumps(study_to_dict(study)))

    def make(**options: bool) -> tuple[Work, Fixed]:
        strategy = Fixed(study)
        return Work(study, strategy, Journal(tmp_path), store.read(tmp_path), **options), strategy

    return make


def test_every_network_gets_its_first_seed_before_any_gets_its_second(begin: Callable[..., tuple[Work, Fixed]]) -> None:
    work, _ = begin()
    specs = []
    while (spec := work.next()) is not None:
        specs.append((spec["seed"], spec["parameters"]["width"]))
    assert specs == [(0, 8), (0, 16), (0, 24), (1, 8), (1, 16), (1, 24)]


def test_what_is_in_the_journal_does_not_run_again(begin: Callable[..., tuple[Work, Fixed]]) -> None:
    work, strategy = begin()
    specs = [work.next() for _ in range(5)]
    for spec, status in zip(specs[:4], ("complete", "failed", "stopped", "complete"), strict=True):
        assert spec is not None
        work.end(blank_row(spec, status, "", ""))
        work.end(blank_row(spec, "complete", "", ""))
    assert strategy.observed == [("width 8, levels [1, 1, 1]", ["complete", "complete"])]
    work._journal.close()
    again, told = begin()
    left = [(spec["parameters"]["width"], spec["seed"]) for spec in iter(again.next, None) if spec]
    assert left == [(16, 1), (24, 1)]
    assert told.observed == strategy.observed
    again._journal.close()
    retried = [spec["parameters"]["width"] for spec in iter(begin(retry_failed=True)[0].next, None) if spec]
    assert retried == [16, 16, 24]


def test_epochs_are_written_once(begin: Callable[..., tuple[Work, Fixed]], tmp_path: Path) -> None:
    work, _ = begin()
    spec = work.next()
    assert spec is not None
    epochs = [Epoch(spec["trial"], n, 0.1, 1.0, 50.0, 1.0, 40.0, 5.0, 1.0) for n in (1, 2)]
    for epoch in (*epochs, *epochs):
        work.epoch(epoch)
    assert work.curve(spec["trial"]) == epochs
    assert len((tmp_path / "journal.jsonl").read_text().splitlines()) == 2
