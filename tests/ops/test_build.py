"""The table of operators: every line has a module, and the closed-form cost of that module is right."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pyconv_search.arch.cost import cost
from pyconv_search.arch.spec import Architecture, Conv, Level, Stage, Stem
from pyconv_search.arch.trace import Trace
from pyconv_search.errors import UserError
from pyconv_search.ops import PSConv2d, PyConv2d, build_conv
from pyconv_search.ops.build import OPERATORS, operator_of
from pyconv_search.ops.planning import executed_as

EXAMPLES = {
    "standard": [
        (Conv((Level(3, 16),)), nn.Conv2d),
        (Conv((Level(5, 16, 4),)), nn.Conv2d),
        (Conv((Level(3, 16, 16, (3,)),)), nn.Conv2d),
        (Conv((Level(1, 16, 1, (1, 2)),)), nn.Conv2d),
    ],
    "poly-scale": [
        (Conv((Level(3, 16, 1, (1, 2, 1, 4)),)), PSConv2d),
        (Conv((Level(5, 16, 2, (1, 3), "output"),)), PSConv2d),
        (Conv((Level(3, 16, 1, (1, 2, 5), "input"),)), PSConv2d),
        (Conv((Level(3, 16, 16, (1, 2, 1, 4)),)), PSConv2d),
    ],
    "pyramidal": [
        (Conv((Level(3, 4), Level(5, 4, 4), Level(7, 8, 8))), PyConv2d),
        (Conv((Level(3, 8, 1, (2,)), Level(5, 8, 4, (1, 2)))), PyConv2d),
    ],
}
CASES = [(name, conv, module) for name, examples in EXAMPLES.items() for conv, module in examples]


def test_every_operator_has_an_example():
    assert set(EXAMPLES) == set(OPERATORS)


@pytest.mark.parametrize(("name", "conv", "module"), CASES)
@pytest.mark.parametrize("stride", [1, 2])
def test_module_and_cost_rule_agree(name, conv, module, stride):
    assert operator_of(conv) == name
    built, x = build_conv(conv, 16, stride), torch.randn(1, 16, 9, 9)
    assert isinstance(built, module)
    with executed_as("plain"), FlopCounterMode(display=False) as counter:
        out = built(x)
    assert out.shape == (1, conv.width, (9 - 1) // stride + 1, (9 - 1) // stride + 1)
    closed = cost(Architecture(Stem(1, 16, 1), (Stage("basic", 1, conv, 16, stride),), 1, (1, 9, 9)))
    second = build_conv(conv, 16, 1)
    with executed_as("plain"), FlopCounterMode(display=False) as after:
        second(out)
    shortcut = 16 * 16 if stride != 1 else 0
    weights = sum(p.numel() for m in (built, second) for p in m.parameters())
    norms = 2 * 16 * (2 + (stride != 1))
    assert closed.parts[1].params == weights + norms + shortcut
    assert (
        closed.parts[1].macs
        == (counter.get_total_flops() + after.get_total_flops()) // 2 + shortcut * out.shape[-1] ** 2
    )


@pytest.mark.parametrize(("name", "conv", "module"), CASES)
def test_reach_is_that_of_the_module(name, conv, module):
    built = build_conv(conv, 16, 1).double()
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.fill_(1.0)
    t = Trace((16, 9, 9))
    reach = t.convolution("conv", t.inputs[0], conv).field - 1
    side = 2 * reach + 3
    x = torch.zeros(1, 16, side, side, dtype=torch.float64, requires_grad=True)
    built(x)[0, :, side // 2, side // 2].sum().backward()
    rows = x.grad.abs().sum((0, 1, 3)).nonzero().flatten()
    assert rows.max() - rows.min() == reach


def test_convolutions_have_no_bias():
    for _, conv, _ in CASES:
        assert [name for name, _ in build_conv(conv, 16, 1).named_parameters() if "bias" in name] == []


def test_a_convolution_without_levels_is_told():
    with pytest.raises(UserError, match="levels must be one or more, but got a convolution of 0"):
        build_conv(Conv(()), 16, 1)
