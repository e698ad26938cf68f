"""The operators as the papers' released code structures them: what a plain implementation costs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pyconv_search.arch.spec import Conv
from pyconv_search.ops.planning import operation_of
from pyconv_search.ops.psconv import PSConv2d
from pyconv_search.ops.pyconv import PyConv2d, same_conv2d
from pyconv_search.ops.released import ReleasedPSConv2d

# The cycle of dilations that the released PSConv has, up to a rotation, and its parts.
CYCLE = (1, 2, 1, 4)


class PlainPyConv2d(nn.Module):
    """One grouped ``nn.Conv2d`` a level, one after the other, and a concatenation of what they put out."""

    def __init__(self, in_channels: int, conv: Conv, stride: int | tuple[int, int]) -> None:
        super().__init__()
        self.levels = nn.ModuleList(
            same_conv2d(in_channels, level.width, level.kernel, level.groups, stride=stride, bias=False)
            for level in conv.levels
        )

    def forward(self, input: Tensor) -> Tensor:
        return torch.cat([level(input) for level in self.levels], 1)


def plain(in_channels: int, conv: Conv, stride: int | tuple[int, int]) -> nn.Module | None:
    """The plain implementation of a convolution; None where there is none but one ``nn.Conv2d``, or none at all."""
    if len(conv.levels) > 1:
        standard = all(len(level.pattern) == 1 for level in conv.levels)
        return PlainPyConv2d(in_channels, conv, stride) if standard else None
    (level,) = conv.levels
    if level.pattern != CYCLE or level.kernel != 3 or level.axes != "both":
        return None
    return ReleasedPSConv2d(in_channels, level.width, stride, level.groups)


def made_plain(model: nn.Module) -> nn.Module:
    """The model with its PyConv2d and PSConv2d replaced, in place, by plain ones with weights of their own."""
    for path, module in list(model.named_modules()):
        parent, _, name = path.rpartition(".")
        if isinstance(module, (PyConv2d, PSConv2d)):
            setattr(model.get_submodule(parent), name, _plain_module(module))
    return model


def _plain_module(module: PyConv2d | PSConv2d) -> nn.Module:
    operation = operation_of(module.signature)
    found = plain(operation.in_channels, operation.conv, operation.stride)
    if found is None:
        raise ValueError(f"there is no plain implementation of {module}")
    return found
