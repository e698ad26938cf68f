"""What one kernel for all of an operation executes and moves, beside :mod:`pyconv_search.arch.plans.traffic`."""

from __future__ import annotations

from pyconv_search.arch.plans.choice import DIRECTIONS, Choice
from pyconv_search.arch.plans.operation import Operation
from pyconv_search.arch.plans.pieces import Plan
from pyconv_search.arch.plans.traffic import Size, Work, nominal
from pyconv_search.ops import kernels
from pyconv_search.ops.fused import DTYPES, levels_of
from pyconv_search.ops.planning import FUSED

CHOICE = Choice(Plan(FUSED, ()), "one kernel for all of it, on GPUs of compute capability 8.0 or more with Triton")


def fused_work(operation: Operation, dtype: str, sizes: tuple[Size, Size], itemsize: int) -> dict[str, Work] | None:
    """The work of each of DIRECTIONS; None if no kernel takes the operation or the ``dtype``.

    A kernel reads or writes input, weights and output once, and multiplies the zeros that fill its matrix products
    (:func:`pyconv_search.ops.kernels.executed_macs`).

    Args:
        sizes, itemsize: as for :func:`~.nominal`.
    """
    levels = levels_of(operation)
    if levels is None or dtype not in DTYPES:
        return None
    size_in, size_out = sizes
    least = nominal(operation, size_in, size_out, itemsize)
    images, height, width = size_out
    work = kernels.executed_macs(levels, operation.in_channels, operation.stride, (height, width))
    each = zip(DIRECTIONS, (work.forward, work.grad_input, work.grad_weight), strict=True)
    return {direction: Work(round(macs * images * height * width), least.bytes) for direction, macs in each}
