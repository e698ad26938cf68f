"""The Ray that a run starts on this machine: reached by nobody else, in a folder that sockets fit in, with our cores."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from pyconv_search.cores import usable_cores
from pyconv_search.errors import UserError
from pyconv_search.search import connection, local, probe
from pyconv_search.search.connection import connected
from pyconv_search.study.study import Resources

ROOT = Path(__file__).parents[2]
ONE_CORE = {min(os.sched_getaffinity(0))} if hasattr(os, "sched_getaffinity") else set()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Let Ray only note what it is started with."""
    noted: dict[str, Any] = {}
    monkeypatch.setattr(ray, "init", lambda **arguments: noted.update(arguments, environment=dict(os.environ)))
    return noted


def test_what_ray_is_started_with(asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "usable_cores", lambda: 3)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # of a cluster that is joined at other times
    before = dict(os.environ)
    with connected(None):
        folder = Path(asked["_temp_dir"])
        assert folder.parent.stat().st_mode & 0o777 == 0o700
    assert (asked["num_cpus"], asked["include_dashboard"], asked["address"]) == (3, False, "local")
    first = asked["environment"]
    assert (first["RAY_AUTH_MODE"], len(first["RAY_AUTH_TOKEN"])) == ("token", 64)
    assert not folder.parent.exists()
    with connected(None):
        pass
    assert asked["environment"]["RAY_AUTH_TOKEN"] != first["RAY_AUTH_TOKEN"]
    assert dict(os.environ) == before


