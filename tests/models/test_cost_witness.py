"""Every named network: what the built module holds and does, against the closed forms of arch.cost."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pyconv_search.arch.cost import cost
from pyconv_search.arch.presets import PRESETS, preset
from pyconv_search.models import build


def measured(arch):
    """(params, MACs, activations, output shape) of the built network on the meta device."""
    elements = []
    with torch.device("meta"):
        network, image = build(arch).eval(), torch.empty(1, *arch.input)
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Conv3d, nn.Linear)):
            module.register_forward_hook(lambda module, inputs, output: elements.append(output.numel()))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        out = network(image)
    params = sum(parameter.numel() for parameter in network.parameters())
    return params, counter.get_total_flops() // 2, sum(elements), tuple(out.shape)


@pytest.mark.parametrize("name", PRESETS)
def test_closed_forms_equal_the_module(name):
    arch = preset(name)
    closed = cost(arch)
    assert measured(arch) == (closed.params, closed.executed, closed.activations, (1, arch.classes))
    for part in ("params", "macs", "activations"):
        assert sum(getattr(p, part) for p in closed.parts) == getattr(closed, part)


@pytest.mark.parametrize("side", [33, 47, 100])
def test_odd_image_sizes(side, variants):
    for arch in variants((3, side, side + 6)):
        closed = cost(arch)
        assert measured(arch)[:3] == (closed.params, closed.executed, closed.activations)
        with torch.device("meta"):
            features = build(arch).features(torch.empty(1, *arch.input))
        assert tuple(features[-1].shape[1:]) == closed.parts[-2].size
