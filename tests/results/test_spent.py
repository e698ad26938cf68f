"""What a run has spent, against sums by hand."""

from __future__ import annotations

import json
from pathlib import Path

from pyconv_search.report.hours import hours_of
from pyconv_search.results import store
from pyconv_search.results.row import Epoch
from pyconv_search.results.spent import is_planned, spent

STUDY = {
    "format": 1,
    "name": "s",
    "space": {},
    "data": {"name": "d", "train": 1000},
    "recipe": {},
    "search": {},
    "seeds": [0],
    "objectives": {},
    "resources": {"cpu": 4, "gpu": 0},
}
PLANNED = {
    "device_seconds": 7200.0,
    "wall_seconds": 3600.0,
    "concurrent": 2,
    "trials": 6,
    "unit": "core",
    "device": "abacus",
    "measured": [{"name": "a"}, {"name": "b"}],
}


def epoch(trial: str, number: int, seconds: float, rate: float) -> Epoch:
    return Epoch(trial, number, 0.1, 1.0, 50.0, 1.0, 50.0, 5.0, seconds, rate)


def folder(path: Path, **changes: object) -> Path:
    (path / "study.json").write_text(json.dumps({**STUDY, **changes}))
    return path


def test_epochs_times_devices(tmp_path: Path) -> None:
    with store.Journal(folder(tmp_path)) as journal:
        journal.append_event("start")
        for one in (epoch("a", 1, 9.0, 125.0), epoch("a", 1, 7.0, 200.0), epoch("b", 1, 30.0, 50.0)):
            journal.append_epoch(one)
    found = spent(store.read(tmp_path))
    assert (found.training, found.everything, found.unit) == (4 * (5 + 20), 4 * (7 + 30), "core")
    share = spent(store.read(folder(tmp_path, resources={"cpu": 4, "gpu": 0.25})))
    assert (share.everything, share.unit) == (0.25 * 37, "GPU")
    older = spent(store.read(folder(tmp_path, data={"name": "d"})))
    assert (older.training, older.everything) == (0, 4 * 37)


def test_the_words_and_the_last_plan(tmp_path: Path) -> None:
    with store.Journal(folder(tmp_path)) as journal:
        assert hours_of(store.read(tmp_path)) == {}
        assert not is_planned(store.read(tmp_path), 0)
        journal.append_event("start")
        journal.append_event("planned", **{**PLANNED, "trials": 3})
        journal.append_event("planned", **PLANNED)
        assert store.read(tmp_path).state == "start"
        assert is_planned(store.read(tmp_path), 6)
        assert not is_planned(store.read(tmp_path), 3)
        journal.append_epoch(epoch("a", 1, 450.0, 2.5))
        journal.append_event("interrupted")
        journal.append_event("spent")
    found = store.read(tmp_path)
    assert found.state == "interrupted"
    assert hours_of(found) == {
        "planned": "2.00 core-hours, 1 h 00 min with 2 trials at a time, for 6 trials if none is stopped early or slows "
        "another (measured on abacus: a and b)",
        "spent": "30.0 core-minutes, 25 % of the plan; 26.7 core-minutes of it training, the rest validation",
    }
