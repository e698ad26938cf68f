"""PyConv2d against its definition: convolutions of several sizes side by side (PyConv, section 3)."""

from __future__ import annotations

import random

import pytest
import torch
import torch.nn.functional as F

from pyconv_search.errors import UserError
from pyconv_search.ops import PSConv2d, PyConv2d
from pyconv_search.ops.plain import Conv2d


def test_it_is_the_concatenation_of_its_levels():
    for seed in range(60):
        r = random.Random(seed)
        torch.manual_seed(seed)
        count, stride, bias = r.randint(1, 5), r.randint(1, 3), r.random() < 0.5
        kernels = [3 + 2 * j for j in range(count)]
        groups = [r.choice([1, 2, 4]) for _ in kernels]
        widths = [r.choice([4, 8]) for _ in kernels]
        dilations = [r.choice([1, 1, 2]) for _ in kernels]
        pyconv = PyConv2d(8, widths, kernels, groups, stride, bias, [(d,) for d in dilations], dtype=torch.float64)
        x = torch.randn(2, 8, 1 + seed % 8, 6, dtype=torch.float64)
        expected = [
            F.conv2d(x, level.weight, level.bias, stride, d * (k // 2), d, g)
            for level, k, g, d in zip(pyconv.levels, kernels, groups, dilations, strict=True)
        ]
        assert [level.bias is not None for level in pyconv.levels] == [bias] * count
        torch.testing.assert_close(pyconv(x), torch.cat(expected, 1), atol=1e-12, rtol=1e-12)


def test_a_level_with_a_pattern_is_poly_scale(reference):
    torch.manual_seed(0)
    pyconv = PyConv2d(8, [4, 6], [3, 5], [2, 1], 2, pattern=[(1,), (1, 2, 4)], axes=["both", "input"])
    assert [type(level) for level in pyconv.levels] == [Conv2d, PSConv2d]
    x = torch.randn(2, 8, 9, 9)
    case = {"in_channels": 8, "out_channels": 6, "groups": 1, "pattern": (1, 2, 4), "axes": "input", "stride": 2}
    expected = reference(x, pyconv.levels[1].weight, None, case)
    torch.testing.assert_close(pyconv(x)[:, 4:], expected, atol=1e-5, rtol=1e-4)


def test_levels_of_equation_1_cost_the_same():
    """PyConv, section 3: with groups K_j²/K_1² every level costs what the bottom one does."""
    pyconv = PyConv2d(50 * 9, [450, 450], [1, 3], [1, 9])
    bottom, top = (level.weight.numel() for level in pyconv.levels)
    assert bottom == top


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"out_channels": []}, "out_channels must hold one number for each level, but got none"),
        ({"kernel_size": [3]}, r"kernel_size must have one entry for each of the 2 levels, but got \[3\]"),
        ({"groups": [1]}, "groups must have one entry for each of the 2 levels"),
        ({"groups": [1, 3]}, "groups must divide in_channels = 8 and out_channels = 4, but got 3; nearest: 2, 4"),
        ({"pattern": [(1,)]}, "pattern must have one entry for each of the 2 levels"),
        ({"kernel_size": [3, 4]}, "kernel_size must be odd, but got 4; nearest: 3, 5"),
        ({"axes": "out"}, "axes must be one of both, input, output, but got 'out'"),
    ],
)
def test_wrong_arguments_are_told(arguments, message):
    with pytest.raises(UserError, match=message):
        PyConv2d(**{"in_channels": 8, "out_channels": [4, 4], "kernel_size": [3, 5], **arguments})
