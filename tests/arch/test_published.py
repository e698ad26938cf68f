"""What the papers print, from settings a human would write: parameters in millions, multiply-adds in 10⁹."""

from __future__ import annotations

import pytest

from pyconv_search.arch.cost import cost
from pyconv_search.arch.presets import preset
from pyconv_search.arch.resnet import resnet

# PyConv, Tables 1 to 3, and the released code's comments for 18 and 34 layers; PSConv's twins have the same counts.
PARAMETERS = {
    "resnet-50": 25.56,
    "resnet-101": 44.55,
    "resnet-152": 60.19,
    "pyconvresnet-18": 11.21,
    "pyconvresnet-34": 20.44,
    "pyconvresnet-50": 24.85,
    "pyconvresnet-101": 42.31,
    "pyconvresnet-152": 56.64,
    "resnext-50-32x4d": 25.03,
    "resnext-101-32x4d": 44.18,
    "resnext-152-32x4d": 59.95,
    "ps-resnet-50": 25.56,
    "ps-resnet-101": 44.55,
    "ps-resnext-50-32x4d": 25.03,
    "ps-resnext-101-32x4d": 44.18,
}

TOP = [{"kernels": 9, "groups": 16}, {"kernels": 7, "groups": 8}, {"kernels": 5, "groups": 4}, {"kernels": 3}]
NO_POOL = {"stem": {"pool": "none"}}

# PyConv, Table 2: the ablation of levels, from top to bottom.
TABLE_2 = [
    ({"levels": [1, 1, 1, 1]}, 25.56),
    ({"levels": [2, 2, 2, 1]}, 24.91),
    ({"levels": [3, 3, 2, 1]}, 24.85),
    ({"levels": [4, 3, 2, 1]}, 24.85),
    ({"stages": TOP}, 24.24),
    ({"levels": [5, 4, 3, 2]}, 23.45),
    ({"levels": [4, 3, 2, 1], "stages": [{"shortcut": "max+conv"}, {}, {}, {}], **NO_POOL}, 24.85),
    ({"levels": [4, 3, 2, 1], "shortcut": "max+conv", **NO_POOL}, 24.85),
]

# PyConv, Table 1: (kernel, output channels, groups) of every level, bottom first.
TABLE_1 = (
    ((3, 16, 1), (5, 16, 4), (7, 16, 8), (9, 16, 16)),
    ((3, 32, 1), (5, 32, 4), (7, 64, 8)),
    ((3, 128, 1), (5, 128, 4)),
    ((3, 512, 1),),
)


def millions(arch):
    return round(cost(arch).params / 1e6, 2)


@pytest.mark.parametrize(("name", "printed"), PARAMETERS.items())
def test_parameters_of_the_presets(name, printed):
    assert millions(preset(name)) == printed


@pytest.mark.parametrize(("settings", "printed"), TABLE_2)
def test_parameters_of_table_2(settings, printed):
    assert millions(resnet({"depth": 50, **settings}, (3, 224, 224), 1000)) == printed


@pytest.mark.parametrize("name", ["resnet-50", "ps-resnet-50"])
def test_psconv_table_2(name):
    found = cost(preset(name))
    assert (round(found.params / 1e6, 3), round(found.macs / 1e9, 3)) == (25.557, 4.089)
    assert found.gmacs == found.macs / 1e9


def test_pyconv_table_1():
    stages = preset("pyconvresnet-50").stages
    assert tuple(tuple((v.kernel, v.width, v.groups) for v in stage.conv.levels) for stage in stages) == TABLE_1
    sizes = [part.size for part in cost(preset("pyconvresnet-50")).parts]
    expected = [(64, 112, 112), (256, 56, 56), (512, 28, 28), (1024, 14, 14), (2048, 7, 7), (1000, 1, 1)]
    assert sizes == expected


def test_receptive_fields_by_hand():
    """ResNet-18: 7 − 1 pixels, a 2-pixel pool at jump 2, then eight blocks of two 3×3 at jumps 4, 8, 16 and 32."""
    blocks = (4 * 2 * 4) + (2 * 4 + 3 * 2 * 8) + (2 * 8 + 3 * 2 * 16) + (2 * 16 + 3 * 2 * 32)
    assert cost(preset("resnet-18")).receptive_field == 7 + 2 * 2 + blocks == 435


def test_a_matched_pyramid_costs_what_its_bottom_level_does():
    """PyConv, equation 1: groups of about K_j²/K_1² keep the cost of the levels equal."""
    arch = resnet({"depth": 50, "levels": 4, "groups": "matched"}, (3, 224, 224), 1000)
    groups = [level.groups for level in arch.stages[0].conv.levels]
    assert groups == [1, 2, 4, 8]
