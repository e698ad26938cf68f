"""The residual blocks of He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition, CVPR 2016, figure 5.

Every convolution is followed by batch normalisation; the activation after the last one comes after the addition. The
stride is that of the spatial convolution (the first of a basic block, the 3×3 or its substitute of a bottleneck).
"""

from __future__ import annotations

from torch import Tensor, nn

from pyconv_search.arch.spec import Stage, shortcut_pools, shortcut_projects
from pyconv_search.ops.build import build_conv


class BasicBlock(nn.Module):
    """Two spatial convolutions around a shortcut: N×in_width×H×W to N×stage.out×⌈H/stride⌉×⌈W/stride⌉.

    ``first`` is the block that changes the shape; the others of a stage have stride 1 and take ``stage.out`` channels.
    """

    def __init__(self, stage: Stage, in_width: int, first: bool) -> None:
        super().__init__()
        self.conv1 = build_conv(stage.conv, in_width, stage.stride if first else 1)
        self.norm1 = nn.BatchNorm2d(stage.out)
        self.conv2 = build_conv(stage.conv, stage.out, 1)
        self.norm2 = nn.BatchNorm2d(stage.out)
        self.shortcut = shortcut(stage, in_width) if first else nn.Identity()
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out = self.act(self.norm1(self.conv1(x)))
        out = self.norm2(self.conv2(out))
        return self.act(out + self.shortcut(x))


class Bottleneck(nn.Module):
    """1×1, spatial and 1×1 convolution around a shortcut: N×in_width×H×W to N×stage.out×⌈H/stride⌉×⌈W/stride⌉.

    The spatial convolution keeps its number of channels and has the stride ("ResNet v1.5"). ``first`` is the block that
    changes the shape; the others of a stage have stride 1 and take ``stage.out`` channels.
    """

    def __init__(self, stage: Stage, in_width: int, first: bool) -> None:
        super().__init__()
        inner = stage.conv.width
        self.conv1 = nn.Conv2d(in_width, inner, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(inner)
        self.conv2 = build_conv(stage.conv, inner, stage.stride if first else 1)
        self.norm2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, stage.out, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(stage.out)
        self.shortcut = shortcut(stage, in_width) if first else nn.Identity()
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out = self.act(self.norm1(self.conv1(x)))
        out = self.act(self.norm2(self.conv2(out)))
        out = self.norm3(self.conv3(out))
        return self.act(out + self.shortcut(x))


def shortcut(stage: Stage, in_width: int) -> nn.Module:
    """The shortcut of the first block of a stage: pooling, projection, both or neither (PyConv, section 4)."""
    parts = nn.Sequential()
    if shortcut_pools(stage):
        parts.add_module("pool", nn.MaxPool2d(3, stage.stride, 1))
    if shortcut_projects(stage, in_width):
        stride = 1 if shortcut_pools(stage) else stage.stride
        parts.add_module("conv", nn.Conv2d(in_width, stage.out, 1, stride, bias=False))
        parts.add_module("norm", nn.BatchNorm2d(stage.out))
    return parts if len(parts) else nn.Identity()


BLOCKS: dict[str, type[BasicBlock] | type[Bottleneck]] = {"basic": BasicBlock, "bottleneck": Bottleneck}
