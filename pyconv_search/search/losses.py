"""Why a trial has no result: what Ray's exceptions say, by their types."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray.exceptions import (
    ActorUnavailableError,
    NodeDiedError,
    OutOfMemoryError,
    RayActorError,
    RayTaskError,
    RuntimeEnvSetupError,
)
from ray.tune.experiment import Trial

from pyconv_search.cores import control_groups
from pyconv_search.search.actor import LostWorker
from pyconv_search.search.outcome import detail_of
from pyconv_search.search.patching import patched

MEMORY_EVENTS = "memory.events"
# Of control groups of version 2, of version 1, and of the whole machine.
MEMORY_FILES, MACHINE = (MEMORY_EVENTS, "memory.oom_control"), Path("/proc/vmstat")


@contextmanager
def errors_noted(note: Callable[[str, BaseException | None], None]) -> Iterator[None]:
    """While this lasts, ``note`` is given Tune's name of a trial and the exception, each time that one is lost.

    Tune itself keeps of most exceptions only the text.
    """
    usual: Any = Trial.handle_error

    def handle_error(self: Trial, exc: BaseException | None = None) -> None:
        note(self.trial_id, exc)
        usual(self, exc)

    with patched(Trial, "handle_error", handle_error):
        yield


def cannot_start(error: BaseException | None) -> bool:
    """Whether the worker ended while it was made, before it was given anything to do."""
    return isinstance(error, RuntimeEnvSetupError) or (isinstance(error, RayActorError) and error.actor_init_failed)


def reason_of_loss(error: BaseException | None, times: int, killed_by_kernel: bool) -> tuple[str, str]:
    """The ``reason`` and the ``detail`` of the row of a trial that was lost ``times`` times, at last by ``error``."""
    often = f", {times} times" if times > 1 else ""
    if isinstance(error, RayTaskError):
        cause = error.cause if isinstance(error.cause, BaseException) else error
        if not isinstance(cause, LostWorker):
            return "error", detail_of(cause)
        return "lost", f"{_died(times)}: a process of its group: {gist(str(cause))}"
    if isinstance(error, OutOfMemoryError):
        return "oom", f"Ray's memory monitor ended the worker{often}: {_first_lines(str(error))}"
    if killed_by_kernel:
        return "oom", f"{_died(times)}, while the kernel's out-of-memory killer was at work ({MEMORY_EVENTS})"
    if isinstance(error, NodeDiedError):
        return "lost", f"its machine was lost{often}: {gist(str(error))}"
    if isinstance(error, ActorUnavailableError):
        return "lost", f"the worker could not be reached{often}: {gist(str(error))}"
    return "lost", f"{_died(times)}: {gist(str(error or ''))}"


def _died(times: int) -> str:
    return f"the worker process died {times} times" if times > 1 else "the worker process died"


def gist(report: str) -> str:
    """The line of one of Ray's long reports that says what happened."""
    lines = [line.strip() for line in report.splitlines() if line.strip()]
    told = [line for line in lines if re.match(r"[A-Za-z_.]*(Error|Exception)\b.*:", line)]
    return (told or ["killed, out of memory, or its machine lost"])[-1]


def _first_lines(report: str, most: int = 3) -> str:
    return "\n".join(line.strip() for line in report.strip().splitlines()[:most])


def kernel_kills() -> int | None:
    """How many processes the kernel has killed for memory in the nearest control group that it counts for, or on the
    whole machine; None where it does not say.
    """
    counts = [group / name for group in control_groups("memory") for name in MEMORY_FILES]
    for file in [*counts, MACHINE]:
        try:
            lines = file.read_text().split("\n")
        except OSError:
            continue
        for line in lines:
            name, _, count = line.partition(" ")
            if name == "oom_kill" and count.isdigit():
                return int(count)
    return None
