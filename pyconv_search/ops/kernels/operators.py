"""The kernels as custom operators of torch: shapes for tracing, gradients of any order, counted operations.

The convolution is linear in the image and in the weights, so three operators are closed under differentiation: the
convolution itself, its gradient by the input and its gradient by the weights. Weights travel as one vector, the levels'
one after the other, each flattened from its (output, input, height, width).

Imported with the first convolution, since torch imports Triton, where there is one, to make operators known. Who loads
an exported program that has them imports this module first.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from pyconv_search.ops.kernels.device import require
from pyconv_search.ops.kernels.level import decode
from pyconv_search.ops.kernels.plan import Problem


def _launch(x: Tensor) -> ModuleType:
    """The module that needs Triton, where it can run."""
    require(x.device)
    from pyconv_search.ops.kernels import launch

    return launch


def _last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def _size(x: Tensor, stride: list[int]) -> tuple[int, int]:
    return (x.shape[2] - 1) // stride[0] + 1, (x.shape[3] - 1) // stride[1] + 1


def _problem(levels: str, in_channels: int, stride: list[int], transposed: bool = False) -> Problem:
    return Problem(decode(levels), in_channels, (stride[0], stride[1]), transposed)


@torch.library.custom_op("pyconv_search::multi_scale_conv2d", mutates_args=())
def conv(x: Tensor, weights: Tensor, bias: Tensor | None, levels: str, stride: list[int]) -> Tensor:
    launch = _launch(x)
    return launch.convolve(_last(x), weights, bias, _problem(levels, x.shape[1], stride), _size(x, stride))


@torch.library.custom_op("pyconv_search::multi_scale_conv2d_grad_input", mutates_args=())
def grad_input(grad: Tensor, weights: Tensor, levels: str, stride: list[int], size: list[int]) -> Tensor:
    launch = _launch(grad)
    problem = _problem(levels, size[1], stride, transposed=True)
    return launch.convolve(_last(grad), weights, None, problem, (size[2], size[3]))


@torch.library.custom_op("pyconv_search::multi_scale_conv2d_grad_weight", mutates_args=())
def grad_weight(x: Tensor, grad: Tensor, levels: str, stride: list[int], count: int) -> Tensor:
    launch = _launch(x)
    return launch.correlate(_last(x), _last(grad), _problem(levels, x.shape[1], stride))


@conv.register_fake
def _(x: Tensor, weights: Tensor, bias: Tensor | None, levels: str, stride: list[int]) -> Tensor:
    width = sum(level.width for level in decode(levels))
    return torch.empty(
        (x.shape[0], width, *_size(x, stride)), dtype=x.dtype, device=x.device, memory_format=torch.channels_last
    )


@grad_input.register_fake
def _(grad: Tensor, weights: Tensor, levels: str, stride: list[int], size: list[int]) -> Tensor:
    return torch.empty(size, dtype=grad.dtype, device=grad.device, memory_format=torch.channels_last)


@grad_weight.register_fake
def _(x: Tensor, grad: Tensor, levels: str, stride: list[int], count: int) -> Tensor:
    return x.new_empty(count)


def _conv_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weights, bias, ctx.levels, ctx.stride = inputs
    ctx.save_for_backward(x, weights)
    ctx.has_bias = bias is not None


def _conv_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    x, weights = ctx.saved_tensors
    by_x, by_weights, by_bias = ctx.needs_input_grad[:3]
    return (
        grad_input(grad, weights, ctx.levels, ctx.stride, list(x.shape)) if by_x else None,
        grad_weight(x, grad, ctx.levels, ctx.stride, weights.shape[0]) if by_weights else None,
        grad.sum((0, 2, 3)) if ctx.has_bias and by_bias else None,
        None,
        None,
    )


def _grad_input_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    grad, weights, ctx.levels, ctx.stride, _ = inputs
    ctx.save_for_backward(grad, weights)


def _grad_input_backward(ctx: Any, direction: Tensor) -> tuple[Any, ...]:
    grad, weights = ctx.saved_tensors
    by_grad, by_weights = ctx.needs_input_grad[:2]
    return (
        conv(direction, weights, None, ctx.levels, ctx.stride) if by_grad else None,
        grad_weight(direction, grad, ctx.levels, ctx.stride, weights.shape[0]) if by_weights else None,
        None,
        None,
        None,
    )


def _grad_weight_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, grad, ctx.levels, ctx.stride, _ = inputs
    ctx.save_for_backward(x, grad)


def _grad_weight_backward(ctx: Any, direction: Tensor) -> tuple[Any, ...]:
    x, grad = ctx.saved_tensors
    by_x, by_grad = ctx.needs_input_grad[:2]
    return (
        grad_input(grad, direction, ctx.levels, ctx.stride, list(x.shape)) if by_x else None,
        conv(x, direction, None, ctx.levels, ctx.stride) if by_grad else None,
        None,
        None,
        None,
    )


conv.register_autograd(_conv_backward, setup_context=_conv_setup)
grad_input.register_autograd(_grad_input_backward, setup_context=_grad_input_setup)
grad_weight.register_autograd(_grad_weight_backward, setup_context=_grad_weight_setup)


# As torch counts convolutions: two operations a multiply-add, and every weight meets every output pixel once.
@register_flop_formula(torch.ops.pyconv_search.multi_scale_conv2d)
def _conv_flop(x: Any, weights: Any, *_: Any, out_shape: Any, **__: Any) -> int:
    return 2 * weights[0] * out_shape[0] * out_shape[2] * out_shape[3]


@register_flop_formula(torch.ops.pyconv_search.multi_scale_conv2d_grad_input)
def _grad_input_flop(grad: Any, weights: Any, *_: Any, **__: Any) -> int:
    return 2 * weights[0] * grad[0] * grad[2] * grad[3]


@register_flop_formula(torch.ops.pyconv_search.multi_scale_conv2d_grad_weight)
def _grad_weight_flop(x: Any, grad: Any, levels: Any, stride: Any, count: int, *_: Any, **__: Any) -> int:
    return 2 * count * grad[0] * grad[2] * grad[3]
