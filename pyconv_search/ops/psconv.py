"""Poly-scale convolution.

Li, Yao, Chen: PSConv: Squeezing Feature Pyramid into One Compact Poly-Scale Convolutional Layer, ECCV 2020; equation 3,
section 3.2 and appendices A and B. https://arxiv.org/abs/2007.06191
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pyconv_search.arch.plans.operation import class_order, sortable
from pyconv_search.arch.spec import shortest_period
from pyconv_search.errors import UserError
from pyconv_search.ops.arguments import Size, check_channels, check_input, checked_pattern, odd_pair, pair
from pyconv_search.ops.convolve import convolve
from pyconv_search.ops.planning import Signature, operation_of
from pyconv_search.ops.sound import conv2d

# The marks of sorted channels in the state dict: on each side the residue classes in the order in which they stand.
ORDERS = ("order_in", "order_out")


class PSConv2d(nn.Conv2d):
    """A 2-D convolution whose dilation varies from kernel to kernel, zero-padded so that all are centred on one pixel.

    The entry (c, k) of :func:`pyconv_search.arch.dilation.dilation_matrix` is the dilation of the kernel from input
    channel k to output channel c. Weight, bias, their initialisation and the state dict are those of ``nn.Conv2d`` with
    the same channels, kernel and groups, and so is the nominal number of multiply-adds; the plan that executes it may
    multiply zeros, too (:func:`pyconv_search.ops.plan`). Dilation d pads by ``d·(K − 1)/2``.

    The attributes ``sorted_in`` and ``sorted_out`` say that the channels on that side of every group stand class by
    class instead, in :func:`pyconv_search.arch.plans.operation.class_order`, so that nothing is gathered. To set one
    gives the weight, as it is, this other meaning; :func:`pyconv_search.models.sorting.sort_channels` moves weights
    and neighbouring layers along. While one is set, the state dict holds ``order_in`` or ``order_out`` too, and a
    state of another order is refused.

    Shape:
        N×in_channels×H×W (or without N) to N×out_channels×H'×W', where H' = ⌊(H − 1)/stride⌋ + 1 and W' alike.

    Args:
        in_channels, out_channels, groups, bias, device, dtype: as in ``nn.Conv2d``.
        kernel_size, stride: one integer, or (height, width); kernels are odd.
        pattern: the dilations of one cyclic interval.
        axes: ``both``, ``input`` or ``output``: the channel axes along which the pattern runs (Table 5). In a depthwise
            convolution (groups = in_channels) it runs over the groups (appendix A).

    Raises:
        UserError: (a ValueError) if an argument is out of its range, in ``forward`` if the input does not fit, and when
            ``sorted_in`` or ``sorted_out`` is set where the pattern does not divide the channels of a group.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size = 3,
        stride: Size = 1,
        groups: int = 1,
        bias: bool = True,
        pattern: Sequence[int] = (1, 2, 1, 4),
        axes: str = "both",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_channels(in_channels, out_channels, groups)
        kernel, strides = odd_pair("kernel_size", kernel_size), pair("stride", stride)
        dilations = checked_pattern(pattern, axes)
        half = (kernel[0] // 2, kernel[1] // 2)
        super().__init__(in_channels, out_channels, kernel, strides, half, 1, groups, bias, device=device, dtype=dtype)
        self.pattern, self.axes = dilations, axes
        self.cycle = (1,) if kernel == (1, 1) else shortest_period(dilations)

    @property
    def sorted_in(self) -> bool:
        """Whether the input channels of every group stand class by class."""
        return "order_in" in self._buffers

    @sorted_in.setter
    def sorted_in(self, value: bool) -> None:
        self._mark("in", self.in_channels, value)

    @property
    def sorted_out(self) -> bool:
        """Whether the output channels of every group stand class by class."""
        return "order_out" in self._buffers

    @sorted_out.setter
    def sorted_out(self, value: bool) -> None:
        self._mark("out", self.out_channels, value)

    def _mark(self, side: str, channels: int, value: bool) -> None:
        if not value:
            self._buffers.pop(f"order_{side}", None)
            return
        (level,) = operation_of(self.signature).conv.levels
        if not sortable(channels, level):
            raise UserError(
                f"sorted_{side} must be False here, but got True: only a pattern of several dilations whose length "
                f"divides the channels of a group can be sorted; this is {self.cycle} on {channels} channels in "
                f"{self.groups} groups"
            )
        # A buffer goes wherever the weight goes: to other devices, into copies, exports and every kind of state dict.
        order = torch.tensor(class_order(self.cycle), device=self.weight.device)
        self.register_buffer(f"order_{side}", order)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        problem = self._other_order(state_dict, prefix)
        errors: list[str] = args[-1]
        if problem is None:
            super()._load_from_state_dict(state_dict, prefix, *args)
        elif not any(problem in error for error in errors):
            # An error, since in a load that is not strict all else is passed over.
            errors.append(f"{prefix.rstrip('.') or 'the model itself'}: {problem}")

    def _other_order(self, state: Mapping[str, Any], prefix: str) -> str | None:
        """What to do about a state whose channels stand in another order than here; None if there is none."""
        if not any(f"{prefix}{name}" in state for name in ("weight", "bias", *ORDERS)):
            return None
        for name in ORDERS:
            here, there = self._buffers.get(name), state.get(f"{prefix}{name}")
            if here is not None and there is None:
                return (
                    "channels are sorted in the model but not in the state dict; unsort_channels(model) before loading"
                )
            if here is None and there is not None:
                return "channels are sorted in the state dict but not in the model; sort_channels(model) before loading"
            if there is not None and not there.is_meta and tuple(there.tolist()) != class_order(self.cycle):
                return f"{name} must be {list(class_order(self.cycle))} for this pattern, but got {there.tolist()}"
        return None

    def extra_repr(self) -> str:
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        text += f", groups={self.groups}" * (self.groups != 1) + ", bias=False" * (self.bias is None)
        return f"{text}, pattern={self.pattern}" + f", axes={self.axes!r}" * (self.axes != "both")

    @property
    def signature(self) -> Signature:
        """What it computes."""
        kernel, stride = (self.kernel_size[0], self.kernel_size[1]), (self.stride[0], self.stride[1])
        level = (kernel, self.out_channels, self.groups, self.cycle, self.axes)
        return self.in_channels, (level,), stride, self.sorted_in, self.sorted_out

    def forward(self, input: Tensor) -> Tensor:
        return self._conv_forward(input, self.weight, self.bias)

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The convolution by another weight, as subclasses of ``nn.Conv2d`` call it."""
        check_input(input, self.in_channels, weight)
        x = input if input.dim() == 4 else input.unsqueeze(0)
        if len(self.cycle) == 1:
            dilation = self.cycle[0]
            padding = (self.kernel_size[0] // 2 * dilation, self.kernel_size[1] // 2 * dilation)
            out = conv2d(x, weight, bias, self.stride, padding, (dilation, dilation), self.groups)
        else:
            out = convolve(x, [weight], self.signature)
            out = out if bias is None else out + bias.to(out.dtype).view(-1, 1, 1)
        return out if input.dim() == 4 else out.squeeze(0)
