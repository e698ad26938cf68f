"""Inception-ResNet as modules; :mod:`pyconv_search.arch.inception` is its closed form and says where it is from."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pyconv_search.arch.blocks import Place
from pyconv_search.arch.inception import (
    BRANCHES,
    FINAL,
    KINDS,
    STEM,
    STEM_WIDTH,
    TRANSITIONS,
    Branch,
    Branches,
    Pool,
    Step,
    linear,
    width_of,
)
from pyconv_search.arch.spec import Architecture, Stage
from pyconv_search.models.attention import SqueezeExcitation
from pyconv_search.models.blocks import PostBlock
from pyconv_search.ops.plain import Conv2d

EPSILON = 1e-3  # of batch normalisation in the released network; PyTorch's default is 1e-5
SCALES = dict(zip(KINDS, (0.17, 0.1, 0.2), strict=True))


class InceptionBlock(nn.Module):
    """N×w×H×W to itself plus what its branches find, scaled down to keep the training of wide networks stable.

    Szegedy et al. 2016, section 3.3; the network's last block does not scale and ends with the sum.
    """

    def __init__(self, stage: Stage, place: Place) -> None:
        super().__init__()
        branches = BRANCHES[stage.block]
        self.branches = Parallel(stage.out, branches)
        self.up = Conv2d(width_of(branches), stage.out, 1)
        self.se = SqueezeExcitation(stage.out, stage.se, 2) if stage.se else None
        self.scale = 1.0 if linear(stage, place) else SCALES[stage.block]
        self.act = None if linear(stage, place) else nn.ReLU(inplace=True)

    def extra_repr(self) -> str:
        return f"scale={self.scale}"

    def forward(self, x: Tensor) -> Tensor:
        found = self.up(self.branches(x))
        found = found if self.se is None else self.se(found)
        out = torch.add(x, found, alpha=self.scale)
        return out if self.act is None else self.act(out)


class Parallel(nn.ModuleList):
    """Branches on one input, their outputs concatenated along the channels."""

    def __init__(self, in_width: int, branches: Branches) -> None:
        super().__init__(_chain(in_width, steps) for steps in branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self], 1)


def stem(arch: Architecture) -> nn.Sequential:
    """Up to the second max pooling, 192 channels."""
    return _chain(arch.input[0], STEM)


def transition(arch: Architecture, index: int) -> nn.Module:
    """Parallel branches before the blocks of a stage."""
    before = arch.stages[index - 1].out if index else STEM_WIDTH
    return Parallel(before, TRANSITIONS[index])


def block(arch: Architecture, stage: Stage, in_width: int, place: Place) -> nn.Module:
    """One block of a stage; bottleneck blocks too have the network's epsilon."""
    if stage.block in KINDS:
        return InceptionBlock(stage, place)
    bottleneck = PostBlock(stage, in_width, place)
    for module in bottleneck.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = EPSILON
    return bottleneck


def final(arch: Architecture) -> nn.Sequential:
    """A last 1×1 convolution."""
    return _chain(arch.stages[-1].out, FINAL)


def _chain(in_width: int, steps: Branch) -> nn.Sequential:
    parts = nn.Sequential()
    for step in steps:
        parts.append(_pool(step) if isinstance(step, Pool) else _convolution(in_width, step))
        in_width = in_width if isinstance(step, Pool) else step.width
    return parts


def _pool(pool: Pool) -> nn.Module:
    padding = 1 if pool.padded else 0
    if pool.kind == "max-pool":
        return nn.MaxPool2d(3, pool.stride, padding)
    return nn.AvgPool2d(3, pool.stride, padding, count_include_pad=False)


def _convolution(in_width: int, step: Step) -> nn.Sequential:
    height, width = (step.kernel, step.kernel) if isinstance(step.kernel, int) else step.kernel
    padding = (height // 2, width // 2) if step.padded else 0
    parts = nn.Sequential()
    parts.add_module("conv", Conv2d(in_width, step.width, (height, width), step.stride, padding, bias=False))
    parts.add_module("norm", nn.BatchNorm2d(step.width, EPSILON))
    parts.add_module("act", nn.ReLU(inplace=True))
    return parts
