"""From an Architecture to a torch module."""

from __future__ import annotations

from torch import nn

from pyconv_search.arch.spec import Architecture
from pyconv_search.errors import UserError
from pyconv_search.fields import suggestion
from pyconv_search.models.resnet import ResNet

FAMILIES: dict[str, type[ResNet]] = {"resnet": ResNet}


def build(arch: Architecture) -> nn.Module:
    """The network that ``arch`` describes, with freshly initialised weights.

    Built on the default device: inside ``with torch.device("meta")`` it costs no memory.

    Shape:
        N×C×H×W to N×classes; ``arch.input`` says which (C, H, W) its cost is quoted for, larger images work alike.

    Raises:
        UserError: if the family is unknown.
    """
    if arch.family not in FAMILIES:
        known = ", ".join(FAMILIES)
        raise UserError(f"family must be one of {known}, but got {arch.family!r}{suggestion(arch.family, FAMILIES)}")
    return FAMILIES[arch.family](arch)


__all__ = ["build"]
