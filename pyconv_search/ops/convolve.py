"""What the modules of this package call: an operation, by the plans chosen for its input."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pyconv_search.ops import kernels
from pyconv_search.ops.arguments import autocast_dtype
from pyconv_search.ops.execute import execute
from pyconv_search.ops.planning import Signature, fused, programs
from pyconv_search.ops.sound import layout, narrow, transformed, widened


def convolve(x: Tensor, weights: Sequence[Tensor], signature: Signature) -> Tensor:
    """The operation of ``signature`` on N×C×H×W with one weight a level, without bias.

    Arguments are treated as PyTorch's convolutions do: under autocast they are cast first, once for all that a plan
    does with them, and if one has its channels last, so has the output.
    """
    dtype = autocast_dtype(x)
    if dtype is not None:
        with torch.autocast(x.device.type, enabled=False):
            return convolve(x.to(dtype), [weight.to(dtype) for weight in weights], signature)
    levels = fused(signature, x)
    if levels is not None:
        return kernels.multi_scale_conv2d(x, weights, levels, signature[2])
    last = layout(x) == torch.channels_last or not any(layout(weight) == torch.channels_last for weight in weights)
    if not last:
        x = _laid_out(x, torch.channels_last)
    stride = signature[2][1]
    if not torch.compiler.is_exporting() and narrow(x, stride):
        wider = widened(x, stride + 1 - x.shape[-1])  # so that the output has another column
        return _laid_out(execute(wider, weights, programs(signature, wider))[..., :1], layout(x))
    return execute(x, weights, programs(signature, x))


def _laid_out(x: Tensor, format: torch.memory_format) -> Tensor:
    """In a memory format; as it is where functions are transformed, as ``vmap`` has no rule for it."""
    if not torch.compiler.is_compiling() and transformed():
        return x
    return x.contiguous(memory_format=format)
