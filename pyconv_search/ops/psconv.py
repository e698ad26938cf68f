"""Poly-scale convolution.

Li, Yao, Chen: PSConv: Squeezing Feature Pyramid into One Compact Poly-Scale Convolutional Layer, ECCV 2020; equation 3,
section 3.2 and appendices A and B. https://arxiv.org/abs/2007.06191
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyconv_search.arch.spec import shortest_period
from pyconv_search.ops.arguments import Size, check_channels, check_input, checked_pattern, odd_pair, pair
from pyconv_search.ops.convolve import convolve
from pyconv_search.ops.planning import Signature


class PSConv2d(nn.Conv2d):
    """A 2-D convolution whose dilation varies from kernel to kernel, zero-padded so that all are centred on one pixel.

    The entry (c, k) of :func:`pyconv_search.arch.dilation.dilation_matrix` is the dilation of the kernel from input
    channel k to output channel c. Weight, bias, their initialisation and the state dict are those of ``nn.Conv2d`` with
    the same channels, kernel and groups, and so is the number of multiply-adds executed; dilation d pads by
    ``d·(K − 1)/2``.

    Shape:
        N×in_channels×H×W (or without N) to N×out_channels×H'×W', where H' = ⌊(H − 1)/stride⌋ + 1 and W' alike.

    Args:
        in_channels, out_channels, groups, bias, device, dtype: as in ``nn.Conv2d``.
        kernel_size, stride: one integer, or (height, width); kernels are odd.
        pattern: the dilations of one cyclic interval.
        axes: ``both``, ``input`` or ``output``: the channel axes along which the pattern runs (Table 5). In a depthwise
            convolution (groups = in_channels) it runs over the groups (appendix A).

    Raises:
        UserError: (a ValueError) if an argument is out of its range, and in ``forward`` if the input does not fit.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size = 3,
        stride: Size = 1,
        groups: int = 1,
        bias: bool = True,
        pattern: Sequence[int] = (1, 2, 1, 4),
        axes: str = "both",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_channels(in_channels, out_channels, groups)
        kernel, strides = odd_pair("kernel_size", kernel_size), pair("stride", stride)
        dilations = checked_pattern(pattern, axes)
        half = (kernel[0] // 2, kernel[1] // 2)
        super().__init__(in_channels, out_channels, kernel, strides, half, 1, groups, bias, device=device, dtype=dtype)
        self.pattern, self.axes = dilations, axes
        self.cycle = (1,) if kernel == (1, 1) else shortest_period(dilations)
        self.sorted_in = self.sorted_out = False

    def extra_repr(self) -> str:
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        text += f", groups={self.groups}" * (self.groups != 1) + ", bias=False" * (self.bias is None)
        return f"{text}, pattern={self.pattern}" + f", axes={self.axes!r}" * (self.axes != "both")

    @property
    def signature(self) -> Signature:
        """What it computes."""
        kernel, stride = (self.kernel_size[0], self.kernel_size[1]), (self.stride[0], self.stride[1])
        level = (kernel, self.out_channels, self.groups, self.cycle, self.axes)
        return self.in_channels, (level,), stride, self.sorted_in, self.sorted_out

    def forward(self, input: Tensor) -> Tensor:
        check_input(input, self.in_channels, self.weight)
        x = input if input.dim() == 4 else input.unsqueeze(0)
        if len(self.cycle) == 1:
            dilation = self.cycle[0]
            padding = (self.kernel_size[0] // 2 * dilation, self.kernel_size[1] // 2 * dilation)
            out = F.conv2d(x, self.weight, self.bias, self.stride, padding, dilation, self.groups)
        else:
            out = convolve(x, [self.weight], self.signature)
            out = out if self.bias is None else out + self.bias.to(out.dtype).view(-1, 1, 1)
        return out if input.dim() == 4 else out.squeeze(0)
