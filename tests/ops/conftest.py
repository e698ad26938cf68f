"""Poly-scale convolution computed kernel by kernel, from the paper's words alone; and the worst errors found."""

from __future__ import annotations

import random
from collections import defaultdict

import pytest
import torch
import torch.nn.functional as F

from pyconv_search.arch.plans.operation import Operation, class_order, side


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


def convolve(x, weight, bias, case, rows=None, columns=None):
    """Equation 3, one ``F.conv2d`` for every pair of channels.

    ``rows`` and ``columns`` say of every output and input channel which one of the paper's order it is.
    """
    per_group = case["in_channels"] // case["groups"]
    rows, columns = rows or range(case["out_channels"]), columns or range(case["in_channels"])
    filters = []
    for c in range(case["out_channels"]):
        first = c // (case["out_channels"] // case["groups"]) * per_group
        terms = []
        for k in range(first, first + per_group):
            d = dilation_of(rows[c], columns[k], case)
            kernel = weight[c, k - first][None, None]
            padding = tuple(d * (side - 1) // 2 for side in kernel.shape[2:])
            terms.append(F.conv2d(x[:, k : k + 1], kernel, None, case["stride"], padding, d))
        filters.append(sum(terms))
    out = torch.cat(filters, 1)
    return out if bias is None else out + bias[:, None, None]


def class_major(channels: int, groups: int, pattern: tuple[int, ...]) -> list[int]:
    """Of every channel which one of the paper's order it is, where every group holds class after class."""
    size = channels // groups
    own = [channel for residue in class_order(pattern) for channel in range(residue, size, len(pattern))]
    return [group * size + channel for group in range(groups) for channel in own]


def convolve_levels(x, weights, operation: Operation):
    """What an operation computes, level by level and kernel by kernel."""
    outs = []
    for level, weight in zip(operation.conv.levels, weights, strict=True):
        case = {
            "in_channels": operation.in_channels,
            "out_channels": level.width,
            "groups": level.groups,
            "pattern": level.pattern,
            "axes": level.axes,
            "stride": operation.stride,
        }
        assert tuple(weight.shape[2:]) == side(level)
        rows = class_major(level.width, level.groups, level.pattern) if operation.sorted_out else None
        columns = class_major(operation.in_channels, level.groups, level.pattern) if operation.sorted_in else None
        outs.append(convolve(x, weight, None, case, rows, columns))
    return torch.cat(outs, 1)


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
def operation_reference():
    return convolve_levels


@pytest.fixture(scope="session")
def reference_dilation():
    return dilation_of


@pytest.fixture(scope="session")
def random_case():
    return draw


# Of every way and type, and of output and gradients: (worst error in roundings, its tolerance, the operation) of a run.
WORST: dict[tuple[str, str], dict[str, list[tuple[float, float, str]]]] = defaultdict(lambda: defaultdict(list))


@pytest.fixture(scope="session")
def worst_errors():
    return WORST


def pytest_terminal_summary(terminalreporter, config):
    """With -v the worst error of every way and type, with -vv of every case."""
    level = config.getoption("verbose")
    if not WORST or level < 0:
        return
    write = terminalreporter.write_line
    terminalreporter.section("worst errors in roundings of the type times the sum of absolute products (tolerance)")
    write(f"{'way':<22}{'type':<10}{'cases':>6}{'output':>16}{'input gradient':>18}{'weight gradient':>18}")
    for (way, dtype), found in sorted(WORST.items()):
        cells = [max(found[direction], default=(0.0, 0.0, "")) for direction in ("output", "input", "weight")]
        texts = [f"{error:.2f} ({tolerance:.1f})" for error, tolerance, _ in cells]
        write(f"{way:<22}{dtype:<10}{len(found['output']):>6}{texts[0]:>16}{texts[1]:>18}{texts[2]:>18}")
    if level > 0:
        for (way, dtype), found in sorted(WORST.items()):
            for direction, cases in found.items():
                for error, tolerance, case in cases:
                    write(f"{way} {dtype} {direction}: {error:.3f} of {tolerance:.1f}  {case}")
