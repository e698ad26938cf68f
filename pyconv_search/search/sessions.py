"""The processes of a Ray of our own: in sessions of their own, and neither they nor their folder outlive the run.

What ``timeout``, SLURM, systemd and CI send goes to the whole process group of the run; a closed terminal hangs up its
session. Ray's processes would die before the run could end in order. They stand in sessions of their own, therefore,
and a guard, which stands in another, ends them when the run's process is gone, however it went.

This file is also the guard's program: it reads from its standard input, in lines of JSON, the numbers of sessions and
the paths of folders; once its standard input is closed it ends what runs in the sessions and removes the folders.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast


def sweep(sessions: Iterable[int]) -> None:
    """End every process of these sessions."""
    wanted = set(sessions)
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            # The name, in parentheses, may hold anything; after it: state, parent, process group, session.
            fields = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
            if int(fields[3]) in wanted:
                os.kill(int(entry.name), signal.SIGKILL)
        except (OSError, IndexError, ValueError):
            continue


class Guard:
    """Ends the sessions of its ``leaders`` when :meth:`close` is called, or when this process is gone.

    ``folder`` is what they write to, which it removes then; ``ending`` says that they are being ended on purpose.
    """

    def __init__(self) -> None:
        self.leaders: list[subprocess.Popen[bytes]] = []
        self.folder: Path | None = None
        self.ending = False
        self._process: subprocess.Popen[bytes] = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._pipe = cast(BinaryIO, self._process.stdin)

    def add(self, leader: subprocess.Popen[bytes]) -> None:
        """Watch over the session that this process leads."""
        self.leaders.append(leader)
        self._tell(leader.pid)

    def remove(self, folder: Path) -> None:
        """Remove this folder, too, in the end."""
        self.folder = folder
        self._tell(str(folder))

    def _tell(self, what: int | str) -> None:
        try:
            self._pipe.write(f"{json.dumps(what)}\n".encode())
            self._pipe.flush()
        except OSError:
            return  # Somebody has killed the guard: Ray's processes still end with us, its agents minutes later.

    def close(self) -> None:
        """End what still runs there, and the guard."""
        try:
            self._pipe.close()
        except OSError:
            sweep(leader.pid for leader in self.leaders)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()


@contextmanager
def own_sessions(guard: Guard | None) -> Iterator[None]:
    """While this lasts, each process that Ray starts here leads a session of its own, which the guard watches over.

    Without a guard nothing changes.
    """
    if guard is None:
        yield
        return
    # Not at the top: as the guard's program this file is run without other packages, and without this one.
    from ray._private import services

    from pyconv_search.search.interrupts import heard_by_children
    from pyconv_search.search.patching import patched

    watching = guard

    class Leader(subprocess.Popen[bytes]):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            with heard_by_children():
                super().__init__(*arguments, **{**options, "start_new_session": True})
            watching.add(self)

    with patched(services, "ConsolePopen", Leader):
        yield


def _main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    told = [json.loads(line) for line in sys.stdin if line.endswith("\n")]
    for _ in range(2):  # A raylet that is being ended may have started one more.
        sweep(each for each in told if isinstance(each, int))
    for folder in (each for each in told if isinstance(each, str)):
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    _main()
