"""The processes and machines that a run depends on: which have died, in a sentence each."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ray

PARTS = {
    "gcs_server": "Ray's GCS, the process that all others report to,",
    "raylet": "Ray's raylet, the process that runs the workers of this machine,",
}
PROBE_SECONDS = 3.0
PROBES = 4


def died(leaders: Sequence[subprocess.Popen[Any]]) -> str:
    """Which process of a Ray of our own has died, and how; empty while all live."""
    for leader in list(leaders):
        name = Path(str(leader.args[0] if isinstance(leader.args, (list, tuple)) else leader.args)).name
        if name in PARTS and leader.poll() is not None:
            return f"{PARTS[name]} died ({_how(leader.returncode)})"
    return ""


def logs(folder: Path) -> list[Path]:
    """What these processes have written, where ``folder`` is the one that Ray's stands in."""
    return [log for part in PARTS for log in sorted(folder.glob(f"*/session_2*/logs/{part}.*"))]


def _how(status: int) -> str:
    with contextlib.suppress(ValueError):
        if status < 0:
            return signal.Signals(-status).name
    return f"exit status {status}"


class ClusterWatch:
    """Looks after the GCS, and the machines of a cluster that was joined, in threads; ``say`` is given a sentence.

    Ray is asked over the network and may not answer: nothing here may hold up the run. ``lost`` says what has died
    without which the run cannot go on.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self.lost = ""
        self._say = say
        self._over, self._asking = threading.Event(), threading.Lock()
        self._alive: dict[str, str] = {}

    def begin(self, joined: bool = True) -> None:
        """Look after the cluster from now on; of a Ray of our own, after its GCS, which can live and serve no more."""
        address = str(ray.get_runtime_context().gcs_address)
        own = str(ray.get_runtime_context().get_node_id())
        whose = f"the cluster's head at {address}" if joined else PARTS["gcs_server"]
        works: list[Callable[[], None]] = [lambda: self._probe(address, f"{whose} no longer answers")]
        if joined:
            works.append(lambda: self._machines(own))
        for work in works:
            threading.Thread(target=work, daemon=True).start()

    def end(self) -> None:
        """Look no longer. Ray, which is ended next, must not be asked then; whether it answers now is not certain."""
        self._over.set()
        if self._asking.acquire(timeout=PROBE_SECONDS):
            self._asking.release()

    def _probe(self, address: str, silent: str) -> None:
        host, _, port = address.rpartition(":")
        misses = 0
        while not self._over.wait(PROBE_SECONDS):
            try:
                socket.create_connection((host.strip("[]"), int(port)), timeout=PROBE_SECONDS).close()
                misses = 0
            except OSError:
                misses += 1
            if misses >= PROBES:
                self.lost = silent

    def _machines(self, own: str) -> None:
        while not self._over.wait(PROBE_SECONDS):
            try:
                with self._asking:
                    nodes = ray.nodes() if ray.is_initialized() and not self._over.is_set() else []
            except Exception:  # The probe says what is wrong, if it lasts.
                continue
            if nodes and not self._over.is_set():
                self._compare(nodes, own)

    def _compare(self, nodes: Sequence[dict[str, Any]], own: str) -> None:
        alive = {node["NodeID"]: str(node["NodeManagerAddress"]) for node in nodes if node["Alive"]}
        for node, place in self._alive.items():
            if node in alive:
                continue
            if node == own:
                self.lost = f"Ray on this machine ({place}) no longer belongs to the cluster"
            else:
                self._say(
                    f"the machine {place} has left the cluster; its trials go on elsewhere from their checkpoints, "
                    f"{len(alive)} machines remain"
                )
        self._alive = alive
