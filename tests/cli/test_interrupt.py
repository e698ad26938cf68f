"""Signals to the command before it has begun anything: no traceback, and the same command goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def listens_to(pid: int, number: int) -> bool:
    """Whether the process has a handler for the signal."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    caught = next(line.split()[1] for line in lines if line.startswith("SigCgt:"))
    return bool(int(caught, 16) >> (number - 1) & 1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_before_the_run_begins(
    number: signal.Signals, tiny_study: Callable[..., Path], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    with subprocess.Popen(
        [sys.executable, "-m", "pyconv_search", "run", str(tiny_study()), "--out", str(folder)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, start_new_session=True,
    ) as process:  # fmt: skip
        while not listens_to(process.pid, number):
            assert process.poll() is None
            time.sleep(0.01)
        os.killpg(process.pid, number)
        out, err = process.communicate(timeout=300)
    assert process.returncode == 130
    assert (out, err.splitlines()[-1]) == ("", "interrupted; the same command goes on")
    assert "Traceback" not in err
    assert not folder.exists()


def test_a_command_that_ignores_hangups_goes_on(tiny_study: Callable[..., Path], tmp_path: Path) -> None:
    """As under nohup: the signal that it ignored before is not made to end it."""
    with subprocess.Popen(
        [sys.executable, "-m", "pyconv_search", "run", str(tiny_study()), "--out", str(tmp_path / "run")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    ) as process:  # fmt: skip
        while not listens_to(process.pid, signal.SIGTERM):
            assert process.poll() is None
            time.sleep(0.01)
        assert not listens_to(process.pid, signal.SIGHUP)
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=300)
    assert process.returncode == 130
    assert "Traceback" not in err
