"""One call of many networks of the same architecture, by ``torch.func``, and what ``vmap`` alone does not get right."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from pyconv_search.ops.arguments import autocast_dtype

Call = Callable[[Mapping[str, Tensor], Mapping[str, Tensor], Tensor], Tensor]

# What autocast casts and networks of this package call. A function that vmap takes apart arrives in parts of which
# autocast does not know all.
_CAST = (functional.conv2d, functional.conv3d, functional.linear, torch.matmul, torch.bmm)


def stacked_call(model: nn.Module, images_dim: int | None) -> Call:
    """``model`` as a function of its stacked parameters, stacked buffers and images: members × what it puts out.

    ``images_dim`` is the axis of the images that counts the members; None if all see the same images. Buffers are
    changed in place where the model does so.
    """

    def call(parameters: Mapping[str, Tensor], buffers: Mapping[str, Tensor], images: Tensor) -> Tensor:
        with _Rules():
            found: Tensor = functional_call(model, (dict(parameters), dict(buffers)), (images,))
        return found

    return torch.vmap(call, in_dims=(0, 0, images_dim))


class _Rules(TorchFunctionMode):
    """Casts as autocast does, and batch normalisation of all members by one kernel."""

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        named = dict(kwargs or {})
        if func is functional.batch_norm:
            return _batch_norm(*args, **named)
        if func in _CAST and (dtype := autocast_dtype(args[0])) is not None:
            args = tuple(arg.to(dtype) if isinstance(arg, Tensor) else arg for arg in args)
        return func(*args, **named)


def _batch_norm(
    input: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    weight: Tensor,
    bias: Tensor,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    found: Tensor = _BatchNorm.apply(input, running_mean, running_var, weight, bias, training, momentum, eps)
    return found


class _BatchNorm(torch.autograd.Function):
    """Batch normalisation whose rule for vmap takes the members' channels for those of one network.

    PyTorch's own rule (2.13) makes weights of the input's type where the statistics are of another, which no kernel
    takes: under autocast it fails.
    """

    @staticmethod
    def forward(*args: Any) -> Tensor:
        input, mean, var, weight, bias, training, momentum, eps = args
        return functional.batch_norm(input, mean, var, weight, bias, training, momentum, eps)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        raise NotImplementedError("stacked networks are differentiated outside of vmap")

    @staticmethod
    def vmap(info: Any, in_dims: Sequence[int | None], *args: Any) -> tuple[Tensor, int]:
        input, mean, var, weight, bias, *options = args
        members = info.batch_size
        if in_dims[0] is None:
            own = input.unsqueeze(1).expand(-1, members, *[-1] * (input.dim() - 1))
        else:
            own = input.movedim(in_dims[0], 1)
        # Views: the statistics are changed in place.
        mean, var, weight, bias = (each.view(-1) for each in (mean, var, weight, bias))
        out = functional.batch_norm(own.flatten(1, 2), mean, var, weight, bias, *options)
        return out.unflatten(1, (members, -1)), 1
