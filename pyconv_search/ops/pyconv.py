"""Pyramidal convolution.

Duta, Liu, Zhu, Shao: Pyramidal Convolution: Rethinking Convolutional Neural Networks for Visual Recognition, 2020;
section 3 and equation 1. https://arxiv.org/abs/2006.11538
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as nn_module

from pyconv_search.arch.spec import shortest_period
from pyconv_search.errors import UserError
from pyconv_search.ops.arguments import Size, check_channels, check_input, checked_pattern, odd_pair, pair
from pyconv_search.ops.convolve import convolve
from pyconv_search.ops.plain import PLAIN, Conv2d
from pyconv_search.ops.planning import LevelTuple, Signature
from pyconv_search.ops.psconv import PSConv2d

# Hooks of all modules, such as those of an operator counter that counts by module.
_global_hooks = (
    nn_module._global_forward_hooks,
    nn_module._global_forward_pre_hooks,
    nn_module._global_backward_hooks,
    nn_module._global_backward_pre_hooks,
)


class PyConv2d(nn.Module):
    """Parallel convolutions of their own kernel and groups on one input, their outputs concatenated.

    Level j of ``levels`` is a convolution of ``kernel_size[j]`` in ``groups[j]`` groups with ``out_channels[j]``
    outputs, zero-padded so that all levels put out the same height and width: an ``nn.Conv2d``, dilated where its
    pattern is one number, or a :class:`PSConv2d` where it is longer. The bottom level (smallest kernel) comes first.

    Shape:
        N×in_channels×H×W (or without N) to N×sum(out_channels)×H'×W', where H' = ⌊(H − 1)/stride⌋ + 1 and W' alike.

    Args:
        in_channels: channels of the input, all of which every level reads.
        out_channels: output channels of each level; the attribute of this name is their sum.
        kernel_size: the odd kernel of each level.
        groups: groups of each level; 1 for all if not given.
        stride: one integer, or (height, width), for all levels.
        bias: whether every level has one.
        pattern: the dilation pattern of each level; (1,) for all if not given.
        axes: as in :class:`PSConv2d`, for all levels or one for each.

    Raises:
        UserError: (a ValueError) if an argument is out of its range, and in ``forward`` if the input does not fit.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: Sequence[int],
        kernel_size: Sequence[Size],
        groups: Sequence[int] | None = None,
        stride: Size = 1,
        bias: bool = False,
        pattern: Sequence[Sequence[int]] | None = None,
        axes: str | Sequence[str] = "both",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        widths = tuple(out_channels)
        count = len(widths)
        if not count:
            raise UserError("out_channels must hold one number for each level, but got none")
        kernels = _one_each("kernel_size", kernel_size, count)
        splits = _one_each("groups", (1,) * count if groups is None else groups, count)
        patterns = _one_each("pattern", ((1,),) * count if pattern is None else pattern, count)
        directions = _one_each("axes", (axes,) * count if isinstance(axes, str) else axes, count)
        self.in_channels, self.out_channels, self.stride = in_channels, sum(widths), pair("stride", stride)
        self.levels = nn.ModuleList(
            same_conv2d(in_channels, *level, stride=stride, bias=bias, device=device, dtype=dtype)
            for level in zip(widths, kernels, splits, patterns, directions, strict=True)
        )
        self.kernel_size = tuple(odd_pair("kernel_size", kernel) for kernel in kernels)
        self.groups = splits

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.out_channels}, stride={self.stride}"

    @property
    def signature(self) -> Signature | None:
        """What it computes; None if a level has become something else or is watched by a hook, and has to be called."""
        levels = []
        for module in self.levels:
            level = None if any(_global_hooks) else _level(module, self.in_channels, self.stride)
            if level is None:
                return None
            levels.append(level)
        return self.in_channels, tuple(levels), self.stride, False, False

    def forward(self, input: Tensor) -> Tensor:
        signature = self.signature
        if signature is None:
            check_input(input, self.in_channels)
            return torch.cat([level(input) for level in self.levels], -3)
        weights = [level.weight for level in self._convs()]
        check_input(input, self.in_channels, *weights)
        out = convolve(input if input.dim() == 4 else input.unsqueeze(0), weights, signature)
        bias = self._bias()
        out = out if bias is None else out + bias.to(out.dtype).view(-1, 1, 1)
        return out if input.dim() == 4 else out.squeeze(0)

    def _convs(self) -> list[nn.Conv2d]:
        return list(self.levels)  # type: ignore[arg-type]

    def _bias(self) -> Tensor | None:
        """The biases of all levels, zeros for those without; None if no level has one."""
        if all(level.bias is None for level in self._convs()):
            return None
        zeros = [level.weight.new_zeros(level.out_channels) for level in self._convs()]
        return torch.cat(
            [z if level.bias is None else level.bias for z, level in zip(zeros, self._convs(), strict=True)]
        )


def _level(module: nn.Module, in_channels: int, stride: tuple[int, int]) -> LevelTuple | None:
    """The level that a module computes; None if only the module itself knows."""
    if type(module) not in (*PLAIN, PSConv2d) or "forward" in module.__dict__ or any(_hooks(module)):
        return None
    assert isinstance(module, nn.Conv2d)
    if (module.in_channels, module.stride) != (in_channels, stride):
        return None
    kernel, dilation = (module.kernel_size[0], module.kernel_size[1]), module.dilation[0]
    if isinstance(module, PSConv2d):
        own = (kernel, module.out_channels, module.groups, module.cycle, module.axes)
        return None if module.sorted_in or module.sorted_out else own
    half = (kernel[0] // 2 * dilation, kernel[1] // 2 * dilation)
    usual = (module.padding, module.padding_mode) == (half, "zeros") and module.dilation == (dilation, dilation)
    return (kernel, module.out_channels, module.groups, (dilation,), "both") if usual else None


def _hooks(module: nn.Module) -> tuple[Any, ...]:
    return module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks


def same_conv2d(
    in_channels: int,
    out_channels: int,
    kernel_size: Size,
    groups: int = 1,
    pattern: Sequence[int] = (1,),
    axes: str = "both",
    *,
    stride: Size = 1,
    **options: Any,
) -> nn.Conv2d:
    """One level: an ``nn.Conv2d`` with half-kernel padding (dilated if the pattern is one number), or a PSConv2d.

    ``options`` are bias, device and dtype. Raises UserError if an argument is out of its range.
    """
    kernel, dilations = odd_pair("kernel_size", kernel_size), shortest_period(checked_pattern(pattern, axes))
    if len(dilations) > 1 and kernel != (1, 1):
        return PSConv2d(in_channels, out_channels, kernel, stride, groups, pattern=pattern, axes=axes, **options)
    check_channels(in_channels, out_channels, groups)
    dilation = dilations[0] if kernel != (1, 1) else 1
    padding = (kernel[0] // 2 * dilation, kernel[1] // 2 * dilation)
    return Conv2d(in_channels, out_channels, kernel, pair("stride", stride), padding, dilation, groups, **options)


def _one_each(name: str, values: Sequence[Any], count: int) -> tuple[Any, ...]:
    if isinstance(values, int) or len(values) != count:
        raise UserError(f"{name} must have one entry for each of the {count} levels, but got {values}")
    return tuple(values)
