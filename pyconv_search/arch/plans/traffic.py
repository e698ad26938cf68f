"""What a plan executes and moves beside what its operation needs: multiply-adds, and bytes to or from memory.

The three directions (the output, the gradients of input and weight) take the same work: each goes over the same three
arrays, the input, the weight and the output or their gradients, and differs only in which of them it writes. They
differ where another plan is chosen for each.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from pyconv_search.arch.plans.operation import Operation, side
from pyconv_search.arch.plans.pieces import Piece, Plan, columns


@dataclass(frozen=True, slots=True)
class Work:
    """Multiply-adds, and bytes that must pass between memory and processor."""

    macs: int
    bytes: int

    def __add__(self, other: Work) -> Work:
        return Work(self.macs + other.macs, self.bytes + other.bytes)

    def times(self, count: int) -> Work:
        """So much work ``count`` times."""
        return Work(self.macs * count, self.bytes * count)


NOTHING = Work(0, 0)


# Images, and the height and width of each.
Size = tuple[int, int, int]


def nominal(operation: Operation, size_in: Size, size_out: Size, itemsize: int) -> Work:
    """What one direction needs: each multiply-add of the definition, and input, weights and output once.

    Args:
        size_in, size_out: of the input and of the output.
        itemsize: bytes of one number.
    """
    weights = 0
    for level in operation.conv.levels:
        height, width = side(level)
        weights += operation.in_channels // level.groups * level.width * height * width
    pixels_in, pixels_out = math.prod(size_in), math.prod(size_out)
    numbers = operation.in_channels * pixels_in + operation.conv.width * pixels_out + weights
    return Work(weights * pixels_out, numbers * itemsize)


def executed(plan: Plan, size_in: Size, size_out: Size, itemsize: int) -> Work:
    """What one direction does by a plan: :func:`executed_macs` and :func:`moved`; arguments as for :func:`nominal`."""
    return Work(executed_macs(plan, size_out), moved(plan, size_in, size_out, itemsize))


def executed_macs(plan: Plan, size_out: Size) -> int:
    """Multiply-adds of one direction, those with weights that are zero by construction included."""
    return sum(piece.macs * math.prod(_whole_strips(piece, size_out)) for piece in plan.pieces)


def moved(plan: Plan, size_in: Size, size_out: Size, itemsize: int) -> int:
    """Bytes that one direction moves at least: of every piece the input, the weights and the output once.

    The numbers that a piece puts out are counted once, though they are added to those of other pieces, and channels
    that are brought into another order are not counted again: both may happen in a cache.
    """
    return itemsize * sum(_numbers(piece, size_in, size_out) for piece in plan.pieces)


def _numbers(piece: Piece, size_in: Size, size_out: Size) -> int:
    out = _whole_strips(piece, size_out)
    # The input is as much wider as it takes to fill the last strip.
    wider = (out[2] - size_out[2]) * (piece.extra // (piece.strip - 1) if piece.strip > 1 else 0)
    pixels_in = size_in[0] * size_in[1] * (size_in[2] + wider)
    weights = piece.strip * piece.fan_in * piece.kernel[0] * (piece.kernel[1] + piece.extra)
    return len(piece.source) * pixels_in + len(piece.target) * (math.prod(out) + weights)


def _whole_strips(piece: Piece, size: Size) -> Size:
    """The size of what a piece puts out, whose last strip of a row may go over its end."""
    images, height, width = size
    return images, height, columns(piece, width)
