"""How the C library hands out memory to a process that computes on a CPU, and how its threads wait.

Fresh pages are cleared by the system when they are first touched. By default glibc gives the memory of large tensors
back as soon as they are freed, so that the page faults of the next ones take a good part of the time: of PSConv at 64
channels half of it, of the training of small networks a third. With these variables freed memory is kept and comes in
large pages.

OpenMP's threads wait for each other by looking again and again, on a core that another process may need for what they
wait for: with two threads on two busy cores a small network trained at a fiftieth of its speed, until they slept.

The variables are read when a process starts, so it is too late for one that runs already.
"""

from __future__ import annotations

import os
import sys

VARIABLES = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "4294967296",
    "MALLOC_TOP_PAD_": "268435456",
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
    "OMP_WAIT_POLICY": "PASSIVE",
}


def restart_with_it() -> None:
    """Start this process anew, with the same arguments, unless all VARIABLES are set, to whatever value.

    What is set already stays as it is. Nothing happens elsewhere than on Linux. Call it before anything was done that
    must not be done twice.
    """
    missing = {name: value for name, value in VARIABLES.items() if name not in os.environ}
    if missing and sys.platform == "linux":
        sys.stdout.flush()
        sys.stderr.flush()
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **missing})
