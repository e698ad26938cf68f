"""``torch.nn.functional.conv2d`` and ``conv3d`` with right numbers where PyTorch's own are wrong: on CPUs.

oneDNN of PyTorch 2.13 computes gradients of weights from memory that nobody has written. What is computed in another
way here is what a search over random convolutions found wrong (``benchmarks/gradients.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pyconv_search.ops.arguments import autocast_dtype
from pyconv_search.ops.execute import layout, transformed, unsound

# Types of 16 bits, in which oneDNN computes by kernels of their own.
SHORT = (torch.bfloat16, torch.float16)


def conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: tuple[int, ...],
    padding: tuple[int, ...] | str,
    dilation: tuple[int, ...],
    groups: int,
) -> Tensor:
    """As ``torch.nn.functional.conv2d``."""
    rest = (stride, padding, dilation, groups)
    if x.device.type != "cpu" or torch.compiler.is_exporting():
        return F.conv2d(x, weight, bias, *rest)
    if max(stride) > 1 and weight.shape[1] < 16 and tuple(weight.shape[2:]) == (1, 1) and padding in ((0, 0), "valid"):
        # On images with the channels last the backward pass writes beyond its memory, and the process ends.
        return F.conv2d(x[..., :: stride[0], :: stride[1]], weight, bias, groups=groups)
    dtype = autocast_dtype(x) or x.dtype
    if dtype in SHORT and x.shape[-1] <= stride[-1] > 1:
        return _exact(F.conv2d, dtype, (x, weight, bias), rest)
    if not unsound(x.device, dtype, weight.shape[1], max(dilation)):
        return F.conv2d(x, weight, bias, *rest)
    out = F.conv2d(x.contiguous(), weight.contiguous(), bias, *rest)
    # For vmap PyTorch has no rule of channels last.
    return out if transformed() or x.dim() < 4 else out.contiguous(memory_format=layout(x))


def conv3d(x: Tensor, weight: Tensor, bias: Tensor | None, *rest: Any) -> Tensor:
    """As ``torch.nn.functional.conv3d``, all arguments by position."""
    dtype = autocast_dtype(x) or x.dtype
    if x.device.type != "cpu" or dtype not in SHORT:
        return F.conv3d(x, weight, bias, *rest)
    return _exact(F.conv3d, dtype, (x, weight, bias), rest)


def _exact(
    function: Callable[..., Tensor], dtype: torch.dtype, tensors: Sequence[Tensor | None], rest: Sequence[Any]
) -> Tensor:
    """Computed in float32, gradients too; of the type that it would have had."""
    with torch.autocast("cpu", enabled=False):
        return function(*(tensor if tensor is None else tensor.float() for tensor in tensors), *rest).to(dtype)
