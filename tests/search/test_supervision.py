"""What is supervised may use Ray as it is: it takes SIGTERM, does not return, or loses its processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from rich.console import Console

from pyconv_search.search.interrupts import Interrupts
from pyconv_search.search.supervision import Supervisor

# A process of its own: a signal goes to any thread that does not block it, of which this one may have some.
PROGRAM = """
import ctypes, io, os, signal, sys, time
from types import SimpleNamespace
from rich.console import Console
from pyconv_search.search import interrupts, supervision

said = io.StringIO()
run = SimpleNamespace(abort="", close=lambda: None, stage=lambda: "", name_of=str)
run.places = SimpleNamespace(ray_ends=lambda: None, kill_all=lambda: None, stalled=lambda: [])

def job():
    "As Ray: what it takes at its start, and leaves at its end."
    ctypes.CDLL(None).signal(signal.SIGTERM, 0)
    if sys.argv[1] == "at once":
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(300 * (sys.argv[2] == "for ever"))
    else:
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGTERM)
        until = time.monotonic() + 300
        while not heard.received and time.monotonic() < until:
            time.sleep(0.01)
    ctypes.CDLL(None).signal(signal.SIGTERM, 0)

supervision.LEAVE_SECONDS = 0.5
with interrupts.heard() as heard, heard.orderly():
    supervisor = supervision.Supervisor(run, heard, Console(file=said), None, SimpleNamespace(bound=lambda: None))
    supervisor.run(job)
    assert heard.received == "SIGTERM", heard.received
    os.kill(os.getpid(), signal.SIGTERM)  # Once more within a second: it is ours again, and counts as the same.
    print(supervision.abandoned(), "the run ends in order" in said.getvalue())
"""


@pytest.mark.parametrize(
    ("when", "how_long", "printed"),
    [("at once", "shortly", "False"), ("later", "shortly", "False"), ("at once", "for ever", "True")],
)
def test_sigterm_ends_in_order_although_ray_takes_it(when: str, how_long: str, printed: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, when, how_long],
        capture_output=True,
        text=True,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[0] == printed


def test_what_ends_on_purpose_has_not_died(tmp_path: Path) -> None:
    (tmp_path / "raylet").symlink_to("/bin/true")
    leader = subprocess.Popen([str(tmp_path / "raylet")])
    leader.wait()
    guard: Any = SimpleNamespace(leaders=[leader], ending=True, folder=None)
    run: Any = SimpleNamespace(abort="")
    supervisor = Supervisor(run, Interrupts(), Console(), guard, cast(Any, None))
    assert not supervisor._bereft()
    guard.ending = False
    assert supervisor._bereft()
    assert run.abort.startswith("Ray's raylet, the process that runs the workers of this machine, died (exit status 0)")


BEREFT = """
import os, threading, time
from pyconv_search.search.connection import connected
from pyconv_search.search.sessions import Guard

def job():
    with connected(None, guard):
        ready.set()
        time.sleep(300)

guard, ready = Guard(), threading.Event()
threading.Thread(target=job, daemon=True).start()
ready.wait()
assert guard.folder.exists()
guard.close()
assert not guard.folder.exists()
time.sleep(75)
os._exit(7)
"""


@pytest.mark.slow
def test_there_is_time_to_write_after_the_end_of_a_gcs() -> None:
    """By itself Ray ends the process after a minute."""
    assert subprocess.run([sys.executable, "-c", BEREFT], capture_output=True).returncode == 7
