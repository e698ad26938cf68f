"""How a trained network shares its weights among scales (PSConv, appendix D)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from pyconv_search.arch.dilation import dilation_matrix
from pyconv_search.models.sorting import canonical_state
from pyconv_search.ops.psconv import PSConv2d
from pyconv_search.ops.pyconv import PyConv2d
from pyconv_search.ops.video import PyConv3d


@torch.no_grad()
def scale_allocation(model: nn.Module) -> dict[str, dict[str, float]]:
    """For every multi-scale convolution of a model the share of each of its scales, by the layer's name, in order.

    A scale is a kernel with its dilation, such as ``3×3, dilation 2``. Its weight is the mean of the absolute values in
    each kernel, of which the largest over all kernels of that scale is taken; within a layer these are divided by their
    sum (PSConv, appendix D, Figure 6). Levels of a pyramid are scales in the same sense, which the paper does not look
    at. Layers of a single scale are left out.
    """
    weights = canonical_state(model)
    found: dict[str, dict[str, float]] = {}
    for name, levels in _layers(model):
        largest: dict[str, float] = {}
        for key, level in levels.items():
            for scale, value in _largest(level, weights[f"{key}.weight"]):
                largest[scale] = max(value, largest.get(scale, 0.0))
        total = sum(largest.values())
        if len(largest) > 1 and total > 0:
            found[name] = {scale: value / total for scale, value in largest.items()}
    return found


def _layers(model: nn.Module) -> Iterator[tuple[str, dict[str, nn.Module]]]:
    """The multi-scale convolutions by name, each with its levels by name; a level is no layer of its own."""
    levels: set[nn.Module] = set()
    for name, module in model.named_modules():
        if isinstance(module, (PyConv2d, PyConv3d)):
            levels.update(module.levels)
            yield name, {f"{name}.levels.{i}": level for i, level in enumerate(module.levels)}
        elif isinstance(module, PSConv2d) and module not in levels:
            yield name, {name: module}


def _largest(level: nn.Module, weight: Tensor) -> Iterator[tuple[str, float]]:
    """Each scale of one convolution with the largest mean of absolute values over its kernels, by dilation."""
    means = weight.abs().double().flatten(2).mean(2)
    kernel = "×".join(map(str, weight.shape[2:]))
    if isinstance(level, PSConv2d):
        matrix = dilation_matrix(level.in_channels, level.out_channels, level.pattern, level.axes, level.groups)
        dilations = torch.tensor(matrix, device=means.device)
        for dilation in dilations.unique().tolist():
            yield f"{kernel}, dilation {dilation}", means[dilations == dilation].max().item()
    elif isinstance(level, (nn.Conv2d, nn.Conv3d)):
        dilation = max(level.dilation)
        yield f"{kernel}, dilation {dilation}", means.max().item()