@pytest.mark.parametrize(
    "error",
    [
        Exception("The current node timed out during startup."), RuntimeError("a"), KeyError("getpwuid(): uid not found"),
        ray.exceptions.AuthenticationError("Token authentication is enabled but"), AssertionError(), SystemExit(1),
        PermissionError(errno.EACCES, "Permission denied", "/.ray"), TypeError("x\ny"), MemoryError(),
    ],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
@pytest.mark.parametrize("address", [None, "127.0.0.1:6379"])
def test_whatever_ray_raises_is_one_line(
    error: BaseException, address: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def init(**arguments: Any) -> None:
        raise error

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(connection, "admitted", lambda cluster: (cluster.address, "token"))
    before = dict(os.environ)
    with pytest.raises(UserError) as caught, connected(address):
        pytest.fail("Ray is not there")
    message = str(caught.value)
    assert message.startswith("Ray cannot be started" if address is None else "--address 127.0.0.1:6379: the cluster")
    assert type(error).__name__ in message
    assert "\n" not in message
    assert dict(os.environ) == before


def test_ctrl_c_while_ray_starts_is_no_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(KeyboardInterrupt), connected(None):
        pass


def test_a_program_that_uses_ray_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = []
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "shutdown", lambda: ended.append(1))
    with pytest.raises(UserError, match=r"this program uses Ray already; end that with ray\.shutdown"), connected(None):
        pass
    assert not ended


def test_a_long_or_closed_temporary_folder_is_passed_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    long = tmp_path / ("long" * 20)
    long.mkdir()
    monkeypatch.setenv("TMPDIR", str(long))
    with local.scratch() as folder:
        assert len(os.fsencode(folder)) + local.RAYS_OWN_BYTES <= local.SOCKET_BYTES
        assert not folder.is_relative_to(long)
    monkeypatch.setattr(local, "places", lambda: [long, Path("/proc"), Path("/none")])
    with pytest.raises(UserError) as caught, local.scratch():
        pass
    said = str(caught.value)
    assert said.endswith("Set RAY_TMPDIR to such a folder")
    assert f"{long} is longer; /proc: " in said
    assert "/none: No such file or directory" in said


SEEN = """
import json, os, sys, types
os.sched_setaffinity(0, set(json.loads(sys.argv[1])))
import ray
from pyconv_search.search.connection import connected, room
from pyconv_search.study.study import Resources

def listening(pids):
    "The addresses on which processes listen, as the kernel writes them."
    inodes = set()
    for pid in pids:
        for handle in os.listdir(f"/proc/{pid}/fd"):
            try: inodes.add(os.readlink(f"/proc/{pid}/fd/{handle}"))
            except OSError: pass
    found = []
    for table in ("tcp", "tcp6"):
        for line in open(f"/proc/self/net/{table}").read().splitlines()[1:]:
            parts = line.split()
            if parts[3] == "0A" and f"socket:[{parts[9]}]" in inodes:
                found.append(parts[1].split(":")[0])
    return found

def descendants(pid):
    own = [int(c) for t in os.listdir(f"/proc/{pid}/task") for c in open(f"/proc/{pid}/task/{t}/children").read().split()]
    return own + [each for child in own for each in descendants(child)]

with connected(None):
    @ray.remote
    def worker():
        return os.environ["RAY_AUTH_MODE"], os.environ["PYCONV_SEEN"]
    print(json.dumps({
        "worker": ray.get(worker.remote()), "cpus": ray.cluster_resources()["CPU"],
        "store": ray.cluster_resources()["object_store_memory"],
        "room": room(types.SimpleNamespace(resources=Resources(1))), "gcs": ray.get_runtime_context().gcs_address,
        "listening": listening([os.getpid(), *descendants(os.getpid())]),
        "folder": ray._private.worker._global_node.get_temp_dir_path(),
        "sockets": [os.path.join(d, f) for d, _, files in os.walk(ray._private.worker._global_node.get_sockets_dir_path()) for f in files],
    }), flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder whose path has exactly as many bytes as a place of Ray's folder may have."""
    top = Path(tempfile.mkdtemp(prefix="", dir="/tmp"))
    found = top / ("x" * (local.MOST_BYTES - len(str(top)) - 1))
    found.mkdir()
    assert len(str(found)) == local.MOST_BYTES
    yield found
    shutil.rmtree(top, ignore_errors=True)


def start(command: list[str], place: Path, home: dict[str, str]) -> subprocess.Popen[str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("RAY_") and key != "HOME"}
    env = {**kept, "PYTHONPATH": str(ROOT), "RAY_TMPDIR": str(place), "PYCONV_SEEN": "yes", **home}
    words = [*command, sys.executable, "-c", SEEN, json.dumps(sorted(ONE_CORE))]
    return subprocess.Popen(words, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
@pytest.mark.skipif(not ONE_CORE, reason="needs Linux")
@pytest.mark.parametrize(
    "user", ["with a home that cannot be written", "that the system does not list, without a home"]
)
def test_the_ray_of_a_run(user: str, place: Path) -> None:
    """Really started, under an affinity of one core, in the longest folder allowed: it listens on loopback alone."""
    command, home = [], {"HOME": "/proc/1/none"}
    if "list" in user:
        command, home = ["unshare", "--user", "--map-user=54321"], {}
        if (
            not shutil.which("unshare")
            or subprocess.run([*command, "true"], check=False, capture_output=True).returncode
        ):
            pytest.skip("needs user namespaces")
    process = start(command, place, home)
    try:
        assert process.stdout is not None
        seen = json.loads(process.stdout.readline())
        assert seen["worker"] == ["token", "yes"]
        assert (seen["cpus"], seen["room"], seen["store"]) == (1.0, 1, local.OBJECT_STORE_BYTES)
        assert len(seen["listening"]) > 3
        # 127.0.0.1, as IPv4 and inside IPv6 (proc(5): words in the byte order of the machine).
        own = "0100007F"
        assert set(seen["listening"]) <= {own, f"0000000000000000FFFF0000{own}"}
        asked = subprocess.run(
            [sys.executable, "-m", "pyconv_search.search.probe", seen["gcs"]],
            env={**os.environ, "HOME": str(place), "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert asked.stdout.split()[-1] == probe.MISSING
        folder = Path(seen["folder"])
        assert folder.parent.parent == place
        assert folder.parent.stat().st_mode & 0o777 == 0o700
        assert seen["sockets"]
        longest = max(len(path) for path in seen["sockets"])
        assert local.SOCKET_BYTES - 12 < longest <= local.SOCKET_BYTES
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.wait(60) == 0
        assert not folder.parent.exists()
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


@pytest.mark.skipif(not ONE_CORE, reason="needs Linux")
def test_one_core_is_one_core_for_all_who_count(tmp_path: Path) -> None:
    """For Ray, for ``plan``, for what decodes, and for ``bench``: in a process that may use a single one."""
    code = (
        f"import os, pathlib; os.sched_setaffinity(0, {ONE_CORE})\n"
        "from pyconv_search.search import local\n"
        "from pyconv_search.cli import estimates\n"
        "from pyconv_search.study.study import load_study\n"
        "study = load_study('studies/quickstart.yaml')\n"
        "found = estimates.found(study, False, 100.0).estimate\n"
        "print(local.options(pathlib.Path('x'))['num_cpus'], found.concurrent, study.resources.cpu)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    cpus, concurrent, each = map(int, done.stdout.split())
    assert (cpus, concurrent) == (1, 1 // each)


def test_nobody_counts_cores_by_himself() -> None:
    """But :mod:`pyconv_search.cores`; PyTorch's own number is that of a process whose threads were set."""
    ways = ("cpu_count", "sched_getaffinity", "process_cpu_count", "SC_NPROCESSORS")
    sources = [*(ROOT / "pyconv_search").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]
    found = {path.name for path in sources if any(way in path.read_text() for way in ways)}
    assert found == {"cores.py"}
    assert usable_cores() <= (os.cpu_count() or 1)


def test_room_for_a_trial_on_the_cores_that_ray_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [{"Alive": True, "Resources": {"CPU": float(local.options(Path("x"))["num_cpus"])}}]
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    study: Any = SimpleNamespace(resources=Resources(1))
    assert connection.room(study) == usable_cores()


def test_while_ray_waits_for_a_port_others_go_on(tmp_path: Path) -> None:
    from ray._private import node

    counted, over = [0], threading.Event()

    def count() -> None:
        while not over.wait(0.01):
            counted[0] += 1

    thread = threading.Thread(target=count)
    thread.start()
    try:
        with local.waiting_in_turns(), pytest.raises(RuntimeError, match="Timed out"):
            node.wait_for_persisted_port(str(tmp_path), "a" * 56, "gcs_server_port", timeout_ms=1500)
    finally:
        over.set()
        thread.join()
    assert counted[0] > 2
    with local.waiting_in_turns():
        (tmp_path / f"gcs_server_port_{'a' * 56}").write_text("4321")
        assert node.wait_for_persisted_port(str(tmp_path), "a" * 56, "gcs_server_port", timeout_ms=1500) == 4321
