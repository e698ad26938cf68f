"""The scale allocation of PSConv's appendix D against the definition, kernel by kernel."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pyconv_search.arch.resnet import resnet
from pyconv_search.models import build
from pyconv_search.models.scales import scale_allocation
from pyconv_search.models.sorting import sort_channels
from pyconv_search.ops.psconv import PSConv2d
from pyconv_search.ops.pyconv import PyConv2d


@pytest.mark.parametrize("axes", ["both", "input", "output"])
@pytest.mark.parametrize("groups", [1, 2])
def test_every_kernel_counts_for_its_own_dilation(axes: str, groups: int):
    torch.manual_seed(0)
    layer = PSConv2d(8, 12, groups=groups, pattern=(1, 2, 1, 4), axes=axes)
    largest: dict[int, float] = {}
    for c in range(12):
        for k in range(8 // groups):
            inner = c % (12 // groups)
            at = {"both": k - inner, "input": k, "output": inner}[axes] % 4
            mean = layer.weight[c, k].abs().sum().item() / 9
            dilation = (1, 2, 1, 4)[at]
            largest[dilation] = max(largest.get(dilation, 0.0), mean)
    found = scale_allocation(nn.Sequential(layer))
    assert list(found) == ["0"]
    expected = {f"3×3, dilation {d}": largest[d] / sum(largest.values()) for d in (1, 2, 4)}
    assert found["0"] == pytest.approx(expected)
    assert sum(found["0"].values()) == pytest.approx(1)


def test_levels_of_a_pyramid_are_scales():
    torch.manual_seed(0)
    layer = PyConv2d(8, [4, 4, 8], [3, 5, 5], [1, 2, 4], pattern=[(1, 2), (1,), (1,)])
    weights = [level.weight.abs().mean((2, 3)) for level in layer.levels]
    layer.levels[0].weight.data.zero_()
    layer.levels[0].weight.data[0, 1] = 1.0  # Output 0 reads input 1 with dilation 2.
    five = max(w.max().item() for w in weights[1:])
    found = scale_allocation(nn.Sequential(layer))["0"]
    assert found == pytest.approx(
        {"3×3, dilation 1": 0.0, "3×3, dilation 2": 1 / (1 + five), "5×5, dilation 1": five / (1 + five)}
    )


def test_networks_by_layer_whatever_the_order_of_their_channels():
    stem = {"kernel": 3, "width": 8, "stride": 1, "pool": "none"}
    torch.manual_seed(0)
    model = build(resnet({"blocks": [1, 1], "pattern": [1, 2, 1, 4], "stem": stem}, (3, 16, 16), 5))
    plain = scale_allocation(model)
    assert list(plain) == [f"stages.{stage}.0.conv{i}" for stage in (0, 1) for i in (1, 2)]
    assert sort_channels(model)
    assert scale_allocation(model) == plain
    assert scale_allocation(build(resnet({"blocks": [1, 1], "stem": stem}, (3, 16, 16), 5))) == {}


def test_video():
    clips = {"blocks": [1], "levels": [2], "stem": {"kernel": 3, "width": 8, "stride": 1, "pool": "none"}}
    found = scale_allocation(build(resnet(clips, (3, 4, 8, 8), 5)))
    assert [len(shares) for shares in found.values()] == [2, 2]
