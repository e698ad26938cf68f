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
    assert len((tmp_path / "journal.jsonl").read_text().splitlines()) == 3  # that it begins, and two epochs


def test_groups_hold_the_seeds_of_one_network(begin: Callable[..., tuple[Work, Fixed]]) -> None:
    work, _ = begin()
    groups = []
    while specs := work.next_group(lambda row: 2 if row.values["width"] == 16 else 1):
        groups.append([(spec["parameters"]["width"], spec["seed"]) for spec in specs])
    assert groups == [[(8, 0)], [(16, 0), (16, 1)], [(24, 0)], [(8, 1)], [(24, 1)]]
    assert len(work.running) == 6


def test_a_group_is_no_larger_than_what_is_left_of_a_network(begin: Callable[..., tuple[Work, Fixed]]) -> None:
    work, _ = begin()
    first = work.next()
    assert first is not None
    groups = []
    while specs := work.next_group(lambda row: 9):
        groups.append([(spec["parameters"]["width"], spec["seed"]) for spec in specs])
    assert groups == [[(16, 0), (16, 1)], [(24, 0), (24, 1)], [(8, 1)]]


def test_trials_that_were_lost_together_run_by_themselves(begin: Callable[..., tuple[Work, Fixed]]) -> None:
    work, _ = begin()
    specs = work.next_group(lambda row: 2)
    work.end(blank_row(specs[0], "failed", "nan", ""))
    work.put_back(specs)
    assert list(work.running) == []
    rest = []
    while group := work.next_group(lambda row: 2):
        rest.append([(spec["parameters"]["width"], spec["seed"]) for spec in group])
    assert rest == [[(16, 0), (16, 1)], [(24, 0), (24, 1)], [(8, 1)]]
    specs = work.next_group(lambda row: 2)
    assert specs == []


def test_lost_trials_of_one_network_are_kept_apart_also_where_they_wait_side_by_side(
    begin: Callable[..., tuple[Work, Fixed]],
) -> None:
    work, _ = begin()
    work.put_back(work.next_group(lambda row: 2))
    groups = []
    while group := work.next_group(lambda row: 2):
        groups.append([(spec["parameters"]["width"], spec["seed"]) for spec in group])
    assert groups == [[(16, 0), (16, 1)], [(24, 0), (24, 1)], [(8, 0)], [(8, 1)]]
