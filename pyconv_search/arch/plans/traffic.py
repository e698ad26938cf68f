"""What a plan executes and moves beside what its operation needs: multiply-adds, and bytes to or from memory.

The three directions (the output, the gradients of input and weight) take the same work: each goes over the same three
arrays, the input, the weight and the output or their gradients, and differs only in which of them it writes. They
differ where another plan is chosen for each.
"""

from __future__ import annotations

from dataclasses import dataclass

from pyconv_search.arch.plans.operation import Operation, side
from pyconv_search.arch.plans.pieces import Plan


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


def nominal(operation: Operation, in_pixels: int, out_pixels: int, itemsize: int) -> Work:
    """What one direction needs: each multiply-add of the definition, and input, weights and output once.

    Args:
        in_pixels, out_pixels: positions of the input and of the output, of all images together.
        itemsize: bytes of one number.
    """
    weights = 0
    for level in operation.conv.levels:
        height, width = side(level)
        weights += operation.in_channels // level.groups * level.width * height * width
    numbers = operation.in_channels * in_pixels + operation.conv.width * out_pixels + weights
    return Work(weights * out_pixels, numbers * itemsize)


def executed(plan: Plan, in_pixels: int, out_pixels: int, itemsize: int) -> Work:
    """What one direction does by a plan: :func:`executed_macs` and :func:`moved`; arguments as for :func:`nominal`."""
    return Work(executed_macs(plan, out_pixels), moved(plan, in_pixels, out_pixels, itemsize))


def executed_macs(plan: Plan, out_pixels: int) -> int:
    """Multiply-adds of one direction, those with weights that are zero by construction included."""
    return plan.macs * out_pixels


def moved(plan: Plan, in_pixels: int, out_pixels: int, itemsize: int) -> int:
    """Bytes that one direction moves at least: of every piece the input, the weights and the output once.

    The numbers that a piece puts out are counted once, though they are added to those of other pieces, and channels
    that are brought into another order are not counted again: both may happen in a cache.
    """
    return itemsize * sum(
        len(piece.source) * in_pixels
        + len(piece.target) * (out_pixels + piece.fan_in * piece.kernel[0] * piece.kernel[1])
        for piece in plan.pieces
    )
