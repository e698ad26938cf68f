"""A dilated convolution of one dilation."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from pyconv_search.ops.arguments import autocast_dtype
from pyconv_search.ops.execute import layout, transformed, unsound


class DilatedConv2d(nn.Conv2d):
    """An ``nn.Conv2d`` that computes on contiguous tensors where the gradient of its weight would else be wrong."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return dilated_conv2d(input, weight, bias, self.stride, self.padding, self.dilation, self.groups)


def dilated_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None, *rest: Any) -> Tensor:
    """As ``torch.nn.functional.conv2d``, all arguments by position, with right gradients where its own are wrong."""
    _, _, dilation, _ = rest
    largest = dilation if isinstance(dilation, int) else max(dilation)
    if not unsound(x.device, autocast_dtype(x) or x.dtype, weight.shape[1], largest):
        return F.conv2d(x, weight, bias, *rest)
    out = F.conv2d(x.contiguous(), weight.contiguous(), bias, *rest)
    # For vmap PyTorch has no rule of channels last.
    return out if transformed() or x.dim() < 4 else out.contiguous(memory_format=layout(x))
