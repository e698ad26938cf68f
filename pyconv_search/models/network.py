"""A network as a module: stem, stages and head, whatever its family."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor, nn

from pyconv_search.arch import network
from pyconv_search.arch.spec import Architecture
from pyconv_search.models import inception, residual
from pyconv_search.models.attention import NonLocal
from pyconv_search.models.dimensions import average
from pyconv_search.models.heads import HEADS

# Modules with the functions stem, transition, block and final, as in models/residual.py.
FAMILIES: dict[str, Any] = {"resnet": residual, "inception-resnet": inception}


class Network(nn.Module):
    """Stem, stages and a head: images N×C×H×W (video N×C×T×H×W) to what the head puts out, N×classes without one.

    Convolutions start with He initialisation (He et al. 2015; normal, fan out, where fan out counts all output
    channels, groups or not, as the released code of both papers does), batch normalisation with weight 1 and bias 0,
    biases of convolutions at 0, linear layers with PyTorch's default. Some heads start their convolutions otherwise.
    """

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        family = FAMILIES[arch.family]
        self.stem = family.stem(arch)
        between = {str(i): family.transition(arch, i) for i in range(len(arch.stages))}
        self.transitions = nn.ModuleDict({i: module for i, module in between.items() if module is not None})
        self.stages = nn.Sequential(*_stages(arch, family))
        self.final = family.final(arch)
        self.taps = {training: network.taps(arch, training) for training in (True, False)}
        shapes = network.tapped(arch)
        self.pool = average(arch.dimensions) if arch.head is None else None
        self.head: nn.Module
        if arch.head is None:
            self.head = nn.Linear(shapes[0][0], arch.classes)
        else:
            self.head = HEADS[arch.head.kind](arch.head, shapes, arch.classes)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights anew."""
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Conv3d)):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, (nn.BatchNorm2d, nn.BatchNorm3d, nn.Linear)):
                module.reset_parameters()
        for module in self.modules():
            if isinstance(module, NonLocal):
                module.reset_gate()
        reset_head = getattr(self.head, "reset_head", None)
        if reset_head is not None:
            reset_head()

    def features(self, images: Tensor) -> list[Tensor]:
        """The feature maps of all stages, each N×channels×h×w."""
        return self._features(images, range(len(self.stages)))

    def _features(self, images: Tensor, wanted: Sequence[int]) -> list[Tensor]:
        """Those of the ``wanted`` stages, so that the memory of the others can be freed on the way."""
        found, x, last = [], self.stem(images), len(self.stages) - 1
        for i, stage in enumerate(self.stages):
            x = stage(self.transitions[str(i)](x) if str(i) in self.transitions else x)
            if i == last and self.final is not None:
                x = self.final(x)
            if i in wanted:
                found.append(x)
        return found

    def forward(self, images: Tensor) -> Any:
        features = self._features(images, self.taps[self.training])
        if self.pool is None:
            return self.head(features, images.shape[2:])
        return self.head(self.pool(features[0]).flatten(1))


def _stages(arch: Architecture, family: Any) -> Iterator[nn.Sequential]:
    for stage, in_width in arch.walk():
        blocks = nn.Sequential()
        for place, numbers in network.places(stage.blocks, alike=False):
            for _ in numbers:
                blocks.append(family.block(arch, stage, in_width if place.first else stage.out, place))
        if stage.non_local:
            blocks.append(NonLocal(stage.out, arch.dimensions))
        yield blocks
