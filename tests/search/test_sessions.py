"""What runs in sessions of its own ends with the process that started it, however that ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pyconv_search.search.sessions import Guard, own_sessions

# A leader that has a child, in a process group of its own as Ray's workers are.
FAMILY = "import subprocess, time; subprocess.Popen(['sleep', '300'], process_group=0); time.sleep(300)"
OWNER = f"""
import os, subprocess, sys, time
from pathlib import Path
from pyconv_search.search.sessions import Guard
guard = Guard()
guard.remove(Path(os.fsdecode(sys.argv[1].encode())) / os.fsdecode(b"odd\\xfe\\n"))
guard.add(subprocess.Popen([sys.executable, "-c", {FAMILY!r}], start_new_session=True))
print(guard.leaders[0].pid, flush=True)
time.sleep(300)
"""


def members(session: int) -> list[int]:
    """The processes of a session that live."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == session and fields[0] != "Z":
                found.append(int(entry.name))
    return found


def test_a_killed_owner_leaves_nothing_behind(wait_for: Callable[..., None], tmp_path: Path) -> None:
    odd = tmp_path / os.fsdecode(b"odd\xfe\n")
    (odd / "r").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    command = [sys.executable, "-c", OWNER, str(tmp_path)]
    owner = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert owner.stdout is not None
    session = int(owner.stdout.readline())
    wait_for(lambda: len(members(session)) == 2)
    os.killpg(owner.pid, signal.SIGKILL)  # The guard stands in another group.
    owner.wait()
    wait_for(lambda: not members(session))
    wait_for(lambda: not odd.exists())
    assert (tmp_path / "other").exists()


def test_a_closed_guard_ends_its_sessions_and_no_other() -> None:
    guard = Guard()
    with subprocess.Popen(["sleep", "300"], start_new_session=True) as other:
        with subprocess.Popen(["sleep", "300"], start_new_session=True) as own:
            guard.add(own)
            guard.close()
            assert own.wait(20) == -signal.SIGKILL
        assert other.poll() is None
        guard.close()
        other.kill()


def test_what_ray_starts_leads_a_session_of_its_own_for_as_long_as_wanted() -> None:
    services = pytest.importorskip("ray._private.services")
    usual, guard = services.ConsolePopen, Guard()
    with own_sessions(guard), services.ConsolePopen(["sleep", "300"]) as found:
        assert os.getsid(found.pid) == found.pid != os.getsid(0)
        assert guard.leaders == [found]
        guard.close()
        found.wait(20)
    assert services.ConsolePopen is usual


def test_what_ray_starts_hears_sigterm_where_this_process_holds_it() -> None:
    services = pytest.importorskip("ray._private.services")
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    guard = Guard()
    try:
        with own_sessions(guard), services.ConsolePopen(["sleep", "300"]) as found:
            assert signal.SIGTERM in signal.pthread_sigmask(signal.SIG_BLOCK, [])
            found.terminate()
            assert found.wait(20) == -signal.SIGTERM
    finally:
        guard.close()
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
