"""How many cores of the processor this process may use, and the control groups that limit it (Linux)."""

from __future__ import annotations

import os
from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")


def usable_cores() -> int:
    """The cores that this process may run on: its affinity, and the quota of its container (Linux), at least 1.

    A quota of 2.5 cores counts as 2: a third thread would wait half of its time.
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [quota for group in control_groups("cpu") if (quota := _quota(group)) is not None]
    return max(1, min([affinity, *(int(quota) for quota in quotas)]))


def control_groups(controller: str) -> list[Path]:
    """The control group of this process and those around it, where the kernel shows them; those of version 1 last."""
    try:
        lines = _OWN.read_text().splitlines()
    except OSError:
        lines = []
    inner, old = _GROUPS, _GROUPS / controller
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            inner = _GROUPS / path.lstrip("/")
        elif controller in controllers.split(","):
            old = _GROUPS / controller / path.lstrip("/")
    version_1 = [old, *(parent for parent in old.parents if parent.is_relative_to(_GROUPS / controller))]
    return [inner, *(parent for parent in inner.parents if parent.is_relative_to(_GROUPS)), *version_1]


def _quota(group: Path) -> float | None:
    """Cores by control groups of version 2, else of version 1; None where there is no limit."""
    try:
        limit, period = (group / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            limit, period = ((group / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
        except OSError:
            return None
    try:
        return int(limit) / int(period) if limit != "max" and int(limit) > 0 else None
    except (ValueError, ZeroDivisionError):
        return None
