"""PSConv2d against the kernel-by-kernel reference, in float64."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pyconv_search.arch.dilation import dilation_matrix, dilations_used
from pyconv_search.arch.plans.operation import cosets
from pyconv_search.errors import UserError
from pyconv_search.ops import PSConv2d
from pyconv_search.ops.planning import executed_as

SEEDS = range(300)


def flops(module, x):
    with executed_as("split"), FlopCounterMode(display=False) as counter:
        module(x)
    return counter.get_total_flops()


def test_values_and_gradients_equal_the_definition(reference, random_case):
    for seed in SEEDS:
        case, memory_format = random_case(seed), (torch.contiguous_format, torch.channels_last)[seed % 2]
        torch.manual_seed(seed)
        conv = PSConv2d(**case, dtype=torch.float64).to(memory_format=memory_format)
        x = torch.randn(2, case["in_channels"], 1 + seed % 7, 1 + seed % 11, dtype=torch.float64)
        x = x.to(memory_format=memory_format).requires_grad_()
        out, expected = conv(x), reference(x, conv.weight, conv.bias, case)
        torch.testing.assert_close(out, expected, atol=1e-11, rtol=1e-11, msg=lambda text, case=case: f"{case}: {text}")
        direction, wanted = torch.randn_like(expected), [x, *conv.parameters()]
        found = torch.autograd.grad(out, wanted, direction)
        torch.testing.assert_close(found, torch.autograd.grad(expected, wanted, direction), atol=1e-11, rtol=1e-11)


def test_no_multiplication_more_or_less_than_the_standard_convolution(random_case):
    for seed in SEEDS[::2]:
        case = random_case(seed)
        x = torch.randn(1, case["in_channels"], 6, 5)
        standard = nn.Conv2d(
            case["in_channels"],
            case["out_channels"],
            case["kernel_size"],
            case["stride"],
            case["kernel_size"] // 2,
            groups=case["groups"],
        )
        assert flops(PSConv2d(**case), x) == flops(standard, x) > 0, case


def test_dilation_matrix_is_the_papers(random_case, reference_dilation):
    for seed in SEEDS:
        case = random_case(seed)
        per_group_in = case["in_channels"] // case["groups"]
        expected = tuple(
            tuple(
                reference_dilation(c, c // (case["out_channels"] // case["groups"]) * per_group_in + k, case)
                for k in range(per_group_in)
            )
            for c in range(case["out_channels"])
        )
        shape = (case["in_channels"], case["out_channels"], case["pattern"], case["axes"], case["groups"])
        assert dilation_matrix(*shape) == expected, case
        assert dilations_used(*shape) == {d for row in expected for d in row}, case


def test_figure_2_of_the_paper():
    assert dilation_matrix(4, 4, (1, 2, 1, 4)) == ((1, 2, 1, 4), (4, 1, 2, 1), (1, 4, 1, 2), (2, 1, 4, 1))


def test_wide_layers_run_one_convolution_a_coset():
    conv, x = PSConv2d(256, 256, bias=False), torch.empty(1, 256, 4, 4)
    with torch.profiler.profile() as profile, torch.no_grad(), executed_as("split"):
        conv(x)
    assert sum(event.count for event in profile.key_averages() if event.key == "aten::conv2d") == 3


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ((1, 2, 1, 4), [(1, 2, 0), (2, 4, 1), (4, 4, 3)]),
        ((1, 1, 1, 2), [(1, 2, 0), (1, 4, 1), (2, 4, 3)]),
        ((3,), [(3, 1, 0)]),
        ((1, 2, 3, 1, 2, 1), [(1, 3, 0), (2, 3, 1), (3, 6, 2), (1, 6, 5)]),
    ],
)
def test_cosets_partition_the_cycle(pattern, expected):
    found = cosets(pattern)
    assert list(found) == expected
    members = [j for coset in found for j in range(coset.offset, len(pattern), coset.modulus)]
    assert sorted(members) == list(range(len(pattern)))


def test_weights_pass_to_and_from_a_standard_convolution():
    torch.manual_seed(0)
    standard = nn.Conv2d(8, 12, 3, padding=1, groups=2)
    torch.manual_seed(0)
    conv = PSConv2d(8, 12, 3, groups=2)
    assert list(conv.state_dict()) == list(standard.state_dict()) == ["weight", "bias"]
    assert torch.equal(conv.weight, standard.weight)
    assert torch.equal(conv.bias, standard.bias)
    standard.load_state_dict(conv.state_dict(), strict=True)
    conv.load_state_dict(standard.state_dict(), strict=True)
    undilated = PSConv2d(8, 12, 3, groups=2, pattern=(1, 1))
    undilated.load_state_dict(standard.state_dict())
    x = torch.randn(2, 8, 5, 5)
    assert torch.equal(undilated(x), standard(x))
    assert not torch.allclose(conv(x), standard(x))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"groups": 3}, "groups must divide in_channels = 8 and out_channels = 12, but got 3; nearest: 2, 4"),
        ({"groups": 0}, "groups must be 1 or more, but got 0"),
        ({"in_channels": 0}, "in_channels must be 1 or more, but got 0"),
        ({"kernel_size": 4}, "kernel_size must be odd, but got 4; nearest: 3, 5"),
        ({"kernel_size": (3, 0)}, "kernel_size must be an integer of 1 or more"),
        ({"stride": 0}, "stride must be an integer of 1 or more"),
        ({"pattern": ()}, "pattern must hold at least one dilation, but got none"),
        ({"pattern": (1, 2.5)}, r"pattern must hold integers, such as \(1, 2, 1, 4\), but got \(1, 2.5\)"),
        ({"pattern": 2}, "pattern must hold integers, such as .*, but got 2"),
        ({"pattern": "12"}, "pattern must hold integers, such as .*, but got '12'"),
        ({"pattern": (1, 0)}, r"pattern must hold dilations of 1 or more, but got \(1, 0\)"),
        ({"axes": "inputs"}, "axes must be one of both, input, output, but got 'inputs'; did you mean input?"),
    ],
)
def test_wrong_arguments_are_told_with_the_nearest_right_ones(arguments, message):
    with pytest.raises(UserError, match=message):
        PSConv2d(**{"in_channels": 8, "out_channels": 12, **arguments})
