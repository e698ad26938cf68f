"""Residual networks for image classification, and the initialisation of their weights."""

from __future__ import annotations

from torch import Tensor, nn

from pyconv_search.arch.spec import Architecture, Stage, Stem
from pyconv_search.models.blocks import BLOCKS


class ResNet(nn.Module):
    """Stem, stages of residual blocks, global average pooling, linear layer: images N×C×H×W to logits N×classes.

    Convolutions start with He initialisation (He et al. 2015; normal, fan out, where fan out counts all output
    channels, groups or not, as the released code of both papers does), batch normalisation with weight 1 and bias 0,
    the linear layer with PyTorch's default.
    """

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.stem = _stem(arch.stem, arch.input[0])
        self.stages = nn.Sequential(*(_stage(stage, in_width) for stage, in_width in arch.walk()))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(arch.stages[-1].out, arch.classes)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights anew."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, (nn.BatchNorm2d, nn.Linear)):
                module.reset_parameters()

    def features(self, images: Tensor) -> Tensor:
        """The last feature map, N×channels×h×w."""
        return self.stages(self.stem(images))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.pool(self.features(images)).flatten(1))


def _stem(stem: Stem, channels: int) -> nn.Sequential:
    parts = nn.Sequential()
    parts.add_module("conv", nn.Conv2d(channels, stem.width, stem.kernel, stem.stride, stem.kernel // 2, bias=False))
    parts.add_module("norm", nn.BatchNorm2d(stem.width))
    parts.add_module("act", nn.ReLU(inplace=True))
    if stem.pool == "max":
        parts.add_module("pool", nn.MaxPool2d(3, 2, 1))
    return parts


def _stage(stage: Stage, in_width: int) -> nn.Sequential:
    block = BLOCKS[stage.block]
    rest = (block(stage, stage.out, first=False) for _ in range(stage.blocks - 1))
    return nn.Sequential(block(stage, in_width, first=True), *rest)
