"""From the specification of a convolution to its module: one line in the table for every operator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from pyconv_search.arch.spec import Conv
from pyconv_search.arch.trace import Size
from pyconv_search.errors import UserError
from pyconv_search.ops.psconv import PSConv2d
from pyconv_search.ops.pyconv import PyConv2d, same_conv2d
from pyconv_search.ops.video import PyConv3d, same_conv3d


@dataclass(frozen=True, slots=True)
class Operator:
    """Which convolutions an operator is for, and its module from (specification, input channels, stride)."""

    accepts: Callable[[Conv], bool]
    module: Callable[[Conv, int, Any], nn.Module]


# Kernels and strides have one number, or two (images) or three (video); Architecture has checked that they agree.
def _video(stride: Any) -> bool:
    return isinstance(stride, tuple) and len(stride) == 3


def _standard(conv: Conv, in_width: int, stride: Any) -> nn.Module:
    (level,) = conv.levels
    kernel: Any = level.kernel
    if _video(stride):
        return same_conv3d(in_width, level.width, kernel, level.groups, stride)
    return same_conv2d(
        in_width, level.width, kernel, level.groups, level.pattern, level.axes, stride=stride, bias=False
    )


def _poly_scale(conv: Conv, in_width: int, stride: Any) -> nn.Module:
    (level,) = conv.levels
    kernel: Any = level.kernel
    return PSConv2d(in_width, level.width, kernel, stride, level.groups, False, level.pattern, level.axes)


def _pyramidal(conv: Conv, in_width: int, stride: Any) -> nn.Module:
    widths = [level.width for level in conv.levels]
    kernels: list[Any] = [level.kernel for level in conv.levels]
    groups = [level.groups for level in conv.levels]
    if _video(stride):
        return PyConv3d(in_width, widths, kernels, groups, stride)
    patterns, axes = [level.pattern for level in conv.levels], [level.axes for level in conv.levels]
    return PyConv2d(in_width, widths, kernels, groups, stride, pattern=patterns, axes=axes)


# The first operator that accepts a convolution builds it.
OPERATORS: dict[str, Operator] = {
    "standard": Operator(lambda conv: len(conv.levels) == 1 and len(conv.levels[0].pattern) == 1, _standard),
    "poly-scale": Operator(lambda conv: len(conv.levels) == 1, _poly_scale),
    "pyramidal": Operator(lambda conv: len(conv.levels) > 1, _pyramidal),
}


def operator_of(conv: Conv) -> str:
    """The name of the operator in ``OPERATORS`` that builds ``conv``; raises UserError if there is none."""
    for name, operator in OPERATORS.items():
        if operator.accepts(conv):
            return name
    raise UserError(f"levels must be one or more, but got a convolution of {len(conv.levels)}")


def build_conv(conv: Conv, in_width: int, stride: Size) -> nn.Module:
    """The module of ``conv`` for ``in_width`` input channels, without bias, zero-padded by half its kernel.

    Shape:
        N×in_width×H×W to N×conv.width×(⌊(H − 1)/stride⌋ + 1)×(⌊(W − 1)/stride⌋ + 1); with a stride of three numbers
        (time, height, width), N×in_width×T×H×W alike.

    Raises:
        UserError: if the groups of a level do not divide its channels.
    """
    return OPERATORS[operator_of(conv)].module(conv, in_width, stride)
