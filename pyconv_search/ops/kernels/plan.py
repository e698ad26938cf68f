"""A multi-scale convolution as one list of small matrix products, for the kernels to run through.

All three kernels are implicit matrix products between *lanes*. A row is a patch of output pixels. The columns of one
product, a block, are the patch's pixels times a run of output channels; its depth, a step, is a run of pixels at some
offset times a run of input channels. Steps of one block add up. With a patch of one pixel and a run of one pixel this
is the usual implicit GEMM with a step for every tap and block of channels. Which weight stands in which place of a
step, or none (zero), is a table made here; hence one kernel covers every combination of groups, dilations, orders of
channels, levels and strides, and the transposed convolution.

Widening costs multiply-adds: a step multiplies all its channels by all columns though some are not connected. What a
step costs is mostly not its multiply-adds, though: below 64 columns, moving the pixels through shared memory takes
longer than multiplying them. ``choose`` weighs the two.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pyconv_search.ops.kernels.lanes import Connections, connections
from pyconv_search.ops.kernels.level import Level

Pair = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Problem:
    """What is to be computed: the convolution, or, ``transposed``, its gradient by the input."""

    levels: tuple[Level, ...]
    in_channels: int
    stride: Pair
    transposed: bool = False


@dataclass(frozen=True, slots=True)
class Tile:
    """How lanes are laid: a block is ``patch`` pixels × ``columns`` channels, a step ``run`` × ``depth`` channels.

    Blocks and steps take channels ``of_columns`` and ``of_depth``: ``whole`` as they lie in memory, ``class`` in the
    same order but none across the border between two classes, ``strided`` every t-th one (those of one interleaved
    class).
    """

    patch: Pair
    columns: int
    run: int
    depth: int
    of_columns: str = "whole"
    of_depth: str = "whole"

    @property
    def block(self) -> Pair:
        """The depth and the columns of one step's matrix product."""
        return self.run * self.depth, math.prod(self.patch) * self.columns


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """Tables for one :class:`Problem` and :class:`Tile`.

    Attributes:
        blocks: int32, one row a block: its first step, number of steps, first channel, number of channels, and the row
            and column of its first pixel in the patch.
        steps: int32, one row a step (and one of zeros): row and column offset of its first pixel, first channel, block.
        vectors: the units in which (steps, blocks) give their first channels, 16 at most; known when a kernel is
            compiled, they let it move that many channels at once.
        index: int32 steps × depth × columns, the weight's position among all weights, −1 for none.
        source, target: pixels of the input and of the output from one patch to the next.
        spacing: pixels of the output between two of a patch.
        strides: channels between two lanes: (depth, columns).
        whole: whether no step reaches past the last input channel.
        even: whether every block has all its channels.
    """

    tile: Tile
    blocks: np.ndarray
    steps: np.ndarray
    vectors: Pair
    index: np.ndarray
    source: Pair
    target: Pair
    spacing: Pair
    strides: Pair
    whole: bool
    even: bool


@dataclass(frozen=True, slots=True)
class _Runs:
    """Channels in the order in which they are taken, and where each run starts in that order."""

    order: np.ndarray
    starts: np.ndarray
    stride: int

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """(first channel, number of channels) of every run."""
        ends = np.append(self.starts[1:], len(self.order))
        return zip(self.order[self.starts].tolist(), (ends - self.starts).tolist(), strict=True)


def _runs(labels: np.ndarray, interval: int, mode: str, length: int) -> _Runs:
    channels = np.arange(len(labels))
    stride = interval if mode == "strided" else 1
    order = np.argsort(channels % stride, kind="stable")
    if mode == "whole":
        segments = channels[:1]
    else:
        jumps = (np.diff(labels[order]) != 0) | (np.diff(order) != stride)
        segments = np.append(0, np.flatnonzero(jumps) + 1)
    ends = np.append(segments[1:], len(order))
    starts = [at for low, high in zip(segments, ends, strict=True) for at in range(low, high, length)]
    return _Runs(order, np.asarray(starts), stride)


