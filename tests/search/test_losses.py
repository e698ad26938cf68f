"""Reasons of lost trials, by the types of Ray's exceptions and not by what their texts look like."""

from __future__ import annotations

from pathlib import Path

import pytest
from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    NodeDiedError,
    OutOfMemoryError,
    RayTaskError,
    RuntimeEnvSetupError,
)

from pyconv_search import cores
from pyconv_search.search import losses
from pyconv_search.search.actor import LostWorker
from pyconv_search.search.losses import cannot_start, kernel_kills, reason_of_loss

MONITOR = """Task was killed due to the node running low on memory.
Memory on the node (IP: 192.0.2.2, ID: 3a84) where the task was running was 4.25GB / 4.47GB (0.951), which exceeds
the memory usage threshold of 0.95. Ray killed this worker (ID: b538) because it was the most recently scheduled task
To see more information about memory usage on this node, use `ray logs raylet.out -ip 192.0.2.2`.
ValueError: creation task"""


def task_error(cause: Exception) -> RayTaskError:
    return RayTaskError("step", f"a traceback\n{type(cause).__name__}: {cause}", cause)


def test_the_memory_monitor_of_ray() -> None:
    reason, detail = reason_of_loss(OutOfMemoryError(MONITOR), 3, killed_by_kernel=False)
    assert reason == "oom"
    assert detail.splitlines()[0] == (
        "Ray's memory monitor ended the worker, 3 times: Task was killed due to the node running low on memory."
    )
    assert "4.25GB / 4.47GB" in detail
    assert not cannot_start(OutOfMemoryError(MONITOR))


def test_the_memory_killer_of_the_kernel() -> None:
    assert reason_of_loss(ActorDiedError(), 3, killed_by_kernel=True)[0] == "oom"
    assert reason_of_loss(ActorDiedError(), 3, killed_by_kernel=False) == (
        "lost",
        "the worker process died 3 times: killed, out of memory, or its machine lost",
    )


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (NodeDiedError("node 192.0.2.3 is dead"), "its machine was lost, 2 times"),
        (ActorUnavailableError("RpcError: OutOfMemoryError: no", None), "the worker could not be reached, 2 times"),
        (task_error(LostWorker("rank 1 has gone")), "the worker process died 2 times: a process of its group"),
        (None, "the worker process died 2 times"),
    ],
)
def test_what_else_may_die(error: BaseException | None, expected: str) -> None:
    reason, detail = reason_of_loss(error, 2, killed_by_kernel=False)
    assert (reason, detail[: len(expected)]) == ("lost", expected)


def test_where_no_process_died_none_is_said_to_have() -> None:
    error = task_error(AttributeError("'Mine' object has no attribute 'close'"))
    assert reason_of_loss(error, 3, killed_by_kernel=True) == (
        "error",
        "AttributeError: 'Mine' object has no attribute 'close'",
    )


def test_workers_that_cannot_start() -> None:
    assert cannot_start(ActorDiedError(task_error(ModuleNotFoundError("No module named 'x'"))))
    assert cannot_start(RuntimeEnvSetupError("no such package"))
    assert not cannot_start(ActorDiedError())
    assert not cannot_start(task_error(ValueError("an error raised in its creation task")))


def test_the_kernel_is_asked_where_it_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "cgroup"
    own.write_text("7:cpu,memory:/inner/job\n0::/inner/job\n")
    monkeypatch.setattr(cores, "_GROUPS", tmp_path / "groups")
    monkeypatch.setattr(cores, "_OWN", own)
    monkeypatch.setattr(losses, "MACHINE", tmp_path / "vmstat")
    assert kernel_kills() is None
    (tmp_path / "vmstat").write_text("nr_free_pages 1\noom_kill 7\n")
    assert kernel_kills() == 7
    version_1, version_2 = tmp_path / "groups/memory/inner", tmp_path / "groups/inner"
    for group, file, lines in (
        (version_1, "memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 4\n"),
        (version_2, "memory.events", "low 0\nhigh 0\nmax 0\noom 1\noom_kill 2\noom_group_kill 0\n"),
    ):
        (group / "job").mkdir(parents=True)
        (group / "job" / file).write_text(lines)
        assert kernel_kills() == int(lines.split("oom_kill ")[1].split()[0])
        (group / "job" / file).replace(group / file)
        assert kernel_kills() == int(lines.split("oom_kill ")[1].split()[0])
