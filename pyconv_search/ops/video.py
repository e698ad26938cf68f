"""Pyramidal convolution over time, height and width (PyConv, supplement, section 2)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pyconv_search.errors import UserError
from pyconv_search.ops.arguments import check_channels
from pyconv_search.ops.plain import Conv3d

Size3 = int | tuple[int, int, int]


class PyConv3d(nn.Module):
    """Parallel 3-D convolutions of their own kernel and groups on one clip, their outputs concatenated.

    Shape:
        N×in_channels×T×H×W to N×sum(out_channels)×T'×H'×W', where T' = ⌊(T - 1)/stride⌋ + 1, H' and W' alike.

    Args:
        in_channels: channels of the input, all of which every level reads.
        out_channels, kernel_size, groups: one entry a level, the bottom one first; kernels are odd, one number or
            (time, height, width).
        stride: one integer, or (time, height, width), for all levels.

    Raises:
        UserError: (a ValueError) if an argument is out of its range.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: Sequence[int],
        kernel_size: Sequence[Size3],
        groups: Sequence[int] | None = None,
        stride: Size3 = 1,
        bias: bool = False,
    ) -> None:
        super().__init__()
        splits = (1,) * len(out_channels) if groups is None else tuple(groups)
        if not out_channels or not len(out_channels) == len(kernel_size) == len(splits):
            raise UserError(
                "out_channels, kernel_size and groups must have one entry for each level, "
                f"but got {out_channels}, {kernel_size} and {groups}"
            )
        self.in_channels, self.out_channels = in_channels, sum(out_channels)
        self.levels = nn.ModuleList(
            same_conv3d(in_channels, width, kernel, split, stride, bias)
            for width, kernel, split in zip(out_channels, kernel_size, splits, strict=True)
        )

    def forward(self, input: Tensor) -> Tensor:
        return torch.cat([level(input) for level in self.levels], -4)


def same_conv3d(
    in_channels: int, out_channels: int, kernel_size: Size3, groups: int = 1, stride: Size3 = 1, bias: bool = False
) -> nn.Conv3d:
    """One level: an ``nn.Conv3d`` with half-kernel padding. Raises UserError if an argument is out of its range."""
    check_channels(in_channels, out_channels, groups)
    kernel = (kernel_size,) * 3 if isinstance(kernel_size, int) else tuple(kernel_size)
    if len(kernel) != 3 or any(side < 1 or side % 2 == 0 for side in kernel):
        raise UserError(f"kernel_size must be odd, one number or (time, height, width), but got {kernel_size}")
    half = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
    return Conv3d(in_channels, out_channels, kernel, stride, half, groups=groups, bias=bias)
