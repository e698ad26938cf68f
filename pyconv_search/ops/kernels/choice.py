"""Which tile a problem is laid in: the cheapest of a few hundred under a model of one multiprocessor.

Figures are clock cycles of an sm_90 multiprocessor for 64 rows of half-precision lanes: 2,048 multiply-adds a cycle,
128 bytes a cycle in and out of shared memory, and about 16 cycles a step for addresses and barriers. They rank tiles
and are no forecast: nothing of this has been measured yet.
"""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass

from pyconv_search.ops.kernels.level import Level
from pyconv_search.ops.kernels.plan import Pair, Problem, Tile, step_count

PATCHES: tuple[Pair, ...] = ((1, 1), (1, 2), (2, 2), (2, 4), (4, 4))
MACS_A_CYCLE, BYTES_A_CYCLE, STEP_CYCLES = 2048, 128, 16
# Lanes that lie apart are fetched one by one, past the pipeline of asynchronous copies.
APART = 8


@dataclass(frozen=True, slots=True)
class Work:
    """Multiply-adds for one output pixel, the input pixel's in proportion to the stride."""

    nominal: int
    forward: float
    grad_input: float
    grad_weight: float


def executed_macs(levels: tuple[Level, ...], in_channels: int, stride: Pair = (1, 1), size: Pair = (32, 32)) -> Work:
    """What the three kernels multiply, zeros included, beside the convolution's own multiply-adds.

    Args:
        levels, in_channels, stride: the convolution.
        size: height and width of its output, on which the choice of tiles depends a little; the overhang of the last
            patches and rows is not counted.
    """
    forward, transposed = Problem(levels, in_channels, stride), Problem(levels, in_channels, stride, True)
    nominal = sum(math.prod(level.weight_shape(in_channels)) for level in levels)

    def executed(problem: Problem, gradient: bool) -> float:
        tile = choose(problem, gradient, bucket(size))
        return step_count(problem, tile) * math.prod(tile.block) / math.prod(tile.patch)

    return Work(nominal, executed(forward, False), executed(transposed, False), executed(forward, True))


def bucket(size: Pair) -> Pair:
    """``size`` as far as it matters for the choice: the overhang of patches is slight on large images."""
    return min(size[0], 32), min(size[1], 32)


@functools.lru_cache(maxsize=1024)
def choose(problem: Problem, gradient: bool, size: Pair) -> Tile:
    """The tile for ``problem``, or with ``gradient`` for its gradient by the weights.

    ``size`` is the :func:`bucket` of the convolution's output.
    """
    return min(_tiles(problem, gradient), key=lambda tile: _cycles(problem, gradient, size, tile))


def _tiles(problem: Problem, gradient: bool) -> list[Tile]:
    inputs, outputs = problem.in_channels, sum(level.width for level in problem.levels)
    if problem.transposed:
        inputs, outputs = outputs, inputs
    # Wide groups fill a product by themselves; patches would only multiply zeros.
    narrow = min(level.width // level.groups for level in problem.levels) <= 64
    modes = _modes(problem)
    return [
        Tile(patch, columns // math.prod(patch), run, depth // run, *orders)
        for patch in (PATCHES if narrow else PATCHES[:1])
        for run in ((1, 2, 4) if narrow or gradient else (1,))
        for columns, depth in itertools.product(
            (16, 32, 64, 128, 256), (32, 64, 128, 256) if gradient else (16, 32, 64)
        )
        for orders in modes
        if columns * depth <= 1 << 14
        and _fits(columns // math.prod(patch), outputs)
        and depth // run >= 8
        and _fits(depth // run, inputs)
    ]


def _fits(lanes: int, channels: int) -> bool:
    """Whether ``lanes`` channels are no waste of more than the smallest product."""
    return lanes >= 1 and lanes < 2 * max(channels, 16)


def _modes(problem: Problem) -> list[tuple[str, str]]:
    """The orders in which blocks and steps may take channels."""
    modes: tuple[str, ...] = ("whole",)
    if any(len(level.dilations) > 1 or len(level.dilations[0]) > 1 or level.groups > 1 for level in problem.levels):
        modes = ("whole", "class", "strided")
    return list(itertools.product(modes, modes))


def _cycles(problem: Problem, gradient: bool, size: Pair, tile: Tile) -> float:
    """Cycles for 64 pixels of the convolution's output."""
    depth, columns = tile.block
    arithmetic = 64 * depth * columns / MACS_A_CYCLE
    traffic = _moved(depth, columns, gradient, tile.of_depth == "strided") / BYTES_A_CYCLE
    overhang = math.prod(-(-side // own) * own / side for side, own in zip(size, tile.patch, strict=True))
    return step_count(problem, tile) * (max(arithmetic, traffic) + STEP_CYCLES) * overhang / math.prod(tile.patch)


def _moved(depth: int, columns: int, gradient: bool, apart: bool) -> float:
    """Bytes in and out of shared memory for 64 rows of a step."""
    pixels, columns_a_read = 128 * depth * (APART if apart else 1), max(1, columns / 64)
    if gradient:
        return pixels + 128 * depth + 128 * columns * (1 + max(1, depth / 64))
    # Weights are written for 128 rows at a time and read for 64; with factors swapped, both for 256, and the pixels are
    # read once for every 64 columns.
    straight = pixels + 128 * depth + 3 * depth * columns
    swapped = pixels + 128 * depth * columns_a_read + depth * columns
    return min(straight, swapped) if columns >= 64 else straight
