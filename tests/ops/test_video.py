"""Pyramidal convolution over time against loops over its taps, and its arguments."""

from __future__ import annotations

import itertools

import pytest
import torch

from pyconv_search.errors import UserError
from pyconv_search.ops import PyConv3d


def convolved(x, weight, groups, stride):
    """A convolution of a zero-padded clip, tap by tap: C×T×H×W with weight O×(C/groups)×kernel."""
    sizes = [(n - 1) // s + 1 for n, s in zip(x.shape[1:], stride, strict=True)]
    out = torch.zeros(len(weight), *sizes, dtype=x.dtype)
    into, per = x.shape[0] // groups, len(weight) // groups
    half = [k // 2 for k in weight.shape[2:]]
    for place in itertools.product(*map(range, sizes)):
        for tap in itertools.product(*map(range, weight.shape[2:])):
            at = [p * s + t - h for p, s, t, h in zip(place, stride, tap, half, strict=True)]
            if all(0 <= a < n for a, n in zip(at, x.shape[1:], strict=True)):
                seen = x[(slice(None), *at)].reshape(groups, into)
                taps = weight[(slice(None), slice(None), *tap)].reshape(groups, per, into)
                out[(slice(None), *place)] += (taps @ seen[:, :, None]).flatten()
    return out


@pytest.mark.parametrize("stride", [(1, 1, 1), (1, 2, 2), (2, 2, 1)])
def test_levels_side_by_side(stride):
    torch.manual_seed(0)
    module = PyConv3d(4, [2, 4], [3, (1, 5, 3)], [1, 2], stride).double()
    x = torch.randn(1, 4, 3, 5, 4, dtype=torch.float64)
    parts = [convolved(x[0], level.weight.data, level.groups, stride) for level in module.levels]
    with torch.no_grad():
        torch.testing.assert_close(module(x)[0], torch.cat(parts))
    assert module.out_channels == 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((4, [], []), "out_channels, kernel_size and groups must have one entry for each level"),
        ((4, [2, 2], [3]), "out_channels, kernel_size and groups must have one entry for each level"),
        ((4, [2], [4]), r"kernel_size must be odd, one number or \(time, height, width\), but got 4"),
        ((4, [2], [(3, 3)]), r"kernel_size must be odd, one number or \(time, height, width\), but got \(3, 3\)"),
        ((4, [6], [3], [4]), "groups must divide in_channels = 4 and out_channels = 6, but got 4; nearest: 2"),
    ],
)
def test_wrong_arguments_are_told(arguments, message):
    with pytest.raises(UserError, match=message):
        PyConv3d(*arguments)
