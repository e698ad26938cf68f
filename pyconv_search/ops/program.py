"""A plan with everything that running it needs: where each piece reads, writes, and finds its weights."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pyconv_search.arch.plans.operation import Operation, canonical, depthwise, side
from pyconv_search.arch.plans.pieces import Piece, Plan

# More slices than this cost more than one gather by index.
MOST_SLICES = 32
# Numbers of two bytes that fill a vector register.
NARROW = 32

Integers = npt.NDArray[np.int64]


class Run(NamedTuple):
    """Channels ``whole`` of a tensor, and the channels of every step's (by number) of which they are the sum."""

    whole: slice
    terms: tuple[tuple[int, slice], ...]


@dataclass(frozen=True, eq=False)
class Order:
    """Channels by number; where eight always stand together, ``octets`` and ``halves`` are they by eight and four."""

    numbers: Integers
    octets: Integers | None
    halves: Integers

    @classmethod
    def of(cls, channels: Sequence[int] | Integers) -> Order:
        numbers = np.asarray(channels)
        eights = numbers.reshape(-1, 8) if len(numbers) % 8 == 0 else np.empty((0, 8), np.int64)
        together = len(eights) > 0 and (eights == eights[:, :1] // 8 * 8 + np.arange(8)).all()
        octets = eights[:, 0] // 8
        halves = np.stack([2 * octets, 2 * octets + 1], 1).reshape(-1)
        return cls(numbers, octets if together else None, halves)


@dataclass(frozen=True, eq=False)
class Sums:
    """How the tensors of the steps add up to one: run by run, or whole after each is brought into its order.

    Without either the one step's tensor is it; ``apart``: every channel is of one step. ``narrow`` says that runs are
    too short for vector instructions on numbers of two bytes whose channels come last; then there are orders, too, if
    every tensor has all channels.
    """

    runs: tuple[Run, ...] = ()
    orders: tuple[Order, ...] = ()
    narrow: bool = False
    apart: bool = False

    @property
    def one(self) -> bool:
        """Whether there is nothing to add."""
        return not self.runs and not self.orders


@dataclass(frozen=True, eq=False)
class Channels:
    """Channels to take from a tensor: all as they are, in ``slices``, or in an ``order``; each ``times`` in a row.

    ``narrow`` is as in :class:`Sums`; then there are slices and an order.
    """

    slices: tuple[slice, ...] = ()
    order: Order | None = None
    times: int = 1
    narrow: bool = False


class Block(NamedTuple):
    """Weights of a level: every one of the rows (filters) with every one of the columns (input channels of a group)."""

    level: int
    rows: tuple[slice, ...]
    columns: tuple[slice, ...]


class Share(NamedTuple):
    """Kernels ``own`` of a level, which are the kernels ``places`` of a step."""

    level: int
    own: Integers
    places: Integers


@dataclass(frozen=True, eq=False)
class Step:
    """A piece ready to run.

    ``source`` and ``target`` are the channels that it reads of the input and of the output's gradient; every
    ``target.times`` outputs in a row are summed. Its weight is ``blocks`` below one another, or the ``kernels`` of
    these numbers among those of the levels that have ``shares`` in it, behind which one of zeros comes; ``whole`` says
    that it is the weight of the one such level as it stands.
    """

    piece: Piece
    source: Channels
    target: Channels
    blocks: tuple[Block, ...] | None
    kernels: Integers
    shares: tuple[Share, ...]
    whole: bool
    # Filters, input channels and sides, without those of a strip; a property is too much for a compiler.
    shape: tuple[int, int, int, int]

    @property
    def padding(self) -> tuple[int, int]:
        """Zeros at either side, so that the kernel is centred."""
        height, width = self.piece.kernel
        return height // 2 * self.piece.dilation, width // 2 * self.piece.dilation


@dataclass(frozen=True, eq=False)
class Program:
    """The steps of a plan, and how what they put out makes the output and the gradient of the input.

    ``weights`` counts the numbers of the steps' weights.
    """

    operation: Operation
    steps: tuple[Step, ...]
    output: Sums
    input: Sums
    weights: int


@lru_cache(maxsize=1024)
def program(operation: Operation, plan: Plan) -> Program:
    """What runs a plan for this operation."""
    cells = _Cells(operation)
    steps = tuple(_step(operation, piece, cells) for piece in plan.pieces)
    targets = [piece.target[:: step.target.times] for step, piece in zip(steps, plan.pieces, strict=True)]
    sources = [piece.source for piece in plan.pieces]
    output, into = _sums(targets, operation.conv.width), _sums(sources, operation.in_channels)
    return Program(operation, steps, output, into, sum(piece.macs for piece in plan.pieces))


class _Cells:
    """Where the kernels of an operation are: of every output channel its level, filter and group, and its dilations."""

    def __init__(self, operation: Operation) -> None:
        levels = operation.conv.levels
        self.operation = operation
        self.level = np.repeat(np.arange(len(levels)), [level.width for level in levels])
        self.row = np.concatenate([np.arange(level.width) for level in levels])
        fan_ins = np.array([operation.in_channels // level.groups for level in levels])
        filters = np.array([level.width // level.groups for level in levels])
        self.fan_in = fan_ins[self.level]
        self.first = self.row // filters[self.level] * self.fan_in
        kernels = fan_ins * [level.width for level in levels]
        self.begins = np.cumsum([0, *kernels])

    def numbers(self, piece: Piece) -> Integers:
        """The kernels of a piece, filter by filter: their numbers among those of all levels, −1 for zeros."""
        source, target = np.array(piece.source), np.array(piece.target)
        groups = np.arange(len(target)) // (len(target) // piece.groups)
        column = source.reshape(piece.groups, piece.fan_in)[groups] - self.first[target][:, None]
        own = (column >= 0) & (column < self.fan_in[target][:, None])
        begin = self.begins[self.level[target]] + self.row[target] * self.fan_in[target]
        for level in np.unique(self.level[target]):
            of_level = self.level[target] == level
            dilation = self._dilation(int(level), self.row[target[of_level]], column[of_level])
            own[of_level] &= dilation == piece.dilation
        return np.where(own, begin[:, None] + column, -1).reshape(-1)

    def _dilation(self, level: int, filters: Integers, columns: Integers) -> Integers:
        """Equation 3 for these filters and columns of a level; at columns of other groups it is arbitrary."""
        operation, found = self.operation, self.operation.conv.levels[level]
        pattern, each, fan_in = (
            np.array(found.pattern),
            found.width // found.groups,
            operation.in_channels // found.groups,
        )
        rows = np.array(canonical(found.width, found.groups, found.pattern, operation.sorted_out))[filters]
        if depthwise(operation.in_channels, found):
            return np.broadcast_to(pattern[rows // each % len(pattern)][:, None], columns.shape)
        k = np.array(canonical(fan_in, 1, found.pattern, operation.sorted_in))[columns % fan_in]
        c = np.broadcast_to((rows % each)[:, None], k.shape)
        return pattern[{"both": k - c, "input": k, "output": c}[found.axes] % len(pattern)]


def _step(operation: Operation, piece: Piece, cells: _Cells) -> Step:
    numbers, kernels, before = cells.numbers(piece), np.full(len(piece.target) * piece.fan_in, -1), 0
    shares = []
    for level, (begin, end) in enumerate(itertools.pairwise(cells.begins)):
        (places,) = np.nonzero((numbers >= begin) & (numbers < end))
        if len(places):
            shares.append(Share(level, numbers[places] - begin, places))
            kernels[places] = numbers[places] - begin + before
            before += int(end - begin)
    blocks = _blocks(piece, cells, kernels)
    kernels[kernels < 0] = before
    times = _times(piece.target)
    return Step(
        piece,
        _channels(piece.source, operation.in_channels),
        _channels(piece.target[::times], operation.conv.width, times),
        blocks,
        kernels,
        tuple(shares),
        whole=len(shares) == 1 and np.array_equal(kernels, np.arange(before)),
        shape=(len(piece.target), piece.fan_in, *piece.kernel),
    )


def _channels(wanted: Sequence[int], width: int, times: int = 1) -> Channels:
    if tuple(wanted) == tuple(range(width)):
        return Channels(times=times)
    found = slices(wanted)
    if len(found) > MOST_SLICES:
        return Channels(order=Order.of(wanted), times=times)
    narrow = len(found) > 1 and len(wanted) < NARROW * len(found)
    return Channels(found, Order.of(wanted) if narrow else None, times, narrow)


def _times(target: Sequence[int]) -> int:
    """How often in a row every output channel is named."""
    times = next((i for i, channel in enumerate(target) if channel != target[0]), len(target))
    return times if list(target) == [channel for channel in target[::times] for _ in range(times)] else 1


def _blocks(piece: Piece, cells: _Cells, kernels: Integers) -> tuple[Block, ...] | None:
    """One block a group where filters and input channels are a few slices and nothing is zero; else None."""
    if piece.groups > MOST_SLICES or (kernels < 0).any():
        return None
    pieces = 0
    blocks, target, source = [], np.array(piece.target), np.array(piece.source)
    filters, fan_in = len(target) // piece.groups, piece.fan_in
    for group in range(piece.groups):
        own = target[group * filters : (group + 1) * filters]
        level = int(cells.level[own[0]])
        rows = slices(cells.row[own].tolist())
        columns = slices((source[group * fan_in : (group + 1) * fan_in] - cells.first[own[0]]).tolist())
        kernel = side(cells.operation.conv.levels[level])
        pieces += len(rows) * len(columns)
        if (cells.level[own] != level).any() or pieces > MOST_SLICES or kernel != piece.kernel:
            return None
        blocks.append(Block(level, rows, columns))
    return tuple(blocks)


def _sums(channels: Sequence[Sequence[int]], width: int) -> Sums:
    """How tensors of these channels add up to all channels, in as few evenly spaced runs as they allow."""
    if len(channels) == 1 and tuple(channels[0]) == tuple(range(width)):
        return Sums()
    places = [{channel: i for i, channel in enumerate(found)} for found in channels]
    runs: list[list[int]] = []
    for channel in dict.fromkeys(channel for found in places for channel in found):
        if runs and _continues(runs[-1], channel, places):
            runs[-1].append(channel)
        else:
            runs.append([channel])
    orders: tuple[Order, ...] = ()
    if all(len(found) == width for found in places):
        orders = tuple(Order.of(np.argsort(np.array(found))) for found in channels)
    if orders and len(runs) > MOST_SLICES:
        return Sums(orders=orders)
    terms = [tuple((i, _slice([p[c] for c in run])) for i, p in enumerate(places) if run[0] in p) for run in runs]
    found_runs = tuple(Run(_slice(run), found) for run, found in zip(runs, terms, strict=True))
    narrow, apart = bool(orders) and width < NARROW * len(runs), all(len(run.terms) == 1 for run in found_runs)
    return Sums(found_runs, orders, narrow, apart)


def _continues(run: Sequence[int], channel: int, places: Sequence[dict[int, int]]) -> bool:
    """Whether a channel goes on with a run: evenly spaced, and in every piece the next one."""
    step = channel - run[-1]
    spaced = step > 0 and (len(run) == 1 or run[1] - run[0] == step)
    return spaced and all(p.get(channel, -1) == p.get(run[-1], -2) + 1 for p in places if channel in p or run[-1] in p)


def slices(channels: Sequence[int]) -> tuple[slice, ...]:
    """A list of channels as evenly spaced slices, each as long as can be."""
    found: list[list[int]] = []
    for channel in channels:
        last = found[-1] if found else []
        if last and channel > last[-1] and (len(last) == 1 or channel - last[-1] == last[1] - last[0]):
            last.append(channel)
        else:
            found.append([channel])
    return tuple(_slice(run) for run in found)


def _slice(run: Sequence[int]) -> slice:
    return slice(run[0], run[-1] + 1, run[1] - run[0] if len(run) > 1 else 1)
