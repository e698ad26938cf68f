"""The plan of a module: what was chosen for an input, why, and how to force another."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import torch
from torch import Tensor

from pyconv_search.arch.plans.choice import DIRECTIONS, Setting, choose
from pyconv_search.arch.plans.operation import Operation
from pyconv_search.arch.spec import Conv, Level
from pyconv_search.ops import kernels
from pyconv_search.ops.execute import Programs, layout
from pyconv_search.ops.fused import levels_of, obstacle
from pyconv_search.ops.program import program

FUSED = "fused"
INSTRUCTIONS = torch.backends.cpu.get_cpu_capability()

# A list and no context variable, which compilers cannot read.
_forced = [""]


@contextmanager
def executed_as(way: str) -> Iterator[None]:
    """Inside, convolutions are executed this way, where they can be, in all directions and threads.

    ``way`` is ``split``, ``per-class`` or ``masked`` (poly-scale levels), ``grouped``, ``grouped-4`` or ``depthwise``
    (others), ``merged-2`` (all levels of a pyramid), ``fused``, or the name of a whole plan as :func:`plan` tells it.
    """
    _forced.append(way)
    try:
        yield
    finally:
        _forced.pop()


# What a module computes, in tuples that a compiler can take for constants: of every level what ``Level`` holds, and of
# all what ``Operation`` holds: (in_channels, levels, stride, sorted_in, sorted_out).
LevelTuple = tuple[tuple[int, int], int, int, tuple[int, ...], str]
Signature = tuple[int, tuple[LevelTuple, ...], tuple[int, int], bool, bool]


@lru_cache(maxsize=4096)
def operation_of(signature: Signature) -> Operation:
    """The operation of a signature."""
    in_channels, levels, stride, sorted_in, sorted_out = signature
    return Operation(in_channels, Conv(tuple(Level(*level) for level in levels)), stride, sorted_in, sorted_out)


def setting_of(x: Tensor) -> Setting:
    """Where an operation on ``x`` runs."""
    return Setting(*_place(x))


def _place(x: Tensor) -> tuple[str, str, bool, str]:
    device, dtype = x.device.type, str(x.dtype).removeprefix("torch.")
    return device, dtype, layout(x) == torch.channels_last, INSTRUCTIONS if device == "cpu" else ""


def programs(signature: Signature, x: Tensor) -> Programs:
    """What executes an operation on ``x``; what is exported is the plain plan, whatever is fastest here."""
    forced = "plain" if torch.compiler.is_exporting() else _forced[-1]
    if torch.compiler.is_compiling():
        return _constant(signature, _place(x), forced)
    return _programs(signature, _place(x), forced)


def fused(signature: Signature, x: Tensor) -> tuple[kernels.Level, ...] | None:
    """The levels of one kernel for all of the operation, if it is executed so: on a GPU that can, or where forced."""
    forced = _forced[-1]
    if torch.compiler.is_exporting() or (forced != FUSED and (forced or x.device.type != "cuda")):
        return None
    place = (str(x.device), str(x.dtype).removeprefix("torch."))
    return _constant_fused(signature, *place) if torch.compiler.is_compiling() else _fused(signature, *place)


@lru_cache(maxsize=4096)
def _fused(signature: Signature, device: str, dtype: str) -> tuple[kernels.Level, ...] | None:
    operation = operation_of(signature)
    return None if obstacle(operation, torch.device(device), dtype) else levels_of(operation)


@torch.compiler.assume_constant_result
def _constant_fused(signature: Signature, device: str, dtype: str) -> tuple[kernels.Level, ...] | None:
    return _fused(signature, device, dtype)


@lru_cache(maxsize=4096)
def _programs(signature: Signature, place: tuple[str, str, bool, str], forced: str) -> Programs:
    operation, setting = operation_of(signature), Setting(*place)
    return Programs(*(program(operation, choose(operation, setting, d, forced).plan) for d in DIRECTIONS))


@torch.compiler.assume_constant_result
def _constant(signature: Signature, place: tuple[str, str, bool, str], forced: str) -> Programs:
    return _programs(signature, place, forced)
