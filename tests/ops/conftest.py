"""Poly-scale convolution computed kernel by kernel, from the paper's words alone."""

from __future__ import annotations

import random

import pytest
import torch
import torch.nn.functional as F


def dilation_of(c: int, k: int, case: dict) -> int:
    """The dilation of the kernel from input channel k to output channel c, both counted over the whole layer from 0."""
    groups, pattern = case["groups"], list(case["pattern"])
    per_group_in, per_group_out = case["in_channels"] // groups, case["out_channels"] // groups
    if groups > 1 and per_group_in == 1:  # appendix A: one pattern is arranged across t groups
        return pattern[(c // per_group_out) % len(pattern)]
    row = pattern
    c, k = c % per_group_out, k % per_group_in  # section 3.2: a shared cyclic pattern in each group
    if case["axes"] == "output":
        return row[c % len(row)]
    if case["axes"] == "both":
        for _ in range(c):  # shifted by one channel to build its adjacent filter
            row = [row[-1], *row[:-1]]
    return row[k % len(row)]


def convolve(x, weight, bias, case):
    """Equation 3, one ``F.conv2d`` for every pair of channels."""
    per_group = case["in_channels"] // case["groups"]
    filters = []
    for c in range(case["out_channels"]):
        first = c // (case["out_channels"] // case["groups"]) * per_group
        terms = []
        for k in range(first, first + per_group):
            d = dilation_of(c, k, case)
            kernel = weight[c, k - first][None, None]
            padding = tuple(d * (side - 1) // 2 for side in kernel.shape[2:])
            terms.append(F.conv2d(x[:, k : k + 1], kernel, None, case["stride"], padding, d))
        filters.append(sum(terms))
    out = torch.cat(filters, 1)
    return out if bias is None else out + bias[:, None, None]


def draw(seed: int) -> dict:
    """Arguments of a small random poly-scale convolution; a fifth are depthwise, most widths are not multiples of t."""
    r = random.Random(seed)
    groups = r.choice([1, 1, 1, 2, 3])
    widths = groups * r.randint(1, 6), groups * r.randint(1, 6)
    if seed % 5 == 0:
        groups = r.randint(2, 9)
        widths = groups, groups * r.randint(1, 2)
    elif seed % 5 == 1:
        widths = 8 * groups, 8 * groups
    return {
        "in_channels": widths[0],
        "out_channels": widths[1],
        "kernel_size": r.choice([1, 3, 3, 5, 7]),
        "stride": r.choice([1, 1, 2, 3]),
        "groups": groups,
        "bias": r.random() < 0.5,
        "pattern": tuple(r.choice([1, 1, 2, 3, 4]) for _ in range(r.randint(1, 8))),
        "axes": r.choice(["both", "both", "input", "output"]),
    }


@pytest.fixture(scope="session")
def reference():
    return convolve


@pytest.fixture(scope="session")
def reference_dilation():
    return dilation_of


@pytest.fixture(scope="session")
def random_case():
    return draw
