"""One level of a multi-scale convolution, and its channels' groups and residue classes."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from pyconv_search.errors import UserError
from pyconv_search.ops.arguments import check_channels, odd_pair

Order = tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class Level:
    """A convolution whose dilation depends on the residue classes of the two channels that a kernel connects.

    Inside each group, channel k of the input is in class k mod t_in and channel c of the output in class c mod t_out;
    the kernel between them has dilation ``dilations[c mod t_out][k mod t_in]`` and is padded by d·(K − 1)/2. One entry
    is a standard (or dilated) convolution; PSConv (Li et al., 2020, equation 3) has
    ``dilations[o][i] = pattern[(i − o) mod t]`` and its one-axis variants a single row or column.

    Args:
        width: output channels.
        kernel: (height, width), both odd.
        groups: convolution groups.
        dilations: t_out rows of t_in dilations, each 1 or more.
        sorted_in, sorted_out: None where channels stand in their natural order (classes interleaved), else the order of
            the classes, one block of channels each, inside every group. Weights are in the order of the channels.

    Raises:
        UserError: if a value is out of its range, whatever the number of input channels.
    """

    width: int
    kernel: tuple[int, int]
    groups: int = 1
    dilations: tuple[tuple[int, ...], ...] = ((1,),)
    sorted_in: Order = None
    sorted_out: Order = None
    # Made once, since torch.compile cannot trace how.
    text: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        odd_pair("kernel", self.kernel)
        check_channels(self.groups, self.width, self.groups)
        rows = self.dilations
        if not rows or not rows[0] or len({len(row) for row in rows}) > 1:
            raise UserError(f"dilations must be a matrix with at least one entry, such as ((1,),), but got {rows}")
        for dilation in (d for row in rows for d in row):
            if type(dilation) is not int or dilation < 1:
                raise UserError(f"dilations must hold integers of 1 or more, but got {dilation!r}")
        _check_order("sorted_in", self.sorted_in, len(rows[0]))
        _check_order("sorted_out", self.sorted_out, len(rows))
        values = self.width, self.kernel, self.groups, rows, self.sorted_in, self.sorted_out
        object.__setattr__(self, "text", json.dumps(values, separators=(",", ":")))

    def input_classes(self, channels: int) -> np.ndarray:
        """The class of every channel of one group's input, of ``channels`` in all."""
        return _classes(channels, len(self.dilations[0]), self.sorted_in)

    def output_classes(self) -> np.ndarray:
        """The class of every channel of one group's output."""
        return _classes(self.width // self.groups, len(self.dilations), self.sorted_out)

    def weight_shape(self, in_channels: int) -> tuple[int, int, int, int]:
        """The shape of its weight, as ``nn.Conv2d`` has it; raises UserError if groups do not divide the channels."""
        check_channels(in_channels, self.width, self.groups)
        return self.width, in_channels // self.groups, *self.kernel


def _check_order(name: str, order: Order, count: int) -> None:
    if order is not None and sorted(order) != list(range(count)):
        raise UserError(f"{name} must be None or an order of the classes 0 to {count - 1}, but got {order}")


def _classes(channels: int, count: int, order: Order) -> np.ndarray:
    natural = np.arange(channels) % count
    if order is None:
        return natural
    return np.repeat(np.asarray(order), [np.count_nonzero(natural == r) for r in order])


def encode(levels: Sequence[Level]) -> str:
    """``levels`` as text, in which form a custom operator can take them."""
    return f"[{','.join([level.text for level in levels])}]"


@functools.cache
def decode(text: str) -> tuple[Level, ...]:
    """The levels that :func:`encode` gave ``text`` for."""

    def frozen(value: object) -> object:
        return tuple(frozen(one) for one in value) if isinstance(value, list) else value

    return tuple(Level(*(frozen(field) for field in fields)) for fields in json.loads(text))  # type: ignore[arg-type]
