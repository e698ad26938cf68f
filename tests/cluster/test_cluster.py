"""A study on a Ray cluster that was started by hand, as the README says, with processes of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pyconv_search.results import store

ROOT = Path(__file__).parents[2]


@pytest.fixture
def address() -> Iterator[str]:
    """A head node with two CPUs on a free port, ended with everything that it started."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ray = Path(sys.executable).with_name("ray")
    command = [ray, "start", "--head", "--block", f"--port={port}", "--node-ip-address=127.0.0.1", "--num-cpus=2",
               "--include-dashboard=false", "--disable-usage-stats"]  # fmt: skip
    head = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert head.stdout is not None
    for line in head.stdout:
        if "Ray runtime started" in line:
            break
    yield f"127.0.0.1:{port}"
    os.killpg(head.pid, signal.SIGKILL)
    head.wait(20)


def test_a_study_joins_a_cluster_and_leaves_it_running(
    address: str, tiny_study: Callable[..., Path], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-m", "pyconv_search", "run", tiny_study(), "--out", folder, "--address", address],
            capture_output=True, text=True, cwd=ROOT, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    assert [row.status for row in store.read(folder).rows] == ["complete", "complete"]
    host, port = address.split(":")
    socket.create_connection((host, int(port)), timeout=5).close()
