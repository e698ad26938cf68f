"""What one layer costs, in the conventions by which the papers count.

``macs``: multiply-adds of convolutions and linear layers, zero-padded positions included, and nothing else (PSConv,
Table 2). ``thop-2019``: the operations that the package thop counted from April to June 2019, by which the PyConv
paper's tables were made (found from its figures): one a multiply-add of a convolution, whose bias counts as one more
tap of its kernel; 2·fan_in − 1 an output of a linear layer; four a normalised number; one a rectified number; the
window (plus one for averages) a pooled number. Each module counts its last call only, so a rectifier that a block calls
three times counts once.

``executed``: every multiply-add that runs, that is ``macs`` and the matrix products of attention.

``macs`` and ``executed`` are those of inference; ``thop-2019`` includes the layers that are called in training only, as
the segmentation tables of the PyConv paper do (its text on Table 5: the counts include the auxiliary loss).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from pyconv_search.arch.trace import Layer


def macs(layer: Layer) -> int:
    """Multiply-adds of a convolution or linear layer."""
    return 0 if layer.training or layer.kind not in ("conv", "linear") else layer.output.size * layer.fan_in


def executed(layer: Layer) -> int:
    """Multiply-adds that run."""
    return 0 if layer.training or layer.kind not in ("conv", "linear", "matmul") else layer.output.size * layer.fan_in


_THOP: dict[str, Callable[[Layer], int]] = {
    "conv": lambda v: v.output.size * (v.fan_in + v.bias * (v.fan_in // math.prod(v.kernel))),
    "linear": lambda v: v.output.size * (2 * v.fan_in - 1),
    "norm": lambda v: 4 * v.inputs[0].size,
    "relu": lambda v: v.inputs[0].size,
    "max-pool": lambda v: v.output.size * math.prod(v.kernel),
    "avg-pool": lambda v: v.output.size * (math.prod(v.kernel) + 1),
    "adaptive-pool": lambda v: v.output.size * (math.prod(v.kernel) + 1),
}


def thop(layers: Iterable[Layer]) -> int:
    """Operations by the convention ``thop-2019``."""
    last_call = {layer.name: layer for layer in layers if layer.name and layer.kind in _THOP}
    return sum(_THOP[layer.kind](layer) for layer in last_call.values())
