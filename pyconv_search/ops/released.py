"""The poly-scale convolution of the published code, and its weights as those of :class:`PSConv2d`.

The release of Li et al. (https://github.com/d-li14/PSConv, PSConv2d and PSGConv2d) sorts the channels of each group
into ``parts`` consecutive blocks and adds three convolutions: ``gwconv`` of dilation d from each block to itself,
``gwconv_shift`` of dilation 2·d from each block to the one half the group away, and ``conv`` of dilation 1, whose
kernels are masked where the other two act. With i the block of the input and o that of the output, the dilation is thus
d for i = o, 2·d for i − o = parts/2, else 1. Its networks have four parts and d = 2: the cycle (2, 1, 4, 1), which is
(1, 2, 1, 4) turned by one.

There are two readings of the mask. ``corrected`` is the one of the paper: it covers these two blocks of each group. The
``released`` one counts the first block of group j as j·groups instead of j·parts, so that with groups other than 1 and
``parts`` it covers other cells: some cells of the kernel lattice carry two kernels and others may carry none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pyconv_search.errors import UserError
from pyconv_search.ops.arguments import check_channels
from pyconv_search.ops.plain import Conv2d
from pyconv_search.ops.sound import conv2d

READINGS = ("corrected", "released")


class ReleasedPSConv2d(nn.Module):
    """The published layer as it is published, with the ``released`` reading of the mask; its state dict is that one's.

    Kernels are 3×3 and there is no bias. It executes 1 + 2/parts times the multiply-adds of a PSConv2d.

    Shape:
        N×in_channels×H×W (or without N) to N×out_channels×H'×W', where H' = ⌊(H − 1)/stride⌋ + 1 and W' alike.

    Args:
        in_channels, out_channels, stride, groups, device, dtype: as in ``nn.Conv2d``.
        parts: blocks of channels in each group, an even number.
        dilation: d above.

    Raises:
        UserError: (a ValueError) if groups·parts does not divide the channels or ``parts`` is odd.
    """

    keep: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int | tuple[int, int] = 1,
        groups: int = 1,
        parts: int = 4,
        dilation: int = 2,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        if parts < 2 or parts % 2:
            raise UserError(f"parts must be an even number of 2 or more, but got {parts}")
        check_channels(in_channels, out_channels, groups * parts)
        super().__init__()
        self.in_channels, self.out_channels, self.groups, self.parts = in_channels, out_channels, groups, parts

        def level(reach: int, blocks: int) -> Conv2d:
            return Conv2d(
                in_channels, out_channels, 3, stride, reach, reach, blocks, bias=False, device=device, dtype=dtype
            )

        self.gwconv = level(dilation, groups * parts)
        self.gwconv_shift = level(2 * dilation, groups * parts)
        self.conv = level(1, groups)
        keep = ~masked_cells(in_channels, out_channels, groups, parts, "released")
        self.register_buffer("keep", keep[:, :, None, None].to(device), persistent=False)

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.out_channels}, groups={self.groups}, parts={self.parts}"

    def forward(self, input: Tensor) -> Tensor:
        half = self.in_channels // (2 * self.groups)
        swapped = input.unflatten(-3, (self.groups, 2, half)).flip(-4).flatten(-5, -3)
        conv = self.conv
        # A product and no hook on the weight, so that copies of the module keep the mask.
        rest = conv2d(input, conv.weight * self.keep, None, conv.stride, (1, 1), conv.dilation, self.groups)
        return self.gwconv(input) + rest + self.gwconv_shift(swapped)


def masked_cells(in_channels: int, out_channels: int, groups: int, parts: int, reading: str) -> Tensor:
    """Where ``conv`` carries no kernel: a boolean out_channels-by-(in_channels / groups) matrix."""
    first = parts if reading == "corrected" else groups
    blocks = torch.zeros(groups * parts, parts, dtype=torch.bool, device="cpu")
    for group in range(groups):
        for i in range(parts):
            for o in (i, (i + parts // 2) % parts):
                # The released index runs over the end, where a slice assignment does nothing.
                if group * first + o < len(blocks):
                    blocks[group * first + o, i] = True
    count = groups * parts
    return blocks.repeat_interleave(out_channels // count, 0).repeat_interleave(in_channels // count, 1)


class Rotation(NamedTuple):
    """A cycle as the released one: ``cycle[(i − o + shift) mod t]`` is the dilation from block i to block o."""

    shift: int
    dilation: int


def rotation(cycle: Sequence[int]) -> Rotation | None:
    """How the released cycle (d, 1, …, 2·d, 1, …) is rotated to give ``cycle``; None if it is not."""
    t = len(cycle)
    for shift, d in enumerate(cycle):
        wanted = [d if j == 0 else 2 * d if 2 * j == t else 1 for j in range(t)]
        if t % 2 == 0 and [cycle[(j + shift) % t] for j in range(t)] == wanted:
            return Rotation(shift, d)
    return None


def order(channels: int, groups: int, parts: int, shift: int) -> Tensor:
    """For each channel of ours the released one, where our residue class r is the released block r − ``shift``."""
    own = torch.arange(channels // groups, device="cpu")
    local = (own - shift) % parts * (channels // groups // parts) + own // parts
    return (torch.arange(groups, device="cpu")[:, None] * (channels // groups) + local).flatten()


def merged(gwconv: Tensor, gwconv_shift: Tensor, conv: Tensor, groups: int, parts: int, shift: int) -> Tensor:
    """The released weights as one PSConv2d weight, its channels in the :func:`order` of ``shift`` (in) and 0 (out).

    Kernels that ``conv`` has in cells which the other two fill are dropped.
    """
    filters, fan_in = conv.shape[0] // (groups * parts), gwconv.shape[1]
    kernel = conv.shape[2:]
    whole = conv.clone(memory_format=torch.contiguous_format).view(groups, parts, filters, parts, fan_in, *kernel)
    near, far = (part.reshape(groups, parts, filters, fan_in, *kernel) for part in (gwconv, gwconv_shift))
    for o in range(parts):
        whole[:, o, :, o] = near[:, o]
        whole[:, o, :, (o + parts // 2) % parts] = far[:, o]
    return whole.view(conv.shape)[order(conv.shape[0], groups, parts, 0)][:, order(conv.shape[1], 1, parts, shift)]
