"""What has died, in a sentence: processes of a Ray of our own, and machines of a cluster."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from pyconv_search.search import noise, watch
from pyconv_search.search.watch import ClusterWatch, died


def named(folder: Path, name: str) -> subprocess.Popen[bytes]:
    """A process whose program has this name."""
    (folder / name).symlink_to(sys.executable)
    return subprocess.Popen([str(folder / name), "-c", "import time; time.sleep(300)"])


def test_a_part_of_ray_that_died_is_named_and_others_do_not_matter(tmp_path: Path) -> None:
    leaders = [named(tmp_path, name) for name in ("gcs_server", "log_monitor", "raylet")]
    assert died(leaders) == ""
    leaders[1].kill()
    leaders[1].wait()
    assert died(leaders) == ""
    leaders[2].send_signal(signal.SIGTERM)
    leaders[2].wait()
    assert died(leaders) == "Ray's raylet, the process that runs the workers of this machine, died (SIGTERM)"
    leaders[0].kill()
    leaders[0].wait()
    assert "GCS" in died(leaders)


def test_what_ray_wrote_at_last_is_kept_for_the_run(tmp_path: Path) -> None:
    written = tmp_path / "r" / "session_2026-11-30_18-15-52_216129_41" / "logs"
    written.mkdir(parents=True)
    (written.parent.parent / "session_latest").symlink_to(written.parent)
    (written / "raylet.err").write_bytes(b"x" * 100_000 + b"out of it")
    (written / "gcs_server.out").write_text("gone")
    (written / "monitor.log").write_text("no part of it")
    reading, writing = os.pipe()
    drain = noise.Drain(tmp_path / "run" / "logs" / "ray.log", (writing,))
    (tmp_path / "run").mkdir()
    drain.open()
    drain.add([*watch.logs(tmp_path), tmp_path / "none"])
    found = (tmp_path / "run" / "logs" / "ray.log").read_text()
    assert found.startswith("== the end of gcs_server.out\ngone\n== the end of raylet.err\nx")
    assert found.endswith("xout of it\n")
    assert 16_000 < len(found) < 17_000
    os.close(reading)
    os.close(writing)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let Ray say which machines live."""

    def say(**machines: bool) -> None:
        nodes = [{"NodeID": n, "NodeManagerAddress": f"10.0.0.{n[1:]}", "Alive": up} for n, up in machines.items()]
        monkeypatch.setattr(ray, "nodes", lambda: nodes)
        monkeypatch.setattr(ray, "is_initialized", lambda: True)

    return say


def context(address: str) -> Any:
    return lambda: SimpleNamespace(gcs_address=address, get_node_id=lambda: "n1")


def test_a_machine_that_leaves_is_a_sentence_and_ours_is_the_end(
    cluster: Callable[..., None], monkeypatch: pytest.MonkeyPatch, wait_for: Callable[..., None]
) -> None:
    monkeypatch.setattr(watch, "PROBE_SECONDS", 0.02)
    said: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as head:
        monkeypatch.setattr(ray, "get_runtime_context", context(f"127.0.0.1:{head.getsockname()[1]}"))
        cluster(n1=True, n2=True, n3=False)
        found = ClusterWatch(said.append)
        found.begin()
        wait_for(lambda: len(found._alive) == 2)
        cluster(n1=True, n2=False, n3=True)
        wait_for(lambda: bool(said))
        assert said == [
            "the machine 10.0.0.2 has left the cluster; its trials go on elsewhere from their checkpoints, "
            "2 machines remain"
        ]
        assert found.lost == ""
        cluster(n1=False, n3=True)
        wait_for(lambda: bool(found.lost))
        assert found.lost == "Ray on this machine (10.0.0.1) no longer belongs to the cluster"
        found.end()


@pytest.mark.parametrize("joined", [True, False])
def test_a_head_that_no_longer_answers_is_the_end(
    joined: bool, cluster: Callable[..., None], monkeypatch: pytest.MonkeyPatch, wait_for: Callable[..., None]
) -> None:
    """As a GCS does after SIGTERM: it lives on, and serves no more."""
    monkeypatch.setattr(watch, "PROBE_SECONDS", 0.02)
    cluster(n1=True)
    with socket.create_server(("127.0.0.1", 0)) as head:
        address = f"127.0.0.1:{head.getsockname()[1]}"
    monkeypatch.setattr(ray, "get_runtime_context", context(address))
    found = ClusterWatch(lambda line: None)
    found.begin(joined)
    wait_for(lambda: bool(found.lost))
    whose = f"the cluster's head at {address}" if joined else "Ray's GCS, the process that all others report to,"
    assert found.lost == f"{whose} no longer answers"
    found.end()
