"""What a space holds on a study's data, against every assignment taken one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from pyconv_search.errors import UserError
from pyconv_search.space.space import Assignment
from pyconv_search.study import supply
from pyconv_search.study.plan import candidate, candidates, planned_trials
from pyconv_search.study.study import Study, load_study

Write = Callable[..., Path]
# Twelve assignments; the two patterns are one network, and an empty recipe value is the study's own.
ALIKE = """
space: alike
parameters:
  pattern: {choice: [[1, 2], [1, 2, 1, 2]]}
  width: {choice: [16, 32, 128]}
  lr: {choice: [0.1, 0.2]}
network: {depth: 11, block: bottleneck, stem: {kernel: 3, width: 8, stride: 1, pool: none}, width: $width, pattern: $pattern}
constraints: [params <= 500k]
recipe: {lr: $lr}
"""
COSTLY = """
space: costly
parameters:
  width: {choice: [16, 32, 64]}
network: {depth: 11, block: bottleneck, stem: {kernel: 3, width: 8, stride: 1, pool: none}, width: $width}
constraints: [macs <= 60M]
"""


def configs(study: Study, every: Iterable[Assignment]) -> list[str]:
    return [row.config for values in every if (row := candidate(study, values)) is not None]


@pytest.mark.parametrize("text", [None, ALIKE, COSTLY], ids=["conditions", "alike", "costly"])
def test_it_is_every_configuration_once(write_study: Write, text: str | None) -> None:
    study = load_study(write_study(**({"space_text": text} if text else {})))
    found, every = study.supply, configs(study, study.space.assignments())
    assert found is not None
    assert configs(study, found) == list(dict.fromkeys(every))
    assert 0 < len(found) == len(set(every)) < study.space.size


def test_it_follows_the_size_of_the_data(write_study: Write) -> None:
    """The constraint is on multiply-adds, of which colour images of 32×32 need more than grey ones of 28×28."""
    small = load_study(write_study(space_text=COSTLY))
    large = load_study(write_study(space_text=COSTLY, data={"cifar10": {"root": "/somewhere"}}))
    assert (len(small.supply or ()), len(large.supply or ())) == (2, 1)


@pytest.mark.parametrize("kind", ["random", "tpe"])
def test_a_search_is_planned_as_what_there_is(write_study: Write, kind: str) -> None:
    def study(trials: int) -> Study:
        return load_study(write_study(space_text=ALIKE, search={kind: {"trials": trials}}, seeds=3))

    assert [planned_trials(study(n), len(candidates(study(n)))) for n in (3, 4, 5, 12)] == [9, 12, 12, 12]


def test_a_random_search_of_all_there_is_finds_what_it_did_not_draw(
    write_study: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pyconv_search.space.sampling.PATIENCE", 1)
    study = load_study(write_study(search={"random": {"trials": 15}}))
    every = configs(study, study.space.assignments())
    found = [row.config for row in candidates(study)]
    assert len(found) == len(set(found)) == min(15, len(set(every)))
    assert set(found) <= set(every)


def test_what_cannot_be_counted_is_planned_as_asked(write_study: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supply, "LISTED", 11)
    study = load_study(write_study(space_text=ALIKE, search={"tpe": {"trials": 12}}))
    assert study.supply is None
    assert planned_trials(study, 0) == 12
    drawn = load_study(write_study(space_text=ALIKE, search={"random": {"trials": 12}}))
    with pytest.raises(UserError, match=r"found 4 of 12 different networks .* \(costs are at 1×28×28\)"):
        candidates(drawn)


@pytest.mark.parametrize(("trials", "accepted"), [(12, True), (13, False)])
def test_as_many_trials_as_assignments_may_be_asked_for(write_study: Write, trials: int, accepted: bool) -> None:
    path = write_study(space_text=ALIKE, search={"random": {"trials": trials}})
    if accepted:
        assert load_study(path).search.trials == 12
    else:
        with pytest.raises(UserError, match="the space holds 12 assignments, but got 13; nearest: 12, or grid"):
            load_study(path)
