"""How the convolutions of detection heads start."""

from __future__ import annotations

from torch import nn


def xavier(head: nn.Module) -> None:
    """Uniform by fan in and fan out (Glorot, Bengio 2010), as the released code of SSD and of FPN has it."""
    for module in head.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.xavier_uniform_(module.weight)
