"""That no convolution of a network goes around what keeps its gradients right, and that these are those of float64."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from pyconv_search.arch.presets import PRESETS, preset
from pyconv_search.models import build
from pyconv_search.ops.plain import Conv2d, Conv3d
from pyconv_search.ops.psconv import PSConv2d

ROOT = Path(__file__).parents[2]


def convolutions(network: nn.Module) -> dict[str, type[nn.Module]]:
    kinds = (nn.modules.conv._ConvNd, nn.LazyConv2d)
    return {name: type(module) for name, module in network.named_modules() if isinstance(module, kinds)}


def searched(count: int, seed: int = 0) -> str:
    """What the search over random convolutions finds; memory is filled in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.gradients", "--count", str(count), "--seed", str(seed)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout


@pytest.mark.parametrize("name", PRESETS)
def test_every_convolution_of_a_published_network(name: str):
    with torch.device("meta"):
        found = convolutions(build(preset(name)))
    assert found
    assert set(found.values()) <= {Conv2d, Conv3d, PSConv2d}, found


def test_every_convolution_of_every_choice(variants):
    with torch.device("meta"):
        found = [kind for arch in variants((3, 32, 32)) for kind in convolutions(build(arch)).values()]
    assert set(found) == {Conv2d, PSConv2d}


def test_a_sample_of_random_convolutions():
    assert searched(60) == "60 cases; wrong: none\n"


@pytest.mark.slow
def test_thousands_of_random_convolutions():
    assert searched(4000, seed=1) == "4000 cases; wrong: none\n"
