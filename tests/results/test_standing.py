"""How a run stands: its state by the lock, what is under way by the journal, and the time left by arithmetic."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pyconv_search.errors import UserError
from pyconv_search.results import store
from pyconv_search.results.row import Epoch, Row
from pyconv_search.results.standing import best_so_far, effort_left, standing
from pyconv_search.results.store import JOURNAL, LOCK, STUDY, Journal
from pyconv_search.search.folder import noted_end

HOLD = "import sys, time\nfrom pyconv_search.results.store import Journal\nwith Journal(sys.argv[1]) as journal:\n"


@pytest.fixture
def holding(folder: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a process that holds the folder's journal, has written some events, and waits."""
    found = []

    def start(*events: str) -> subprocess.Popen[str]:
        lines = "".join(f"    journal.append_event({event!r}, time='2026-01-02T03:04:05+00:00')\n" for event in events)
        code = HOLD + lines + "    print('held', flush=True)\n    time.sleep(600)\n"
        process = subprocess.Popen([sys.executable, "-c", code, folder], stdout=subprocess.PIPE, text=True)
        found.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in found:
        process.kill()
        process.wait(20)


def begin(journal: Journal, trial: str, **changes: Any) -> None:
    facts = {"trial": trial, "network": f"net {trial}", "config": "c", "seed": 0, "macs": 20, "epochs": 3}
    journal.append_begin(**(facts | changes))


def study(folder: Path, **changes: Any) -> None:
    values = json.loads((folder / STUDY).read_text())
    (folder / STUDY).write_text(json.dumps(values | changes))


def test_a_process_that_holds_the_folder_runs_until_it_is_killed(
    folder: Path, holding: Callable[..., subprocess.Popen[str]]
) -> None:
    process = holding("start")
    now = standing(store.read(folder))
    assert (now.state, now.process, now.host) == ("running", str(process.pid), os.uname().nodename)
    assert now.since == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    copy = folder.with_name("copy")
    shutil.copytree(folder, copy)
    there = standing(store.read(copy))
    assert (there.state, there.certain) == ("killed", False)
    process.send_signal(signal.SIGKILL)
    process.wait(20)
    now = standing(store.read(folder))
    assert (now.state, now.process, now.certain) == ("killed", str(process.pid), True)
    (folder / LOCK).write_text("1 on another-machine\n")
    assert (standing(store.read(folder)).state, standing(store.read(folder)).certain) == ("killed", False)


@pytest.mark.parametrize(
    ("events", "state"),
    [((), "not started"), (("start", "interrupted"), "interrupted"), (("start", "spent", "finished"), "finished")],
)
def test_what_ended_in_order(folder: Path, events: tuple[str, ...], state: str) -> None:
    with Journal(folder) as journal:
        for event in events:
            journal.append_event(event, time="2026-01-02T03:04:05+00:00")
        assert standing(store.read(folder)).state == "running"  # by this process, which flock tells from another handle
    now = standing(store.read(folder))
    assert (now.state, now.process, now.running) == (state, "", ())
    (folder / LOCK).unlink()
    assert standing(store.read(folder)).state == state


def fail(journal: Journal, error: BaseException) -> None:
    journal.append_event("start")
    raise error


def test_an_error_is_told_as_what_it_was(folder: Path) -> None:
    for error, state, reason in (
        (UserError("disk full"), "aborted", "disk full"),
        (RuntimeError("x"), "aborted", "RuntimeError: x"),
        (KeyboardInterrupt(), "interrupted", ""),
    ):
        with pytest.raises(type(error)), Journal(folder) as journal, noted_end(journal):
            fail(journal, error)
        now = standing(store.read(folder))
        assert (now.state, now.reason, now.since is not None) == (state, reason, True)


def test_a_look_never_keeps_a_run_from_starting(folder: Path) -> None:
    """``status`` holds the lock for an instant; a run that starts in it waits, and refuses only a lock that is kept."""
    handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT)
    fcntl.flock(handle, fcntl.LOCK_SH)
    threading.Timer(0.06, lambda: fcntl.flock(handle, fcntl.LOCK_UN)).start()
    Journal(folder).close()
    fcntl.flock(handle, fcntl.LOCK_SH)
    with pytest.raises(UserError, match="another run is writing here"):
        Journal(folder)
    os.close(handle)


def test_what_is_under_way(folder: Path, make_row: Callable[..., Row], make_epoch: Callable[..., Epoch]) -> None:
    with Journal(folder) as journal:
        journal.append_event("start")
        begin(journal, "left")
        journal.append_epoch(make_epoch("left", 1))
        begin(journal, "failed")
        journal.append_row(make_row("failed", status="failed", reason="error", epochs=1))
        journal.append_event("interrupted")
        journal.append_event("start")
        begin(journal, "a", network="größe", seed=1, epochs=9)
        begin(journal, "ended")
        journal.append_epoch(make_epoch("a", 1))
        journal.append_row(make_row("ended"))
        journal.append_epoch(make_epoch("a", 2, val_top1_error=47.0))
        begin(journal, "failed")  # tried again, and has a row of its first end
        now = standing(store.read(folder))
        assert [(each.trial, each.name, each.seed, each.epoch, each.epochs, each.value) for each in now.running] == [
            ("a", "größe", 1, 2, 9, 47.0),
            ("failed", "net failed", 0, 0, 3, None),
        ]
        assert [(each.trial, each.epoch) for each in now.unfinished] == [("left", 1)]
    assert [each.trial for each in standing(store.read(folder)).unfinished] == ["left", "a", "failed"]


