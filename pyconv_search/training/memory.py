"""How much memory a training takes at most, and how much there is."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

import torch

from pyconv_search.arch.cost import cost
from pyconv_search.arch.spec import Architecture
from pyconv_search.cores import control_groups
from pyconv_search.study.recipe import Recipe
from pyconv_search.training.device import precision

_SELF = Path("/proc/self")
# The limit of a container or service (Linux, control groups version 2 and 1).
_LIMITS = ("memory.max", "memory.limit_in_bytes")
# What PyTorch says of memory that is not to be had, beside its own exception.
_OUT_OF_MEMORY = ("DefaultCPUAllocator", "CUBLAS_STATUS_ALLOC_FAILED", "out of memory")


def exhausted(error: BaseException) -> bool:
    """Whether ``error`` says that there is no more memory."""
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _OUT_OF_MEMORY)


def reset_peak(device: torch.device) -> None:
    """Begin to measure anew."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        (_SELF / "clear_refs").write_text("5")  # Linux: proc(5), the peak resident set size
    except OSError:
        return


def peak(device: torch.device) -> int:
    """The most bytes since the last reset: of PyTorch's allocator on a GPU, else of the whole process.

    Where the system cannot begin anew, it is the most since the process began.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        lines = (_SELF / "status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def available(device: torch.device) -> int | None:
    """Bytes that can still be had on the device; None where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    found = [_meminfo(), *map(_left, control_groups("memory"))]
    return min((amount for amount in found if amount is not None), default=None)


def _meminfo() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return None


def _left(group: Path) -> int | None:
    """What is left of the limit of a control group of version 2, whose files in memory could be given back."""
    try:
        limit, used = ((group / name).read_text().strip() for name in ("memory.max", "memory.current"))
        files = next(
            line.split()[1] for line in (group / "memory.stat").read_text().splitlines() if line.startswith("file ")
        )
        return None if limit == "max" else int(limit) - int(used) + int(files)
    except (OSError, ValueError, StopIteration):
        return None


def least(arch: Architecture, recipe: Recipe, device: torch.device, images: int) -> tuple[int, int]:
    """Bytes that training takes at least, by closed form: for ``images`` computed at once, and for the network itself.

    The first are what is kept for the backward pass (:meth:`pyconv_search.arch.cost.Cost.training_bytes`), without
    convolutions' own buffers; the second weights, gradients, momentum and, where the recipe averages, averages.
    """
    price, copies = cost(arch), 4 if recipe.ema else 3
    activations = price.training_bytes(images, 4 if precision(recipe, device) == "fp32" else 2)
    return activations, price.weight_bytes() * copies


def total(device: torch.device) -> int:
    """The bytes that there are: of the GPU as a whole, else what the machine, its container and limits leave."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[1]
    found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    found += [] if soft == resource.RLIM_INFINITY else [soft]
    for path in (group / name for group in control_groups("memory") for name in _LIMITS):
        try:
            found.append(int(path.read_text()))
        except (OSError, ValueError):  # no such limit, or "max"
            continue
    return min(found)
