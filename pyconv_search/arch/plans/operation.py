"""What a convolution of this package computes, whichever way it is executed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from pyconv_search.arch.dilation import dilation_matrix
from pyconv_search.arch.spec import Conv, Level, divisors


@dataclass(frozen=True, slots=True)
class Operation:
    """A convolution of one or more levels on an image of ``in_channels``, each level padded by half its kernel.

    Kernels of ``conv`` may have two numbers, (height, width). Where ``sorted_in`` or ``sorted_out`` is true (one level
    with a pattern only), the channels on that side are not in the order of :func:`~.dilation_matrix`, but every group
    holds its residue classes one after the other, in :func:`class_order`.
    """

    in_channels: int
    conv: Conv
    stride: tuple[int, int] = (1, 1)
    sorted_in: bool = False
    sorted_out: bool = False

    def offset(self, level: int) -> int:
        """The first output channel of a level, counted from 0."""
        return sum(each.width for each in self.conv.levels[:level])


class Coset(NamedTuple):
    """The residues ``offset + modulus·Z`` of one cyclic interval, all of the same dilation."""

    dilation: int
    modulus: int
    offset: int

    def output(self, k: int) -> int:
        """The class of the output channels that the input class ``k`` feeds: D[c, k] = pattern[(k − c) mod t]."""
        return (k - self.offset) % self.modulus


@lru_cache(maxsize=1024)
def cosets(pattern: tuple[int, ...]) -> tuple[Coset, ...]:
    """The pattern as disjoint cosets of the cyclic group Z_t, coarsest first.

    (1, 2, 1, 4) is dilation 1 at 0 + 2Z, dilation 2 at 1 + 4Z and dilation 4 at 3 + 4Z: three grouped convolutions.
    """
    t = len(pattern)
    left, found = set(range(t)), []
    for modulus in divisors(t):
        for offset in range(modulus):
            members = set(range(offset, t, modulus))
            if members <= left and len({pattern[j] for j in members}) == 1:
                found.append(Coset(pattern[offset], modulus, offset))
                left -= members
    return tuple(found)


@lru_cache(maxsize=1024)
def class_order(pattern: tuple[int, ...]) -> tuple[int, ...]:
    """The residue classes of a pattern in an order in which those of every coset stand together: 0, 2, 1, 3 for
    (1, 2, 1, 4), the digits reversed. Where moduli do not divide one another, those of the first that do.
    """
    t = len(pattern)
    chain = [1]
    for modulus in sorted({coset.modulus for coset in cosets(pattern)}):
        if modulus % chain[-1] == 0:
            chain.append(modulus)
    return tuple(sorted(range(t), key=lambda r: tuple(r % modulus for modulus in [*chain, t])))


def side(level: Level) -> tuple[int, int]:
    """The kernel of a level as (height, width)."""
    kernel = level.kernel
    return (kernel, kernel) if isinstance(kernel, int) else (kernel[-2], kernel[-1])


def depthwise(in_channels: int, level: Level) -> bool:
    """Whether the pattern runs over the groups instead of the channels of a group (PSConv, appendix A)."""
    return level.groups == in_channels and level.groups > 1


def members(size: int, pattern: tuple[int, ...], residues: Sequence[int], in_order: bool) -> list[int]:
    """The channels of a group of ``size`` that belong to these residue classes, class by class.

    ``in_order``: the group holds its classes one after the other, in :func:`class_order`.
    """
    t = len(pattern)
    if not in_order:
        return [channel for r in residues for channel in range(r, size, t)]
    each, order = size // t, class_order(pattern)
    return [channel for r in residues for channel in range(order.index(r) * each, (order.index(r) + 1) * each)]


def canonical(channels: int, groups: int, pattern: tuple[int, ...], in_order: bool) -> list[int]:
    """Of every channel the place that it has in the order of :func:`~.dilation_matrix`."""
    size = channels // groups
    if not in_order:
        return list(range(channels))
    own = members(size, pattern, class_order(pattern), in_order=False)
    return [group * size + channel for group in range(groups) for channel in own]


def sortable(channels: int, level: Level) -> bool:
    """Whether classes of ``channels`` can stand one after the other: a pattern that divides every group."""
    return len(level.pattern) > 1 and channels % (level.groups * len(level.pattern)) == 0 and level.groups < channels


def dilations(operation: Operation, level: int) -> list[list[int]]:
    """The matrix of :func:`~.dilation_matrix` of a level, its rows and columns as this operation has the channels."""
    found = operation.conv.levels[level]
    shape = (operation.in_channels, found.width, found.pattern, found.axes, found.groups)
    matrix = dilation_matrix(*shape)
    rows = canonical(found.width, found.groups, found.pattern, operation.sorted_out)
    columns = canonical(operation.in_channels // found.groups, 1, found.pattern, operation.sorted_in)
    return [[matrix[row][column] for column in columns] for row in rows]
