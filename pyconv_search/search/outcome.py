"""The row that a trial ends in, and why."""

from __future__ import annotations

import platform
import socket
from datetime import UTC, datetime
from typing import Any

import torch

from pyconv_search.arch.canonical import from_dict
from pyconv_search.arch.cost import cost
from pyconv_search.results.row import Row
from pyconv_search.search.retry import parts_text
from pyconv_search.search.shortage import shortage
from pyconv_search.training.memory import exhausted
from pyconv_search.training.tally import Diverged


def blank_row(spec: dict[str, Any], status: str, reason: str, detail: str) -> Row:
    """The row of a trial of which nothing is known but its description and its end; for a lost worker too."""
    architecture = from_dict(spec["architecture"])
    price = cost(architecture)
    return Row(
        trial=spec["trial"],
        arch_id=architecture.arch_id,
        name=spec["name"],
        seed=spec["seed"],
        status=status,
        reason=reason,
        detail=detail,
        epochs=0,
        parameters=spec["parameters"],
        params=price.params,
        macs=price.macs,
        activations=price.activations,
        receptive_field=price.receptive_field,
        environment=_accumulated(spec),
        config=spec.get("config", ""),
        recipe=spec.get("overrides", {}),
        host=socket.gethostname(),
        started=now(),
        finished=now(),
    )


def failed_row(spec: dict[str, Any], error: BaseException) -> Row:
    """The row of a trial that ``error`` ended before it began."""
    return blank_row(spec, "failed", *why(spec, error))


def why(spec: dict[str, Any], error: BaseException) -> tuple[str, str]:
    """The ``reason`` and the ``detail`` of a row that ``error`` ended; of one out of memory, how much it wanted."""
    reason, detail = reason_of(error), detail_of(error)
    if reason != "oom":
        return reason, detail
    used = spec["device"] != "cpu" and torch.cuda.is_initialized()
    return reason, f"{detail}\n{shortage(spec, torch.device('cuda' if used else 'cpu'))}"


def reason_of(error: BaseException) -> str:
    """The ``reason`` of a row that ``error`` ended: ``nan``, ``oom`` or ``error``."""
    if isinstance(error, Diverged):
        return "nan"
    return "oom" if exhausted(error) else "error"


def detail_of(error: BaseException, lines: int = 3) -> str:
    """The exception's type and the first lines of its message."""
    message = "\n".join(str(error).strip().splitlines()[:lines])
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def now() -> str:
    """The time as ISO UTC text, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def device_name(device: torch.device) -> str:
    """``cpu``, or what CUDA calls the device."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def environment(precision: str, spec: dict[str, Any]) -> dict[str, str]:
    """What computed the numbers: versions, ``fp32``, ``bf16`` or ``fp16``; how many processes, if several.

    ``accumulate`` is there if a retry after ``oom`` computed the batch in more parts than the recipe says.
    """
    found = {"torch": torch.__version__, "python": platform.python_version(), "precision": precision}
    if spec.get("workers", 1) > 1:
        found["workers"] = str(spec["workers"])
    return found | _accumulated(spec)


def _accumulated(spec: dict[str, Any]) -> dict[str, str]:
    text = parts_text(spec.get("accumulated", 0))
    return {"accumulate": text} if text else {}
