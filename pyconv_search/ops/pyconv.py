"""Pyramidal convolution.

Duta, Liu, Zhu, Shao: Pyramidal Convolution: Rethinking Convolutional Neural Networks for Visual Recognition, 2020;
section 3 and equation 1. https://arxiv.org/abs/2006.11538
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pyconv_search.arch.spec import shortest_period
from pyconv_search.errors import UserError
from pyconv_search.ops.arguments import Size, check_channels, checked_pattern, odd_pair, pair
from pyconv_search.ops.psconv import PSConv2d


class PyConv2d(nn.Module):
    """Parallel convolutions of their own kernel and groups on one input, their outputs concatenated.

    Level j of ``levels`` is a convolution of ``kernel_size[j]`` in ``groups[j]`` groups with ``out_channels[j]``
    outputs, zero-padded so that all levels put out the same height and width: an ``nn.Conv2d``, dilated where its
    pattern is one number, or a :class:`PSConv2d` where it is longer. The bottom level (smallest kernel) comes first.

    Shape:
        N×in_channels×H×W (or without N) to N×sum(out_channels)×H'×W', where H' = ⌊(H − 1)/stride⌋ + 1 and W' alike.

    Args:
        in_channels: channels of the input, all of which every level reads.
        out_channels: output channels of each level; the attribute of this name is their sum.
        kernel_size: the odd kernel of each level.
        groups: groups of each level; 1 for all if not given.
        stride: one integer, or (height, width), for all levels.
        bias: whether every level has one.
        pattern: the dilation pattern of each level; (1,) for all if not given.
        axes: as in :class:`PSConv2d`, for all levels or one for each.

    Raises:
        UserError: (a ValueError) if an argument is out of its range, and in ``forward`` if the input does not fit.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: Sequence[int],
        kernel_size: Sequence[Size],
        groups: Sequence[int] | None = None,
        stride: Size = 1,
        bias: bool = False,
        pattern: Sequence[Sequence[int]] | None = None,
        axes: str | Sequence[str] = "both",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        widths = tuple(out_channels)
        count = len(widths)
        if not count:
            raise UserError("out_channels must hold one number for each level, but got none")
        kernels = _one_each("kernel_size", kernel_size, count)
        splits = _one_each("groups", (1,) * count if groups is None else groups, count)
        patterns = _one_each("pattern", ((1,),) * count if pattern is None else pattern, count)
        directions = _one_each("axes", (axes,) * count if isinstance(axes, str) else axes, count)
        self.in_channels, self.out_channels, self.stride = in_channels, sum(widths), pair("stride", stride)
        self.levels = nn.ModuleList(
            same_conv2d(in_channels, *level, stride=stride, bias=bias, device=device, dtype=dtype)
            for level in zip(widths, kernels, splits, patterns, directions, strict=True)
        )
        self.kernel_size = tuple(odd_pair("kernel_size", kernel) for kernel in kernels)
        self.groups = splits

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.out_channels}, stride={self.stride}"

    def forward(self, input: Tensor) -> Tensor:
        if input.dim() not in (3, 4) or input.shape[-3] != self.in_channels:
            raise UserError(
                f"input must have {self.in_channels} channels, as {self.in_channels}×H×W or N×{self.in_channels}×H×W, "
                f"but got a tensor of shape {tuple(input.shape)}"
            )
        return torch.cat([level(input) for level in self.levels], -3)


def same_conv2d(
    in_channels: int,
    out_channels: int,
    kernel_size: Size,
    groups: int = 1,
    pattern: Sequence[int] = (1,),
    axes: str = "both",
    *,
    stride: Size = 1,
    **options: Any,
) -> nn.Conv2d:
    """One level: an ``nn.Conv2d`` with half-kernel padding (dilated if the pattern is one number), or a PSConv2d.

    ``options`` are bias, device and dtype. Raises UserError if an argument is out of its range.
    """
    kernel, dilations = odd_pair("kernel_size", kernel_size), shortest_period(checked_pattern(pattern, axes))
    if len(dilations) > 1 and kernel != (1, 1):
        return PSConv2d(in_channels, out_channels, kernel, stride, groups, pattern=pattern, axes=axes, **options)
    check_channels(in_channels, out_channels, groups)
    dilation = dilations[0] if kernel != (1, 1) else 1
    padding = (kernel[0] // 2 * dilation, kernel[1] // 2 * dilation)
    return nn.Conv2d(in_channels, out_channels, kernel, pair("stride", stride), padding, dilation, groups, **options)


def _one_each(name: str, values: Sequence[Any], count: int) -> tuple[Any, ...]:
    if isinstance(values, int) or len(values) != count:
        raise UserError(f"{name} must have one entry for each of the {count} levels, but got {values}")
    return tuple(values)
