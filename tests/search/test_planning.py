"""What a run notes of its hours: a real study of seconds, its journal summed by hand."""

from __future__ import annotations

import re
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest
import ray
from rich.console import Console

from pyconv_search.errors import UserError
from pyconv_search.report.page import render
from pyconv_search.results import store
from pyconv_search.search import planning, runner
from pyconv_search.search.connection import connected
from pyconv_search.search.runner import run
from pyconv_search.study.plan import candidates
from pyconv_search.study.study import Study, load_study

Toy = Callable[..., Study]


def named(folder: Path, name: str) -> list[dict]:
    return [event for event in store.read(folder).events if event["name"] == name]


@pytest.mark.slow
def test_planned_and_spent_are_in_the_journal_once(
    tiny_study: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "SECONDS", 0.5)
    monkeypatch.setattr(planning, "LEAST", 0)
    monkeypatch.setattr(planning, "LIMIT", 300.0)
    recipe, rows = {"epochs": 1, "batch": 128, "precision": "fp32"}, [{"levels": [1, 1, 1]}]
    study, out = load_study(tiny_study(recipe=recipe, search={"rows": rows})), tmp_path / "run"
    assert run(study, out, console=Console(file=StringIO())).complete == 1
    found = store.read(out)
    assert [event["name"] for event in found.events] == ["start", "planned", "begin", "spent", "finished"]
    (plan,), (spent,) = named(out, "planned"), named(out, "spent")
    rates = plan["measured"]
    training = sum(10_000 / rate["training"] for rate in rates)
    assert plan["training_seconds"] == pytest.approx(training)
    assert plan["device_seconds"] == pytest.approx(training + sum(4_000 / rate["evaluation"] for rate in rates))
    assert plan["trials"] == 1
    assert spent["device_seconds"] == pytest.approx(sum(epoch.seconds for epoch in found.epochs))
    rows = sum(row.train_seconds for row in found.rows)
    assert spent["training_device_seconds"] == pytest.approx(rows, rel=0.01)
    page = render(found)
    assert re.search(r"[\d.]+ core-(seconds|minutes|hours) of it training", page)
    assert "for 1 trial if none is stopped early" in page


@pytest.mark.slow
def test_a_run_goes_on_where_nothing_can_be_measured_and_asks_nothing_once_all_has_ended(
    toy: Toy, pretend: Callable[..., type], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(study: Study, room: int, ending: Callable[[], bool]) -> None:
        raise UserError(f"no abacus for {room > 0} rooms")

    fake, out, said = pretend(), tmp_path / "run", StringIO()
    monkeypatch.setattr(planning, "planned", refuse)
    monkeypatch.setattr(planning, "LEAST", 0)
    monkeypatch.setattr(runner, "Trial", fake)
    assert run(toy(seeds=1), out, console=Console(file=said, width=200), trial=fake).complete == 3
    assert "not estimated: no abacus for True rooms" in said.getvalue().splitlines()
    assert (named(out, "planned"), len(named(out, "spent"))) == ([], 1)
    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("nothing was left to run"))
    assert run(toy(seeds=1), out, trial=fake).complete == 3


def test_what_takes_no_longer_than_measuring_is_not_measured(toy: Toy) -> None:
    small = toy(seeds=1, recipe={"epochs": 1})
    macs = 3 * small.data.train * sum(row.cost.macs for row in candidates(small))
    enough = int(planning.LEAST / macs) + 1
    assert enough > 1
    assert not planning.worth(small)
    assert planning.worth(toy(seeds=1, recipe={"epochs": enough}))


def test_an_error_of_the_worker_is_told_and_waiting_has_an_end(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    study = toy()
    monkeypatch.setattr(planning.estimate, "to_measure", lambda study, rows: [{"device": "cpu"}])
    with connected(None):
        monkeypatch.setattr(planning, "LIMIT", 300.0)
        with pytest.raises(UserError, match="recipe"):  # the key that this description lacks
            planning.planned(study, 1, lambda: False)
        assert planning.planned(study, 1, lambda: True) is None
        monkeypatch.setattr(planning, "LIMIT", 0.0)
        with pytest.raises(UserError, match="measuring took more than 0 seconds"):
            planning.planned(study, 1, lambda: False)
