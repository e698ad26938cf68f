"""The stem and the stages of residual networks as modules; :mod:`pyconv_search.arch.residual` is their closed form."""

from __future__ import annotations

from torch import nn

from pyconv_search.arch.blocks import Place, pool_window
from pyconv_search.arch.spec import Architecture, Stage
from pyconv_search.models.blocks import FORMS
from pyconv_search.models.dimensions import conv, max_pool, norm


def stem(arch: Architecture) -> nn.Sequential:
    """The first convolution, normalised unless the blocks do that, and the pooling."""
    spec, dimensions = arch.stem, arch.dimensions
    time = (spec.time_stride,) * (dimensions - 2)
    parts = nn.Sequential()
    stride = (*time, spec.stride, spec.stride)
    parts.add_module("conv", conv(dimensions, arch.input[0], spec.width, spec.kernel, stride))
    if arch.form != "pre":
        parts.add_module("norm", norm(dimensions, spec.width))
        parts.add_module("act", nn.ReLU(inplace=True))
    if spec.pool == "max":
        strides = 2 if dimensions == 2 else (1, 2, 2)
        parts.add_module("pool", max_pool(dimensions, pool_window(1, dimensions), strides))
    return parts


def transition(arch: Architecture, index: int) -> nn.Module | None:
    """Nothing: the first block of a stage changes the shape."""
    return None


def block(arch: Architecture, stage: Stage, in_width: int, place: Place) -> nn.Module:
    """One block of a stage."""
    return FORMS[arch.form](stage, in_width, place, arch.dimensions)


def final(arch: Architecture) -> nn.Module | None:
    """The last normalisation of a network whose blocks begin with theirs."""
    if arch.form != "pre":
        return None
    parts = nn.Sequential()
    parts.add_module("norm", norm(arch.dimensions, arch.stages[-1].out))
    parts.add_module("act", nn.ReLU(inplace=True))
    return parts
