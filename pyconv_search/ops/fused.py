"""When an operation runs in one kernel of :mod:`pyconv_search.ops.kernels`, and what it is called there."""

from __future__ import annotations

from functools import lru_cache

import torch

from pyconv_search.arch.plans.operation import Operation, class_order, depthwise, side
from pyconv_search.arch.spec import Level
from pyconv_search.ops import kernels

DTYPES = tuple(str(dtype).removeprefix("torch.") for dtype in kernels.DTYPES)


@lru_cache(maxsize=4096)
def levels_of(operation: Operation) -> tuple[kernels.Level, ...] | None:
    """The levels of an operation as the kernels take them; None if one's pattern runs over its groups."""
    if any(depthwise(operation.in_channels, level) and len(level.pattern) > 1 for level in operation.conv.levels):
        return None
    return tuple(_level(operation, level) for level in operation.conv.levels)


def _level(operation: Operation, level: Level) -> kernels.Level:
    pattern, t = level.pattern, len(level.pattern)
    matrix: tuple[tuple[int, ...], ...] = tuple(tuple(pattern[(i - o) % t] for i in range(t)) for o in range(t))
    if level.axes != "both":
        matrix = (pattern,) if level.axes == "input" else tuple((dilation,) for dilation in pattern)
    order = class_order(pattern)
    sides = [
        order if is_sorted and along else None
        for is_sorted, along in ((operation.sorted_in, len(matrix[0]) > 1), (operation.sorted_out, len(matrix) > 1))
    ]
    return kernels.Level(level.width, side(level), level.groups, matrix, sides[0], sides[1])


def obstacle(operation: Operation, device: torch.device, dtype: str) -> str | None:
    """Why the operation cannot run in one kernel on this device with numbers of this type, or None."""
    if dtype not in DTYPES:
        return f"numbers must be of {', '.join(DTYPES)}, but are of {dtype}"
    if levels_of(operation) is None:
        return "the pattern runs over the groups of a depthwise convolution"
    return kernels.available(device)
