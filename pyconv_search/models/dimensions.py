"""Modules for images (two dimensions) and video (three)."""

from __future__ import annotations

from torch import nn

from pyconv_search.arch.trace import Size, each
from pyconv_search.ops.plain import Conv2d, Conv3d


def norm(dimensions: int, width: int) -> nn.BatchNorm2d | nn.BatchNorm3d:
    """Batch normalisation of ``width`` channels."""
    return nn.BatchNorm2d(width) if dimensions == 2 else nn.BatchNorm3d(width)


def conv(
    dimensions: int, in_width: int, width: int, kernel: Size, stride: Size = 1, bias: bool = False
) -> Conv2d | Conv3d:
    """A standard convolution with half-kernel padding."""
    module = Conv2d if dimensions == 2 else Conv3d
    kernels, strides = each(kernel, dimensions), each(stride, dimensions)
    return module(in_width, width, kernels, strides, tuple(k // 2 for k in kernels), bias=bias)  # type: ignore[arg-type]


def max_pool(dimensions: int, kernel: Size, stride: Size) -> nn.MaxPool2d | nn.MaxPool3d:
    """A max pooling padded by half its window."""
    padding = kernel // 2 if isinstance(kernel, int) else tuple(k // 2 for k in kernel)
    return (nn.MaxPool2d if dimensions == 2 else nn.MaxPool3d)(kernel, stride, padding)


def average(dimensions: int) -> nn.AdaptiveAvgPool2d | nn.AdaptiveAvgPool3d:
    """The average over all positions."""
    return nn.AdaptiveAvgPool2d(1) if dimensions == 2 else nn.AdaptiveAvgPool3d(1)
