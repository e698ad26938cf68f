"""What the modules of this package call: an operation, by the plans chosen for its input."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
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
    stride = signature[2][1]
    if x.device.type == "cpu" and not torch.compiler.is_compiling() and 0 < x.shape[3] <= stride > 1:
        # For a single column oneDNN 3 gives wrong numbers, those of nn.Conv2d too (PyTorch 2.13): two, and one of them.
        wider = F.pad(x, (0, stride + 1 - x.shape[3]))
        return execute(wider, weights, programs(signature, wider))[..., :1].contiguous(memory_format=layout(x))
    return execute(x, weights, programs(signature, x))
