"""Studies on Ray clusters: closed ones that the README's own lines make, and open ones, which are refused."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pyconv_search.errors import UserError
from pyconv_search.results import store
from pyconv_search.search import probe
from pyconv_search.search.joining import Cluster, admitted

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
STEPS = re.findall(r"^    (.*)$", (ROOT / "README.md").read_text().split("**A cluster.**")[1].split("\n## ")[0], re.M)
ENVIRONMENT = {"PYTHONPATH": str(ROOT), "PATH": f"{BIN}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}

pytestmark = pytest.mark.slow


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder whose path leaves room for Ray's sockets."""
    folder = Path(tempfile.mkdtemp(prefix="c-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def clean(short: Path) -> dict[str, str]:
    """An environment without any token, whose home is empty."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    return {**kept, **ENVIRONMENT, "HOME": str(short), "RAY_TMPDIR": str(short)}


@pytest.fixture
def started(clean: dict[str, str]) -> Iterator[Callable[..., str]]:
    """Start a head with two CPUs on a free port, as ``ray start`` does it; its address. Ended with all it started."""
    heads = []

    def start(**variables: str) -> str:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [BIN / "ray", "start", "--head", "--block", f"--port={port}", "--node-ip-address=127.0.0.1",
                   "--num-cpus=2", "--include-dashboard=false", "--disable-usage-stats"]  # fmt: skip
        head = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
            env={**clean, **variables},
        )  # fmt: skip
        heads.append(head)
        assert head.stdout is not None
        said = ""
        for line in head.stdout:
            said += line
            if "Ray runtime started" in line:
                return f"127.0.0.1:{port}"
        pytest.fail(said)

    yield start
    for head in heads:
        os.killpg(head.pid, signal.SIGKILL)
        head.wait(20)


def run(study: Path, folder: Path, *words: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pyconv_search", "run", study, "--out", folder, *words],
        capture_output=True, text=True, cwd=ROOT, timeout=600, check=False, env=env,
    )  # fmt: skip


def test_a_study_joins_a_cluster_with_a_token_and_leaves_it_running(
    started: Callable[..., str],
    clean: dict[str, str],
    tiny_study: Callable[..., Path],
    tmp_path: Path,
    reported: Callable[[str], list[str]],
) -> None:
    token, folder = "0123456789abcdef" * 4, tmp_path / "run"
    address = started(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=token)
    for own, wrong in (
        ({}, "there is none here"),
        ({"RAY_AUTH_TOKEN": token[::-1]}, "wants another token than the one"),
    ):
        done = run(tiny_study(), folder, "--address", address, env={**clean, **own})
        assert (done.returncode, len(reported(done.stderr))) == (1, 1), done.stderr
        assert wrong in done.stderr
    for _ in range(2):
        done = run(tiny_study(), folder, "--address", address, env={**clean, "RAY_AUTH_TOKEN": token})
        assert done.returncode == 0, done.stderr
    assert [row.status for row in store.read(folder).rows] == ["complete", "complete"]
    host, port = address.split(":")
    socket.create_connection((host, int(port)), timeout=5).close()


def test_an_open_cluster_is_refused_unless_that_is_typed(
    started: Callable[..., str],
    clean: dict[str, str],
    tiny_study: Callable[..., Path],
    tmp_path: Path,
    reported: Callable[[str], list[str]],
) -> None:
    """Ray's own default: without RAY_AUTH_MODE and without a token, ``ray start`` makes none and lets everybody in."""
    address = started()
    assert not (Path(clean["HOME"]) / ".ray").exists()
    for mode in ({}, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "f" * 64}):
        done = run(tiny_study(), tmp_path / "run", "--address", address, env={**clean, **mode})
        assert (done.returncode, len(reported(done.stderr))) == (1, 1), done.stderr
        assert "answers without a token" in done.stderr
        assert "--insecure" in done.stderr
    refused = store.read(tmp_path / "run")
    assert (refused.rows, refused.state) == ((), "aborted")
    done = run(tiny_study(), tmp_path / "run", "--address", address, "--insecure", env=clean)
    assert done.returncode == 0, done.stderr
    assert [row.status for row in store.read(tmp_path / "run").rows] == ["complete", "complete"]


def test_a_port_that_is_not_rays_is_told() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(UserError, match="does not answer as Ray does"):
            admitted(Cluster(f"127.0.0.1:{other.getsockname()[1]}"))


class Machine:
    """A machine of the test: a network namespace with an address and a home of its own."""

    def __init__(self, name: str, address: str, home: Path, env: dict[str, str]) -> None:
        self.name, self.address, self.home = name, address, home
        home.mkdir()
        self.env = {**env, "HOME": str(home), "PATH": f"{home}/bin:{env['PATH']}"}

    def do(self, line: str) -> subprocess.CompletedProcess[str]:
        """Run a line of shell on this machine."""
        return subprocess.run(
            ["ip", "netns", "exec", self.name, "bash", "-c", line],
            capture_output=True, text=True, env=self.env, cwd=ROOT, timeout=600, check=False,
        )  # fmt: skip


def ip(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


@pytest.fixture
def machines(short: Path, clean: dict[str, str]) -> Iterator[list[Machine]]:
    """Three machines on one network: the head, another, and an outsider that has no token."""
    if os.geteuid() or not shutil.which("ip"):
        pytest.skip("network namespaces need root and ip")
    mark = f"{os.getpid() % 100000}"
    bridge, found = f"pb{mark}", []
    try:
        ip("link", "add", bridge, "type", "bridge")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no bridge: {error.stderr}")
    try:
        ip("link", "set", bridge, "up")
        for n in (1, 2, 3):
            name, address = f"pn{mark}-{n}", f"10.213.7.{n}"
            ip("netns", "add", name)
            found.append(Machine(name, address, short / f"home{n}", clean))
            ip("link", "add", f"pv{mark}{n}", "type", "veth", "peer", "name", "eth0", "netns", name)
            ip("link", "set", f"pv{mark}{n}", "master", bridge, "up")
            ip("-n", name, "address", "add", f"{address}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "route", "add", "default", "via", "10.213.7.254", "onlink", "dev", "eth0")
        yield found
    finally:
        for machine in found:
            for process in ip("netns", "pids", machine.name).split():
                os.kill(int(process), signal.SIGKILL)
            subprocess.run(["ip", "netns", "delete", machine.name], check=False)
        subprocess.run(["ip", "link", "delete", bridge], check=False)


def test_the_lines_of_the_readme_make_a_closed_cluster_of_two_machines(
    machines: list[Machine], tiny_study: Callable[..., Path], tmp_path: Path
) -> None:
    """As they stand there. Only scp is another: there is no sshd, so it copies from the head's home."""
    head, other, outsider = machines
    (other.home / "bin").mkdir()
    scp = other.home / "bin" / "scp"
    scp.write_text(
        f'#!/bin/sh\n[ "$1 $2" = "-p {head.address}:.ray/auth_token" ] && cp -p {head.home}/.ray/auth_token "$3"\n'
    )
    scp.chmod(0o755)
    study, folder = tiny_study(), tmp_path / "run"
    named = {"HEAD": head.address, "STUDY": str(study), "/shared/run": str(folder)}
    lines = [re.sub("|".join(named), lambda word: named[word[0]], line) for line in STEPS]
    where = [head, head, other, other, other]
    assert len(lines) == len(where), lines
    for machine, line in zip(where[:-1], lines[:-1], strict=True):
        done = machine.do(line)
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    for machine in (head, other):
        assert (machine.home / ".ray" / "auth_token").stat().st_mode & 0o777 == 0o600
    address = f"{head.address}:6379"
    count = f"import ray; ray.init('{address}', log_to_driver=False); print(sum(n['Alive'] for n in ray.nodes()))"
    end = time.monotonic() + 120
    while (said := other.do(f'RAY_AUTH_MODE=token python -c "{count}"')).stdout.split()[-1:] != ["2"]:
        assert time.monotonic() < end, said.stdout + said.stderr
    asked = outsider.do(f"python -m pyconv_search.search.probe {address}")
    assert asked.stdout.split()[-1] == probe.MISSING, asked.stdout + asked.stderr
    done = other.do(lines[-1])
    assert done.returncode == 0, done.stderr
    assert [row.status for row in store.read(folder).rows] == ["complete", "complete"]
    assert outsider.do(f"python -m pyconv_search.search.probe {address}").stdout.split()[-1] == probe.MISSING
