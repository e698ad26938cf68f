"""From an Architecture to a torch module."""

from __future__ import annotations

from torch import nn

from pyconv_search.arch.spec import Architecture
from pyconv_search.errors import UserError
from pyconv_search.fields import kind_of
from pyconv_search.models.network import Network


def build(arch: Architecture) -> nn.Module:
    """The network that ``arch`` describes, with freshly initialised weights.

    Built on the default device: inside ``with torch.device("meta")`` it costs no memory.

    Shape:
        N×C×H×W (N×C×T×H×W for video) to N×classes, or to what the head puts out; ``arch.input`` says which sizes its
        cost is quoted for, larger images work alike.
    """
    if not isinstance(arch, Architecture):
        raise UserError(f"must be an Architecture, as preset(name) gives it, but got {kind_of(arch)}")
    return Network(arch)


__all__ = ["build"]
