"""``status``: what it prints of a run, once and watched, without torch, Ray or Optuna."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pyconv_search.results.row import Row
from pyconv_search.results.store import Journal

ROOT = Path(__file__).parents[2]
STUDY = {
    "format": 1, "name": "example", "space": {"name": "s"}, "data": {"name": "d"}, "recipe": {"epochs": 3},
    "search": {"kind": "grid"}, "seeds": [0, 1], "objectives": {"top1_error": "min"}, "planned": 4,
}  # fmt: skip
BEGIN = {"trial": "t1", "network": "wide [4,3]", "config": "c", "seed": 1, "macs": 20, "epochs": 3}
# Each line that it reads is done, and answered when the journal has it.
RUN = """
import sys
from pyconv_search.results.row import Epoch, Row
from pyconv_search.results.store import Journal
with Journal(sys.argv[1]) as journal:
    journal.append_event("start", time="2026-01-02T03:04:05+00:00")
    for line in sys.stdin:
        exec(line)
        print("done", flush=True)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "study.json").write_text(json.dumps(STUDY))
    return tmp_path


class Run:
    """A process that writes to the folder's journal what it is asked to."""

    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", RUN, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.do("pass")

    def do(self, line: str) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(20)


@pytest.fixture
def run(folder: Path) -> Iterator[Run]:
    found = Run(folder)
    yield found
    found.kill()


EPOCH = "journal.append_epoch(Epoch('t1', {}, 0.1, 1.0, 50.0, 1.0, 30.0, 10.0, 2.0))"
ROW = (
    "journal.append_row(Row('t0', 'a', 'narrow', 0, 'complete', '', '', 3, {}, 1, 20, 1, 1, val_top1_error=22.3, "
    "config='c'))"
)


def test_a_running_and_a_killed_run(folder: Path, run: Run, command: Callable[..., tuple[int, str, str]]) -> None:
    run.do(ROW)
    run.do(f"journal.append_begin(**{BEGIN})")
    run.do(EPOCH.format(1))
    _, said, _ = command("status", folder)
    first, *lines = said.splitlines()
    where = f"process {run.process.pid} on {os.uname().nodename}"
    assert first.startswith(f"example: running since 2026-01-02 03:04:05 UTC, {where}; last record ")
    assert lines[0] == "1 of 4 trials ended: 1 complete, 0 stopped, 0 failed, 1 running"
    assert lines[1] == "best so far: validation top-1 error 22.30 %, narrow (seed 0)"
    assert lines[2].endswith(" left at the pace so far")
    assert lines[-1] == "  running: wide [4,3] (seed 1), epoch 1 of 3, validation top-1 error 30.00 %"
    as_json = json.loads(command("status", folder, "--json")[1])
    assert (as_json["state"], as_json["process"], as_json["complete"]) == ("running", str(run.process.pid), 1)
    assert as_json["best"] == {"trial": "t0", "name": "narrow", "seed": 0, "measure": "top1_error", "value": 22.3}
    assert [(t["name"], t["epoch"], t["epochs"]) for t in as_json["running"]] == [("wide [4,3]", 1, 3)]
    assert as_json["seconds_left"] > 0
    run.kill()
    _, said, _ = command("status", folder)
    first, *lines = said.splitlines()
    assert first.startswith(f"example: killed: {where} has ended without a word; last record 20")
    assert lines[0] == "1 of 4 trials ended: 1 complete, 0 stopped, 0 failed"
    assert lines[-1].startswith("  cut short: wide [4,3] (seed 1), epoch 1 of 3")
    assert json.loads(command("status", folder, "--json")[1])["running"] == []


def test_of_many_trials_the_first_are_shown(folder: Path, command: Callable[..., tuple[int, str, str]]) -> None:
    with Journal(folder) as journal:
        journal.append_event("start")
        for n in range(43):
            journal.append_begin(**{**BEGIN, "trial": f"t{n}"})
        _, said, _ = command("status", folder)
        assert said.count("\n  running: wide") == 40
        assert said.splitlines()[-1] == "  running: 3 more (--json)"
        assert len(json.loads(command("status", folder, "--json")[1])["running"]) == 43


def test_of_many_failures_the_first_are_shown_in_a_line_each(
    folder: Path, command: Callable[..., tuple[int, str, str]]
) -> None:
    (folder / "study.json").write_text(json.dumps(STUDY | {"seeds": list(range(43)), "planned": 43}))
    with Journal(folder) as journal:
        journal.append_event("start")
        for n in range(43):
            detail = f"ValueError: {n}\n  File train.py\n  line 3"
            journal.append_row(Row(f"t{n}", "a", "wide", n, "failed", "error", detail, 1, {}, 1, 1, 1, 1))
    _, said, _ = command("status", folder)
    assert said.count("\n  failed: wide (seed ") == 40
    assert "\n  failed: wide (seed 7): error: ValueError: 7\n" in said
    assert said.splitlines()[-1] == "  failed: 3 more (--json)"
    failures = json.loads(command("status", folder, "--json")[1])["failures"]
    assert [failure["seed"] for failure in failures] == list(range(43))
    assert failures[7]["detail"] == "ValueError: 7\n  File train.py\n  line 3"


@pytest.fixture
def watching(folder: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    found = []

    def start(*words: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "pyconv_search", "status", folder, "--watch", "--every", "0.1", *words],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        )  # fmt: skip
        found.append(process)
        return process

    yield start
    for process in found:
        process.kill()
        process.wait(20)


def lines(process: subprocess.Popen[str]) -> Iterator[dict[str, Any]]:
    assert process.stdout is not None
    yield from map(json.loads, process.stdout)


def test_watched_until_it_ends(run: Run, watching: Callable[..., subprocess.Popen[str]]) -> None:
    """Each change once; the process that watches ends by itself, with status 0, when the run does."""
    process = watching("--json")
    seen = lines(process)
    assert next(seen)["running"] == []
    run.do(f"journal.append_begin(**{BEGIN})")
    while not (found := next(seen))["running"]:
        pass
    assert found["running"][0]["epoch"] == 0
    run.do(EPOCH.format(1))
    while not (found := next(seen))["running"][0]["epoch"]:
        pass
    run.kill()
    assert [found["state"] for found in seen][-1] == "killed"
    assert process.wait(60) == 0


def test_ctrl_c_leaves(run: Run, watching: Callable[..., subprocess.Popen[str]]) -> None:
    process = watching()
    assert process.stdout is not None
    assert process.stdout.readline().startswith("example: running")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors.strip()) == (0, "")
    assert run.process.poll() is None


def test_a_run_that_has_ended_is_not_watched(folder: Path, watching: Callable[..., subprocess.Popen[str]]) -> None:
    with Journal(folder) as journal:
        journal.append_event("start")
        journal.append_event("finished", time="2026-01-02T03:04:05+00:00")
    said, _ = watching().communicate(timeout=60)
    assert said.startswith("example: finished 2026-01-02 03:04:05 UTC\n")


def test_it_needs_neither_torch_nor_ray_nor_optuna() -> None:
    code = (
        "import sys; from pyconv_search.cli import main; sys.argv = ['', 'status', 'reports/quickstart']\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print(sorted({'torch', 'ray', 'optuna'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
