"""What the modules of this package call: an operation, by the plans chosen for its input."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pyconv_search.ops import kernels
from pyconv_search.ops.arguments import autocast_dtype
from pyconv_search.ops.execute import execute, layout
from pyconv_search.ops.planning import Signature, fused, programs


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
    if layout(x) != torch.channels_last and any(layout(weight) == torch.channels_last for weight in weights):
        x = x.contiguous(memory_format=torch.channels_last)
    return execute(x, weights, programs(signature, x))
