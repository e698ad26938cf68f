"""Convolutions of one dilation, with right numbers where PyTorch's own are wrong.

All convolutions of a network that are no :class:`PSConv2d` or :class:`PyConv2d` are of these two classes, which hold the
weights and go by the names of ``nn.Conv2d`` and ``nn.Conv3d``.
"""

from __future__ import annotations

from torch import Tensor, nn

from pyconv_search.ops.sound import conv2d, conv3d


class Conv2d(nn.Conv2d):
    """An ``nn.Conv2d`` whose output and gradients are right in every type on CPUs, too."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self.padding_mode != "zeros":
            return super()._conv_forward(input, weight, bias)
        return conv2d(input, weight, bias, self.stride, self.padding, self.dilation, self.groups)


class Conv3d(nn.Conv3d):
    """An ``nn.Conv3d`` whose output and gradients are right in every type on CPUs, too."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self.padding_mode != "zeros":
            return super()._conv_forward(input, weight, bias)
        return conv3d(input, weight, bias, self.stride, self.padding, self.dilation, self.groups)


# As types of a module, not of its subclasses: what nn.Conv2d computes, with its parameters.
PLAIN = (nn.Conv2d, Conv2d)