class _Layout:
    """The steps of a problem under a tile: which offsets every pair of a block and a run of input channels needs."""

    def __init__(self, problem: Problem, links: Connections, tile: Tile) -> None:
        self.problem, self.links, self.tile = problem, links, tile
        bits, labels, interval = links.bits, (links.output_labels, links.input_labels), links.interval
        if problem.transposed:
            bits, labels, interval = bits.T, labels[::-1], interval[::-1]
        self.columns = _runs(labels[0], interval[1], tile.of_columns, tile.columns)
        self.depths = _runs(labels[1], interval[0], tile.of_depth, tile.depth)
        if self.columns.stride > 1 or self.depths.stride > 1:
            bits = bits[self.columns.order][:, self.depths.order]
        bits = np.bitwise_or.reduceat(bits, self.columns.starts, 0)
        self.kernels = np.bitwise_or.reduceat(bits, self.depths.starts, 1)
        # Gradients by the input of a strided convolution: pixels of one remainder need taps of one remainder.
        spacing = problem.stride if problem.transposed else (1, 1)
        self.phases = [(y, x) for y in range(spacing[0]) for x in range(spacing[1])]
        self.spacing = spacing
        self.runs = functools.cache(self._runs_of)

    def _runs_of(self, kernels: int, phase: Pair) -> list[Pair]:
        """The offset of every run of pixels that a patch needs of channels which these kernels connect."""
        needed: set[Pair] = set()
        for number, (kh, kw, d) in enumerate(self.links.shapes):
            if kernels >> number & 1:
                rows, cols = self._offsets(kh, d, phase[0], 0), self._offsets(kw, d, phase[1], 1)
                needed |= {(y, x) for y in rows for x in cols}
        found: list[Pair] = []
        for y, x in sorted(needed):
            if not found or found[-1][0] != y or x >= found[-1][1] + self.tile.run:
                found.append((y, x))
        return found

    def _offsets(self, size: int, dilation: int, phase: int, axis: int) -> set[int]:
        taps = [dilation * (tap - size // 2) for tap in range(size)]
        stride, count = self.problem.stride[axis], self.tile.patch[axis]
        if not self.problem.transposed:
            return {own * stride + tap for own in range(count) for tap in taps}
        return {
            (phase + own * stride - tap) // stride
            for own in range(count)
            for tap in taps
            if (phase - tap) % stride == 0
        }

    def count(self) -> int:
        """The number of steps."""
        masks, times = np.unique(self.kernels, return_counts=True)
        return sum(
            len(self.runs(int(mask), phase)) * int(many)
            for mask, many in zip(masks, times, strict=True)
            for phase in self.phases
        )


def step_count(problem: Problem, tile: Tile) -> int:
    """How many steps the problem takes for one patch (of a patch for every phase of the stride, if transposed)."""
    return _Layout(problem, _linked(problem.levels, problem.in_channels), tile).count()


_linked = functools.lru_cache(maxsize=16)(connections)


@functools.lru_cache(maxsize=512)
def make_plan(problem: Problem, tile: Tile) -> Plan:
    """The tables for ``problem`` laid as ``tile`` says."""
    links = _linked(problem.levels, problem.in_channels)
    layout = _Layout(problem, links, tile)
    depths = list(layout.depths)
    unit, column_unit = (math.gcd(16, *(first for first, _ in runs)) for runs in (layout.depths, layout.columns))
    blocks: list[tuple[int, ...]] = []
    steps: list[tuple[int, ...]] = []
    lanes: list[tuple[int, ...]] = []
    for phase in layout.phases:
        for row, (column, columns) in enumerate(layout.columns):
            first = len(steps)
            for at, (channel, channels) in enumerate(depths):
                for y, x in layout.runs(int(layout.kernels[row, at]), phase):
                    steps.append((y, x, channel // unit, len(blocks)))
                    lanes.append((y, x, channel, channels, column, columns, *phase))
            blocks.append((first, len(steps) - first, column // column_unit, columns, *phase))
    scale = problem.stride
    near, far = tile.patch, (tile.patch[0] * scale[0], tile.patch[1] * scale[1])
    source_channels = links.shape.shape[0 if problem.transposed else 1]
    strides = layout.depths.stride, layout.columns.stride
    return Plan(
        tile,
        np.asarray(blocks, np.int32),
        np.asarray([*steps, (0, 0, 0, 0)], np.int32),
        (unit, column_unit),
        # In parts, since the arrays on the way are many times as large.
        np.concatenate([_index(problem, links, tile, strides, part) for part in _parts(np.asarray(lanes), 64)]),
        *((near, far) if problem.transposed else (far, near)),
        layout.spacing,
        strides,
        all(first + (tile.depth - 1) * strides[0] < source_channels for first, _ in depths),
        all(count == tile.columns for _, count in layout.columns),
    )


def _parts(rows: np.ndarray, size: int) -> list[np.ndarray]:
    return [rows[at : at + size] for at in range(0, len(rows), size)]


def _index(problem: Problem, links: Connections, tile: Tile, strides: Pair, lanes: np.ndarray) -> np.ndarray:
    """The position of the weight that step, depth lane and column lane meet in; ``lanes`` is one row a step."""
    y, x, channel, channels, column, columns, phase_y, phase_x = (part[:, None, None] for part in lanes.T)
    k, n = (np.arange(size) for size in tile.block)
    k, n = k[None, :, None], n[None, None, :]
    pixel, own = n // tile.columns, n % tile.columns
    source, x = channel + k % tile.depth * strides[0], x + k // tile.depth
    target = column + own * strides[1]
    known = (k % tile.depth < channels) & (own < columns)
    outputs, inputs = (source, target) if problem.transposed else (target, source)
    outputs, inputs = np.where(known, outputs, 0), np.where(known, inputs, 0)
    shape = links.shape[outputs, inputs]
    kh, kw, dilation = np.asarray(links.shapes, np.int32).T[:, np.maximum(shape, 0)]
    rows, row = _tap(problem, 0, y, pixel // tile.patch[1], phase_y, (kh, dilation))
    cols, col = _tap(problem, 1, x, pixel % tile.patch[1], phase_x, (kw, dilation))
    found = links.first[outputs, inputs] + row * kw + col
    return np.where(known & (shape >= 0) & rows & cols, found, -1).astype(np.int32)


def _tap(
    problem: Problem,
    axis: int,
    offset: np.ndarray,
    pixel: np.ndarray,
    phase: np.ndarray,
    kernel: tuple[np.ndarray, np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    """Whether a pixel at ``offset`` from the patch is under a tap of the patch's ``pixel``, and which."""
    stride, (size, dilation) = problem.stride[axis], kernel
    distance = phase + pixel * stride - offset * stride if problem.transposed else offset - pixel * stride
    tap = distance // dilation + size // 2
    return (distance % dilation == 0) & (tap >= 0) & (tap < size), tap
