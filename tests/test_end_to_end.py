"""The whole way with the real thing: real networks on real images, Ray, the command line, kill -9, the report."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pyconv_search.results import store
from pyconv_search.results.row import Epoch, Row
from pyconv_search.search.trial import run_trial
from pyconv_search.study.plan import candidates, trial_spec
from pyconv_search.study.study import load_study

ROOT = Path(__file__).parents[1]
CLOCK = ("seconds", "train_seconds", "images_per_second", "peak_memory", "started", "finished", "resumed")


def command(study: Path, folder: Path) -> list[str]:
    return [sys.executable, "-m", "pyconv_search", "run", str(study), "--out", str(folder)]


def numbers(record: Row | Epoch) -> dict[str, Any]:
    """All of a record that does not come from a clock."""
    return {name: value for name, value in asdict(record).items() if name not in CLOCK}


def rows_of(folder: Path) -> dict[str, dict[str, Any]]:
    return {row.trial: numbers(row) for row in store.read(folder).rows}


def wait_for_epochs(folder: Path, n: int, process: subprocess.Popen[str]) -> None:
    for _ in range(1200):
        journal = folder / "journal.jsonl"
        if journal.exists() and journal.read_text().count('"kind":"epoch"') >= n:
            return
        if process.poll() is not None:
            break
        time.sleep(0.05)
    pytest.fail(f"no {n} epochs: {process.communicate()}")


@pytest.mark.slow
def test_killed_twice_and_interrupted_gives_what_an_undisturbed_run_gives(
    tiny_study: Callable[..., Path], tmp_path: Path
) -> None:
    study = tiny_study(seeds=2, recipe={"epochs": 3, "batch": 128, "augment": {"crop": 2, "flip": True}})
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    done = subprocess.run(command(study, whole), capture_output=True, text=True, cwd=ROOT, check=True, timeout=600)
    assert Path(done.stdout.strip()) == (whole / "report.html").resolve()
    assert "4/4 trials" in done.stderr

    for n, number in ((2, signal.SIGKILL), (5, signal.SIGKILL), (8, signal.SIGINT)):
        process = subprocess.Popen(
            command(study, broken), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
        )
        wait_for_epochs(broken, n, process)
        os.kill(process.pid, number)
        _, err = process.communicate(timeout=120)
        assert process.returncode == (130 if number == signal.SIGINT else -number)
    assert "the same command goes on" in err
    assert "Traceback" not in err
    subprocess.run(command(study, broken), capture_output=True, text=True, cwd=ROOT, check=True, timeout=600)

    rows = [line for line in (broken / "journal.jsonl").read_text().splitlines() if '"kind":"row"' in line]
    assert len(rows) == 4
    assert rows_of(broken) == rows_of(whole)
    assert [numbers(e) for e in sorted_epochs(broken)] == [numbers(e) for e in sorted_epochs(whole)]
    assert any(row.resumed for row in store.read(broken).rows)
    assert list((broken / "checkpoints").iterdir()) == []

    loaded = load_study(study)
    spec = trial_spec(loaded, candidates(loaded)[1], 1, None)
    assert numbers(run_trial(spec)) == rows_of(whole)[spec["trial"]]

    table = pd.read_parquet(whole / "rows.parquet")
    assert set(table["status"]) == {"complete"}
    assert set(table["parameter.levels"]) == {"[1,1,1]", "[2,2,1]"}
    assert table["test_top1_error"].between(5, 60).all()
    page = (whole / "report.html").read_text()
    assert all(row.arch_id[:8] in page for row in store.read(whole).rows)


def sorted_epochs(folder: Path) -> list[Epoch]:
    return sorted(store.read(folder).epochs, key=lambda e: (e.trial, e.epoch))
