"""Convolutions of one dilation: ``nn.Conv2d``, and kinds of it that go around what PyTorch computes wrongly."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyconv_search.ops.arguments import autocast_dtype
from pyconv_search.ops.execute import layout, transformed, unsound


class DilatedConv2d(nn.Conv2d):
    """An ``nn.Conv2d`` that computes on contiguous tensors where the gradient of its weight would else be wrong."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return dilated_conv2d(input, weight, bias, self.stride, self.padding, self.dilation, self.groups)


class StridedPointwiseConv2d(nn.Conv2d):
    """A 1×1 ``nn.Conv2d`` with a stride that reads the pixels it needs and no others.

    On CPUs the backward pass of PyTorch 2.13 writes beyond its memory for fewer than 16 input channels a group with the
    channels last, and the process ends.
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if input.device.type != "cpu" or torch.compiler.is_compiling():
            return super()._conv_forward(input, weight, bias)
        down, across = self.stride
        return F.conv2d(input[..., ::down, ::across], weight, bias, groups=self.groups)


# As types of a module, not of its subclasses: what nn.Conv2d computes, with its parameters.
PLAIN = (nn.Conv2d, DilatedConv2d, StridedPointwiseConv2d)


def plain_kind(kernel: tuple[int, int], stride: tuple[int, int], fan_in: int, dilation: int) -> type[nn.Conv2d]:
    """The kind of a convolution with ``fan_in`` input channels a group."""
    if dilation > 1:
        return DilatedConv2d
    return StridedPointwiseConv2d if kernel == (1, 1) and max(stride) > 1 and fan_in < 16 else nn.Conv2d


def dilated_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None, *rest: Any) -> Tensor:
    """As ``torch.nn.functional.conv2d``, all arguments by position, with right gradients where its own are wrong."""
    _, _, dilation, _ = rest
    largest = dilation if isinstance(dilation, int) else max(dilation)
    if not unsound(x.device, autocast_dtype(x) or x.dtype, weight.shape[1], largest):
        return F.conv2d(x, weight, bias, *rest)
    out = F.conv2d(x.contiguous(), weight.contiguous(), bias, *rest)
    # For vmap PyTorch has no rule of channels last.
    return out if transformed() or x.dim() < 4 else out.contiguous(memory_format=layout(x))
