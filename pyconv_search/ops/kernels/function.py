"""Multi-scale convolution as a function of tensors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pyconv_search.errors import UserError
from pyconv_search.ops.arguments import Size, autocast_dtype, pair
from pyconv_search.ops.kernels.level import Level, encode

DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def multi_scale_conv2d(
    x: Tensor, weights: Sequence[Tensor], levels: tuple[Level, ...], stride: Size = 1, bias: Tensor | None = None
) -> Tensor:
    """Convolutions of several kernels, groups and dilations on one input, concatenated; one kernel launch.

    Results are reproducible to the bit on one machine. Under autocast it computes in autocast's dtype, as convolutions
    do.
    A pixel that is infinite or not a number makes those outputs not a number in whose products it meets a zero of a
    widened group, too. Call it once before capturing a CUDA graph: the first call on a shape tunes.

    Shape:
        N×C×H×W in any memory format to N×sum(width)×H'×W' in channels_last, with H' = ⌊(H − 1)/stride⌋ + 1, W' alike.

    Args:
        x: the image, in float32, float16 or bfloat16; float32 is multiplied in TF32 if torch allows convolutions that.
        weights: of each level, width × C/groups × height × width of its kernel.
        levels: what each convolves by.
        stride: one integer, or (height, width), for all levels.
        bias: one number for every output channel.

    Raises:
        UserError: if arguments do not fit one another, or, when it runs, the kernels cannot on x's device. Tensors of
            shapes alone (``meta``, fake) pass anywhere.
    """
    from pyconv_search.ops.kernels import operators

    strides, text = pair("stride", stride), encode(levels)
    dtype = autocast_dtype(x)
    if dtype is not None:
        x, weights = x.to(dtype), [weight.to(dtype) for weight in weights]
        bias = None if bias is None else bias.to(dtype)
    _check(x, weights, levels, bias)
    flat = [weight.reshape(-1) for weight in weights]
    return operators.conv(x, flat[0] if len(flat) == 1 else torch.cat(flat), bias, text, list(strides))


def _check(x: Tensor, weights: Sequence[Tensor], levels: tuple[Level, ...], bias: Tensor | None) -> None:
    if x.dim() != 4 or x.dtype not in DTYPES:
        legal = ", ".join(str(dtype).removeprefix("torch.") for dtype in DTYPES)
        raise UserError(f"x must be N×C×H×W of {legal}, but got {x.dtype} of shape {tuple(x.shape)}")
    if not levels or len(weights) != len(levels):
        raise UserError(f"weights must have one entry for each of the {len(levels)} levels, but got {len(weights)}")
    wanted = [(f"weights[{j}]", weights[j], level.weight_shape(x.shape[1])) for j, level in enumerate(levels)]
    extra = [] if bias is None else [("bias", bias, (sum(level.width for level in levels),))]
    for name, tensor, shape in [*wanted, *extra]:
        if tuple(tensor.shape) != shape or tensor.dtype != x.dtype or tensor.device != x.device:
            raise UserError(
                f"{name} must be {x.dtype} of shape {shape} on {x.device}, "
                f"but got {tensor.dtype} of shape {tuple(tensor.shape)} on {tensor.device}"
            )
