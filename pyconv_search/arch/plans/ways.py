"""The ways in which the levels of a convolution can be executed, as pieces; each covers every weight exactly once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from math import gcd

from pyconv_search.arch.dilation import dilations_used
from pyconv_search.arch.plans.operation import (
    Operation,
    class_order,
    cosets,
    depthwise,
    members,
    side,
)
from pyconv_search.arch.plans.pieces import Piece
from pyconv_search.arch.spec import Level, divisors

# Filters of a group beyond which there is nothing left to fill with strips.
MOST_FILTERS = 32

# A way from (operation, numbers of its levels, groups) to its pieces.
Way = Callable[[Operation, Sequence[int], int], list[Piece]]


def grouped(operation: Operation, numbers: Sequence[int], groups: int) -> list[Piece]:
    """One convolution of the groups of the level or of fewer; several levels become one of the largest kernel."""
    levels = [(number, operation.conv.levels[number]) for number in numbers]
    kernels = [side(level) for _, level in levels]
    kernel = (max(height for height, _ in kernels), max(width for _, width in kernels))
    target = [
        channel
        for group in range(groups)
        for number, level in levels
        for channel in _share(operation.offset(number), level.width, groups, group)
    ]
    return [Piece(kernel, levels[0][1].pattern[0], groups, tuple(range(operation.in_channels)), tuple(target))]


def swapped(operation: Operation, numbers: Sequence[int], groups: int) -> list[Piece]:
    """As ``grouped``, but for the gradient of the weight: PyTorch works on blocks of output channels, of which a
    convolution with few filters a group has few; in the convolution that leads back they are the input channels.
    """
    return [replace(piece, swapped=True) for piece in grouped(operation, numbers, groups)]


def strips(operation: Operation, numbers: Sequence[int], groups: int, pixels: int) -> list[Piece]:
    """As ``grouped``, with several pixels of a row as further filters, which fill the blocks of output channels."""
    extra = (pixels - 1) * operation.stride[1]
    return [replace(piece, strip=pixels, extra=extra) for piece in grouped(operation, numbers, groups)]


def depthwise_sum(operation: Operation, numbers: Sequence[int], groups: int) -> list[Piece]:
    """Depthwise convolutions of all channels, one for each filter of a group; the outputs of a group are summed."""
    (number,) = numbers
    level, offset = operation.conv.levels[number], operation.offset(number)
    filters, fan_in = level.width // level.groups, operation.in_channels // level.groups
    everything = tuple(range(operation.in_channels))
    return [
        Piece(
            side(level),
            level.pattern[0],
            operation.in_channels,
            everything,
            tuple(offset + channel // fan_in * filters + j for channel in everything),
        )
        for j in range(filters)
    ]


def masked(operation: Operation, numbers: Sequence[int], groups: int) -> list[Piece]:
    """For each dilation the whole convolution, with zeros where the dilation is another."""
    (number,) = numbers
    level = operation.conv.levels[number]
    source, offset = tuple(range(operation.in_channels)), operation.offset(number)
    target = tuple(range(offset, offset + level.width))
    used = dilations_used(operation.in_channels, level.width, level.pattern, level.axes, level.groups)
    return [Piece(side(level), dilation, groups, source, target) for dilation in sorted(used)]


def split(operation: Operation, numbers: Sequence[int], groups: int) -> list[Piece]:
    """Grouped convolutions without a masked weight: one for each dilation, or where the pattern runs along both axes
    one for each coset, whose residue classes are further groups (PSConv, appendix B).
    """
    (number,) = numbers
    level = operation.conv.levels[number]
    if depthwise(operation.in_channels, level) or level.axes != "both":
        return list(_by_dilation(operation, number))
    return list(_cosets(operation, number, dense=False))


def per_class(operation: Operation, numbers: Sequence[int], groups: int) -> list[Piece]:
    """As ``split``, with a convolution of its own for every residue class of a coset."""
    (number,) = numbers
    return list(_cosets(operation, number, dense=True))


WAYS: dict[str, Way] = {
    "grouped": grouped,
    "swapped": swapped,
    "strips2": partial(strips, pixels=2),
    "strips4": partial(strips, pixels=4),
    "depthwise": depthwise_sum,
    "split": split,
    "per-class": per_class,
    "masked": masked,
}

# Those whose names end in a number of groups, as in grouped-4.
COUNTED = ("grouped", "swapped", "strips2", "strips4", "masked")


def ways(operation: Operation, numbers: Sequence[int]) -> list[str]:
    """The names of the ways for these levels together, as :func:`pieces` takes them: ``grouped-4`` has 4 groups."""
    levels = [operation.conv.levels[number] for number in numbers]
    shared = divisors(gcd(*(level.groups for level in levels)))
    if len(levels) > 1:
        same = len({level.pattern for level in levels}) == 1 and len(levels[0].pattern) == 1
        return [f"grouped-{groups}" for groups in shared] if same else []
    (level,) = levels
    if len(level.pattern) == 1:
        return list(_ways_of_one_dilation(operation, level, shared))
    along_both = level.axes == "both" and not depthwise(operation.in_channels, level)
    return ["split", *["per-class"] * along_both, *(f"masked-{groups}" for groups in shared)]


def _ways_of_one_dilation(operation: Operation, level: Level, shared: Sequence[int]) -> Iterator[str]:
    yield from (f"grouped-{groups}" for groups in shared)
    if level.kernel == 1:
        return
    if operation.stride == (1, 1):
        yield from (f"swapped-{groups}" for groups in shared)
    if level.pattern == (1,):
        for pixels in (2, 4):
            yield from (
                f"strips{pixels}-{groups}" for groups in shared if level.width // groups * pixels <= MOST_FILTERS
            )
    if 1 < level.groups < operation.in_channels:
        yield "depthwise"


def pieces(operation: Operation, numbers: Sequence[int], way: str) -> list[Piece]:
    """The pieces of one of :func:`ways`."""
    name, _, groups = way.rpartition("-")
    if not groups.isdigit():
        name, groups = way, "1"
    return WAYS[name](operation, numbers, int(groups))


def _share(offset: int, width: int, groups: int, group: int) -> range:
    """The channels of one group of ``groups``, of ``width`` that begin at ``offset``."""
    each = width // groups
    return range(offset + group * each, offset + (group + 1) * each)


def _by_dilation(operation: Operation, number: int) -> Iterator[Piece]:
    """One convolution a dilation, for a pattern along one axis or along the groups of a depthwise convolution."""
    level, offset = operation.conv.levels[number], operation.offset(number)
    pattern, groups, filters = level.pattern, level.groups, level.width // level.groups
    fan_in = operation.in_channels // groups
    if depthwise(operation.in_channels, level):
        for dilation in sorted(set(pattern[:groups])):
            own = [g for g in range(groups) if pattern[g % len(pattern)] == dilation]
            target = [offset + g * filters + j for g in own for j in range(filters)]
            yield Piece(side(level), dilation, len(own), tuple(own), tuple(target))
        return
    along_input = level.axes == "input"
    order = class_order(pattern)
    for dilation in sorted(set(pattern[: fan_in if along_input else filters])):
        residues = [r for r in order if pattern[r] == dilation]
        into = members(fan_in, pattern, residues if along_input else order, operation.sorted_in)
        out = members(filters, pattern, order if along_input else residues, operation.sorted_out)
        yield _piece(level, dilation, groups, [into], [out], (fan_in, filters, offset))


def _cosets(operation: Operation, number: int, dense: bool) -> Iterator[Piece]:
    """The pieces of every coset: one with the residue classes as groups if they are of equal size, else one a class."""
    level, offset = operation.conv.levels[number], operation.offset(number)
    pattern, groups, filters = level.pattern, level.groups, level.width // level.groups
    fan_in = operation.in_channels // groups
    order = class_order(pattern)
    for coset in cosets(pattern):
        modulus = coset.modulus
        outer = list(dict.fromkeys(r % modulus for r in order))
        classes = {k: [r for r in order if r % modulus == k] for k in outer}
        into = [members(fan_in, pattern, classes[k], operation.sorted_in) for k in outer]
        out = [members(filters, pattern, classes[coset.output(k)], operation.sorted_out) for k in outer]
        numbers = (fan_in, filters, offset)
        if dense or fan_in % modulus or filters % modulus:
            pairs = [(a, b) for a, b in zip(into, out, strict=True) if a and b]
            yield from (_piece(level, coset.dilation, groups, [a], [b], numbers) for a, b in pairs)
        else:
            yield _piece(level, coset.dilation, groups, into, out, numbers)


def _piece(
    level: Level,
    dilation: int,
    groups: int,
    into: Sequence[Sequence[int]],
    out: Sequence[Sequence[int]],
    numbers: tuple[int, int, int],
) -> Piece:
    """A convolution in which ``into[i]`` of every group feeds ``out[i]`` of the same group."""
    fan_in, filters, offset = numbers
    source = [g * fan_in + channel for g in range(groups) for part in into for channel in part]
    target = [offset + g * filters + channel for g in range(groups) for part in out for channel in part]
    return Piece(side(level), dilation, groups * len(into), tuple(source), tuple(target))
