"""``torch.nn.functional.conv2d`` and ``conv3d`` with right numbers where PyTorch's own are wrong: on CPUs.

PyTorch 2.13 computes the gradients of some weights from memory that nobody has written (oneDNN, bfloat16), or in
another order. What is computed in another way here is what ``python -m benchmarks.gradients --torch`` finds wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad

from pyconv_search.ops.arguments import autocast_dtype

# Types of 16 bits, which have kernels of their own.
SHORT = (torch.bfloat16, torch.float16)


def conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
    groups: int,
) -> Tensor:
    """As ``torch.nn.functional.conv2d``, all arguments by position."""
    rest = (stride, padding, dilation, groups)
    if x.device.type != "cpu" or torch.compiler.is_exporting():
        return F.conv2d(x, weight, bias, *rest)
    if skips(x.device, weight, stride, padding):
        return conv2d(x[..., :: stride[0], :: stride[1]], weight, bias, (1, 1), padding, dilation, groups)
    if narrow(x, stride[1]):
        width = (x.shape[-1] + 2 * padding[1] - dilation[1] * (weight.shape[3] - 1) - 1) // stride[1] + 1
        return conv2d(widened(x, stride[1] + 1 - x.shape[-1]), weight, bias, *rest)[..., :width]
    dtype = autocast_dtype(x) or x.dtype
    if dtype in SHORT and x.shape[0] == 1 and not torch.compiler.is_compiling() and transformed():
        # The members of a stack are groups, whose one image has strides that PyTorch misreads on CPUs without AVX512.
        return _exact(F.conv2d, dtype, (x, weight, bias), rest)
    if not unsound(x.device, dtype, weight.shape[1], max(dilation)):
        return F.conv2d(x, weight, bias, *rest)
    out = F.conv2d(x.contiguous(), weight.contiguous(), bias, *rest)
    # For vmap PyTorch has no rule of channels last.
    return out if transformed() or x.dim() < 4 else out.contiguous(memory_format=layout(x))


def conv3d(x: Tensor, weight: Tensor, bias: Tensor | None, *rest: Any) -> Tensor:
    """As ``torch.nn.functional.conv3d``, all arguments by position.

    In 16 bits the gradient of the weight is wrong for many sizes, of the papers' stem (5×7×7, stride 1, 2, 2) for one.
    """
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


def skips(device: torch.device, weight: Tensor, stride: tuple[int, ...], padding: tuple[int, ...]) -> bool:
    """Whether a 1×1 convolution has to be given only the pixels that it reads.

    With the channels last and less than 16 input channels, what oneDNN 3 makes the gradient of its weight with writes
    beyond its memory: into other tensors, or the process ends (PyTorch 2.13, CPUs).
    """
    pointwise = tuple(weight.shape[2:]) == (1, 1) and padding == (0, 0)
    return pointwise and max(stride) > 1 and weight.shape[1] < 16 and device.type == "cpu"


def narrow(x: Tensor, stride: int) -> bool:
    """Whether the gradient of a weight may be wrong as images are at most as wide as the stride."""
    return x.device.type == "cpu" and 0 < x.shape[-1] <= stride > 1


def widened(x: Tensor, more: int) -> Tensor:
    """With columns of zeros at the right; itself if there are none."""
    return F.pad(x, (0, more)) if more else x


def unsound(device: torch.device, dtype: torch.dtype, fan_in: int, dilation: int) -> bool:
    """Whether the gradient of the weight of a dilated convolution may be wrong on images with their channels last.

    On CPUs the oneDNN of PyTorch 2.13 makes it in bfloat16 of memory that nobody has written, where the number of input
    channels of a group, ``fan_in``, is no multiple of 16; that of ``nn.Conv2d``, too. Contiguous tensors are right.
    """
    return dilation > 1 and fan_in % 16 > 0 and dtype == torch.bfloat16 and device.type == "cpu"


def transformed() -> bool:
    """Whether functions are being transformed (``torch.func``) or differentiated forwards."""
    return torch._C._functorch.peek_interpreter_stack() is not None or forward_ad._current_level >= 0


def layout(x: Tensor) -> torch.memory_format:
    """The memory format of images or of a weight by its strides; contiguous where they fit both, as in PyTorch."""
    last = x.stride(1) == 1 and x.stride(3) >= x.shape[1] and x.shape[1:].numel() > 1
    return torch.channels_last if last else torch.contiguous_format
