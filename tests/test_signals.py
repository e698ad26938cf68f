"""Eight cells of the matrix of signals; `python -m benchmarks.signals` has all hundred."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import signals

CELLS = [
    ("SIGKILL", "driver", "in an epoch"),
    ("SIGTERM", "group", "at a checkpoint"),
    ("SIGHUP", "group", "in an epoch"),
    ("SIGINT", "driver", "before the first trial"),
    ("SIGTERM", "driver", "while tables are written"),
    ("SIGKILL", "worker", "in an epoch"),
    ("SIGKILL", "raylet", "in an epoch"),
    ("SIGKILL", "gcs_server", "between trials"),
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The study in small, and the folder of a run of it that nothing disturbed."""
    folder = tmp_path_factory.mktemp("signals")
    study = signals.write_study(folder)
    signals.undisturbed(study, folder / "whole")
    return study, folder / "whole"


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS, ids=":".join)
def test_after_any_signal_the_same_command_goes_on(
    cell: tuple[str, str, str], whole: tuple[Path, Path], tmp_path: Path
) -> None:
    told = signals.run_cell(cell, *whole, tmp_path / "run")
    # That a run ends within so many seconds is for a quiet machine: the command judges it.
    wrong = [fault for fault in told["faults"] if not fault.startswith("ended after")]
    assert wrong == [], told["said"]
    assert told["hit"]


def test_every_cell_has_a_name_and_can_be_chosen(tmp_path: Path) -> None:
    assert len(signals.chosen([])) == 100
    assert signals.chosen(["SIGTERM:group:in an epoch"]) == [("SIGTERM", "group", "in an epoch")]
    assert len(signals.chosen(["SIGTERM:group", "raylet"])) == 5 + 20
    assert set(CELLS) <= set(signals.chosen([]))


def test_what_the_matrix_calls_a_fault(tmp_path: Path) -> None:
    def ended(status: int, **other: object) -> signals.Ended:
        values = {"lines": [], "hit": 1.0, "seconds": 5.0, "silence": 5.0, "left": [], **other}
        return signals.Ended(status, **values)  # type: ignore[arg-type]

    driver, worker, raylet = (("SIGTERM", target, "in an epoch") for target in ("driver", "worker", "raylet"))
    assert signals.faults(driver, ended(0), tmp_path) == ["exit status 0 instead of 130"]
    assert signals.faults(driver, ended(130, seconds=16.0), tmp_path) == ["ended after 16.0 s only"]
    assert signals.faults(("SIGKILL", *driver[1:]), ended(-9), tmp_path) == []
    assert signals.faults(worker, ended(1, lines=[(1.0, "died")]), tmp_path) == ["exit status 1 instead of 0"]
    assert signals.faults(raylet, ended(1), tmp_path) == ["does not say what died"]
    assert signals.faults(raylet, ended(0, silence=31.0, left=[5]), tmp_path) == [
        "silent for 31 s",
        "processes [5] stayed behind",
    ]
    assert signals.faults(raylet, ended(0, lines=[(1.0, "Traceback (most")]), tmp_path) == ["a traceback"]
    (tmp_path / "study.json").write_text(json.dumps({"format": 1, "name": "x", "space": {}, "data": {}, "recipe": {},
                                                    "search": {}, "seeds": [0], "objectives": {}}))  # fmt: skip
    (tmp_path / "journal.jsonl").write_text('{"kind":"event","name":"start"}\n')
    assert signals.faults(driver, ended(130), tmp_path) == [
        "the journal says 'start'",
        "the tables are not those of the journal",
    ]