def test_what_has_left_the_study_is_not_under_way(
    folder: Path, make_row: Callable[..., Row], make_epoch: Callable[..., Epoch]
) -> None:
    """Neither ended trials of networks that were taken out, nor begun ones, nor their seeds."""
    with Journal(folder) as journal:
        journal.append_event("start")
        for trial, config, seed in (("a", "kept", 0), ("b", "gone", 0), ("c", "kept", 7)):
            begin(journal, trial, config=config, seed=seed)
            journal.append_epoch(make_epoch(trial, 1))
            journal.append_epoch(make_epoch(f"ended-{trial}", 1))
            journal.append_row(make_row(f"ended-{trial}", config=config, seed=seed))
        study(folder, networks=["kept"])
        assert [each.trial for each in standing(store.read(folder)).running] == ["a"]


def test_a_folder_of_an_older_version(folder: Path, make_epoch: Callable[..., Epoch]) -> None:
    """Which noted no beginnings and no times."""
    with Journal(folder) as journal:
        journal.append_event("start")
        journal.append_epoch(make_epoch("0123456789abcdef", 2))
        now = standing(store.read(folder))
        assert (now.state, now.since, now.seconds_left, now.running) == ("running", None, None, ())
        assert [(each.trial, each.name, each.epoch, each.epochs) for each in now.unfinished] == [
            ("0123456789abcdef", "", 2, 0)
        ]


def test_an_event_that_begins_nothing_is_damage(folder: Path) -> None:
    for broken in ('{"kind":"event","name":"begin"}', '{"kind":"event","name":"begin","trial":["a"],"seed":0}'):
        (folder / JOURNAL).write_text(broken + "\n")
        with pytest.raises(UserError, match=r"journal.jsonl:1: damaged line: trial must be str"):
            store.read(folder)


def test_the_time_left(folder: Path, make_row: Callable[..., Row], make_epoch: Callable[..., Epoch]) -> None:
    """By hand: 100 s for 2 × 1,000 + 1 × 4,000; to do: 2 × 4,000, and two trials of (3,000 + 12,000) / 2."""
    study(folder, planned=4)
    start = (datetime.now(UTC) - timedelta(seconds=100)).isoformat()
    with Journal(folder) as journal:
        journal.append_event("start", time="2020-01-01T00:00:00+00:00")
        journal.append_epoch(make_epoch("t", 1))  # in an earlier run: it does not count for the pace
        journal.append_event("start", time=start)
        assert standing(store.read(folder)).seconds_left is None
        begin(journal, "big", macs=4000)
        for trial, epoch in (("t", 2), ("t", 3), ("big", 1)):
            journal.append_epoch(make_epoch(trial, epoch))
        journal.append_row(make_row("t", macs=1000, epochs=3))
        left = standing(store.read(folder)).seconds_left
        assert left == pytest.approx(100 * (2 * 4000 + 2 * 7500) / 6000, rel=0.05)
        journal.append_event("interrupted", time=start)
    assert standing(store.read(folder)).seconds_left is None


def test_effort_is_counted_by_brute_force() -> None:
    """Two ended trials of 5 × 2 and 7 × 3, one of 40 of which 10 is done, two that wait, of 8 and 9."""
    ended = (2, 5 * 2 + 7 * 3)
    assert effort_left(3, ended, (), (0, 0)) == (5 * 2 + 7 * 3) / 2
    assert effort_left(5, ended, ((40, 10),), (2, 8 + 9)) == 30 + 17
    assert effort_left(6, ended, ((40, 10),), (2, 8 + 9)) == 30 + 17 + (10 + 21 + 40) / 3
    assert effort_left(2, (0, 0), (), (0, 0)) == 0


def test_the_best_follows_the_studys_measure(folder: Path, make_row: Callable[..., Row]) -> None:
    rows = [
        make_row("a", val_top1_error=3.0, val_loss=0.5),
        make_row("b", val_top1_error=2.0, val_loss=0.6),
        make_row("c", val_top1_error=1.0, val_loss=0.1, status="stopped", reason="scheduler"),
        make_row("d", val_top1_error=None, val_loss=None),
        make_row("gone", val_top1_error=0.1, val_loss=0.1, config="gone"),
    ]
    assert best_so_far(()) is None
    with Journal(folder) as journal:
        for row in rows:
            journal.append_row(row)
    study(folder, networks=["ab" * 32])
    assert (best := standing(store.read(folder)).best) is not None
    assert best.trial == "b"
    study(folder, networks=["ab" * 32], objectives={"gmacs": "min", "loss": "min"})
    assert (best := standing(store.read(folder)).best) is not None
    assert best.trial == "a"


def test_looking_does_not_write(folder: Path) -> None:
    Journal(folder).close()
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    time.sleep(0.01)
    folder.chmod(0o555)
    try:
        assert standing(store.read(folder)).state == "not started"
    finally:
        folder.chmod(0o755)
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before
