"""What Ray is started with on this machine for one run: closed to others, in a folder that it can use, with our cores.

Ray by itself listens on every network of the machine, keeps its token where every user can read it, needs a home that
can be written, and fails in a folder whose path is long.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pyconv_search.cores import usable_cores
from pyconv_search.errors import UserError
from pyconv_search.search.patching import patched

# The path of a Unix socket has at most 107 bytes (unix(7)). Ray puts
# so much behind its folder.
SOCKET_BYTES = 107
RAYS_OWN_BYTES = len("/session_2026-11-30_18-15-52_216129_4194304/sockets/plasma_store.99")
PREFIX = "pyconv-ray-"
# Ray lets every user into its own folder, so that stands in one of ours.
INNER = "r"
MOST_BYTES = SOCKET_BYTES - RAYS_OWN_BYTES - len(f"/{PREFIX}12345678/{INNER}")
# Descriptions of trials and rows pass through it, never images or weights; Ray takes a third of the memory otherwise.
OBJECT_STORE_BYTES = 128 * 2**20
# How long others have the interpreter to themselves while a port is waited for.
TURN_SECONDS = 0.05


def options(folder: Path) -> dict[str, Any]:
    """Arguments of ``ray.init`` for Ray on this machine, with its sockets and logs in ``folder``."""
    return {
        "num_cpus": usable_cores(),
        "object_store_memory": OBJECT_STORE_BYTES,
        "include_dashboard": False,
        "_temp_dir": str(folder),
    }


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for Ray's sockets and logs that only this user can enter; removed at the end.

    Raises:
        UserError: if no place can be written whose path is short enough for sockets.
    """
    folder = _made()
    try:
        yield folder / INNER
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def places() -> list[Path]:
    """Where the folder may be made, best first."""
    named = [os.environ.get("RAY_TMPDIR"), os.environ.get("TMPDIR"), "/tmp", "/var/tmp"]
    return [Path(place).absolute() for place in (*named, os.environ.get("XDG_RUNTIME_DIR"), "/dev/shm") if place]


def _made() -> Path:
    looked = []
    for place in places():
        if len(os.fsencode(place)) > MOST_BYTES:
            looked.append(f"{place} is longer")
            continue
        try:
            return Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
        except OSError as error:
            looked.append(f"{place}: {error.strerror or error}")
    raise UserError(
        f"Ray needs a folder for its sockets that can be written and whose path has at most {MOST_BYTES} bytes, but "
        f"{'; '.join(dict.fromkeys(looked))}. Set RAY_TMPDIR to such a folder"
    )


@contextmanager
def loopback() -> Iterator[None]:
    """Let the Ray that is started within listen on 127.0.0.1 alone, as it does on systems without clusters of Ray.

    ``ray.init(_node_ip_address="127.0.0.1")`` does not: Ray replaces that by the address of the machine's network.
    """
    from ray._private import ray_constants

    with patched(ray_constants, "ENABLE_RAY_CLUSTER", False):
        yield


@contextmanager
def waiting_in_turns() -> Iterator[None]:
    """Let other threads run while Ray waits for the port of a process that it has started, which may have died.

    Ray itself waits in C++ and holds Python's lock all that time, 30 s.
    """
    from ray._private import node

    usual: Any = getattr(node, "wait_for_persisted_port", None)

    def wait(*where: Any, timeout_ms: int = 30_000, **options: Any) -> int:
        end = time.monotonic() + timeout_ms / 1000
        while True:
            try:
                return int(usual(*where, timeout_ms=0, **options))
            except RuntimeError:
                if time.monotonic() > end:
                    raise
            time.sleep(TURN_SECONDS)

    with patched(node, "wait_for_persisted_port", wait):
        yield
