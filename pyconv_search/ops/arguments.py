"""What the convolutions of this package check about their arguments before they hold a weight."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from pyconv_search.arch.dilation import AXES
from pyconv_search.arch.spec import divisors
from pyconv_search.errors import UserError
from pyconv_search.fields import nearest, suggestion

Size = int | tuple[int, int]


def pair(name: str, value: Size) -> tuple[int, int]:
    """``value`` as (height, width), both at least 1."""
    both = (value, value) if isinstance(value, int) else tuple(value)
    if len(both) != 2 or min(both) < 1:
        raise UserError(f"{name} must be an integer of 1 or more, or two of them, but got {value}")
    return both[0], both[1]


def odd_pair(name: str, value: Size) -> tuple[int, int]:
    """``value`` as two odd numbers, so that the kernel has a centre."""
    for side in pair(name, value):
        if side % 2 == 0:
            raise UserError(f"{name} must be odd, but got {value}; nearest: {side - 1}, {side + 1}")
    return pair(name, value)


def check_channels(in_channels: int, out_channels: int, groups: int) -> None:
    """Raise UserError unless all are positive and ``groups`` divides both numbers of channels."""
    for name, value in (("in_channels", in_channels), ("out_channels", out_channels), ("groups", groups)):
        if value < 1:
            raise UserError(f"{name} must be 1 or more, but got {value}")
    if in_channels % groups or out_channels % groups:
        legal = divisors(math.gcd(in_channels, out_channels))
        raise UserError(
            f"groups must divide in_channels = {in_channels} and out_channels = {out_channels}, "
            f"but got {groups}; nearest: {nearest(groups, legal)}"
        )


def checked_pattern(pattern: Sequence[int], axes: str) -> tuple[int, ...]:
    """``pattern`` as a tuple; raises UserError if it holds anything but dilations, or ``axes`` is unknown."""
    if isinstance(pattern, (int, str)) or not all(type(dilation) is int for dilation in pattern):
        raise UserError(f"pattern must hold integers, such as (1, 2, 1, 4), but got {pattern!r}")
    pattern = tuple(pattern)
    if not pattern:
        raise UserError("pattern must hold at least one dilation, but got none; a standard convolution has (1,)")
    if min(pattern) < 1:
        raise UserError(f"pattern must hold dilations of 1 or more, but got {pattern}; nearest: 1")
    if axes not in AXES:
        raise UserError(f"axes must be one of {', '.join(AXES)}, but got {axes!r}{suggestion(axes, AXES)}")
    return pattern


def check_input(x: Tensor, channels: int, *weights: Tensor) -> None:
    """Raise UserError unless ``x`` has these channels, and the device and type of the weights.

    The types may differ where autocast casts all.
    """
    if x.dim() not in (3, 4) or x.shape[-3] != channels:
        raise UserError(
            f"input must have {channels} channels, as {channels}×H×W or N×{channels}×H×W, "
            f"but got a tensor of shape {tuple(x.shape)}"
        )
    cast = autocast_dtype(x) is not None and all(weight.is_floating_point() for weight in weights)
    for weight in weights:
        if weight.device != weights[0].device or (weight.dtype != weights[0].dtype and not cast):
            raise UserError(
                "levels must all be on one device and of one type, "
                f"but got {weights[0].dtype} on {weights[0].device} and {weight.dtype} on {weight.device}"
            )
        if x.device != weight.device:
            raise UserError(f"input must be on {weight.device}, where the weight is, but got one on {x.device}")
        if x.dtype != weight.dtype and not cast:
            raise UserError(f"input must be of {weight.dtype}, as the weight is, but got {x.dtype}")


def autocast_dtype(x: Tensor) -> torch.dtype | None:
    """The type to which autocast casts an image and the weights it is convolved with; None where it does not.

    As in PyTorch's own convolutions, images of float64, integers and complex numbers are left as they are.
    """
    device = x.device.type
    if not x.is_floating_point() or x.dtype == torch.float64:
        return None
    on = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    return torch.get_autocast_dtype(device) if on else None
