"""Segmentation heads: the printed costs, what the auxiliary head adds to them, and what their settings may be."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from pyconv_search.arch.canonical import canonical_json, from_dict, to_dict
from pyconv_search.arch.cost import cost
from pyconv_search.arch.heads.head import Backbone
from pyconv_search.arch.heads.segmentation import KINDS, SegmentationHead, read
from pyconv_search.arch.presets import preset
from pyconv_search.arch.resnet import resnet
from pyconv_search.arch.spec import Conv, Level
from pyconv_search.fields import Fields, Problems, SpecError

# PyConv, Table 6 and the supplement's Table 6 (473×473, 150 classes): parameters in millions, GFLOPs.
PRINTED = {
    "resnet-50+conv3x3": (35.42, 131.37),
    "resnet-50+aspp": (41.48, 151.17),
    "resnet-50+ppm": (49.06, 165.42),
    "resnet-50+pyconvph": (34.40, 116.84),
    "resnet-50+conv3x3-os16": (35.42, 39.52),
    "resnet-50+aspp-os16": (41.48, 44.47),
    "resnet-50+ppm-os16": (49.06, 48.08),
    "resnet-50+pyconvph-os16": (34.40, 36.08),
    "pyconvresnet-50+pyconvph": (33.69, 114.18),
    "resnet-101+pyconvph": (53.39, 185.47),
    "pyconvresnet-101+pyconvph": (51.15, 177.29),
    "resnet-152+pyconvph": (69.03, 242.00),
    "pyconvresnet-152+pyconvph": (65.48, 229.11),
}
PYCONV4 = Conv(tuple(Level(k, 128, g) for k, g in ((3, 1), (5, 4), (7, 8), (9, 16))))
SMALL = {"blocks": [1, 1], "block": "bottleneck", "stem": {"kernel": 3, "width": 8, "stride": 1, "pool": "none"}}


@pytest.mark.parametrize(("name", "printed"), PRINTED.items())
def test_printed_costs(name, printed):
    found = cost(preset(name))
    assert (round(found.params / 1e6, 2), round(found.thop / 1e9, 2)) == printed


def test_the_printed_costs_need_the_pooling_that_dilated_stages_keep():
    arch = preset("pyconvresnet-50+pyconvph")
    assert [stage.keeps_pool for stage in arch.stages] == [False, False, True, True]
    without = replace(arch, stages=tuple(replace(stage, keeps_pool=False) for stage in arch.stages))
    assert cost(arch).thop - cost(without).thop == 3 * (512 + 1024) * 60 * 60
    assert round(cost(without).thop / 1e9, 2) != PRINTED["pyconvresnet-50+pyconvph"][1]


def test_keeping_a_pool_says_nothing_where_there_is_none_or_a_stride():
    for name in ("resnet-50", "pyconvresnet-50"):
        arch = preset(name)
        assert replace(arch, stages=tuple(replace(stage, keeps_pool=True) for stage in arch.stages)) == arch


@pytest.mark.parametrize("kind", KINDS)
def test_the_auxiliary_head_is_in_the_parameters_and_in_thop_alone(kind):
    arch = preset(f"resnet-50+{kind}")
    with_it, without = cost(arch), cost(replace(arch, head=replace(arch.head, auxiliary=False)))
    positions, conv, classify = 60 * 60, 1024 * 256 * 9, 256 * 150
    assert with_it.params - without.params == conv + 2 * 256 + classify + 150
    assert with_it.thop - without.thop == positions * (conv + 5 * 256 + classify + 256 * 150)
    for count in ("macs", "executed", "activations"):
        assert getattr(with_it, count) == getattr(without, count)
    assert with_it.parts[-1].size == (150, 473, 473)


@pytest.mark.parametrize(
    ("kind", "settings", "expected"),
    [
        ("conv3x3", {}, SegmentationHead("conv3x3", 512)),
        ("conv3x3", {"width": 64, "auxiliary": False}, SegmentationHead("conv3x3", 64, auxiliary=False)),
        ("aspp", {}, SegmentationHead("aspp", 256, 256, rates=(12, 24, 36))),
        ("aspp", {"rates": 6, "branch": 32}, SegmentationHead("aspp", 256, 32, rates=(6,))),
        ("ppm", {}, SegmentationHead("ppm", 512, 512, bins=(1, 2, 3, 6))),
        ("ppm", {"bins": [1, 4]}, SegmentationHead("ppm", 512, 1024, bins=(1, 4))),
        ("pyconvph", {}, SegmentationHead("pyconvph", 256, 512, None, (9,), PYCONV4, PYCONV4)),
        (
            "pyconvph",
            {
                "branch": 64,
                "bins": 7,
                "local_pyramid": {"kernels": [3, 5], "groups": [1, 8], "pattern": [[1, 2], [1]]},
                "global_pyramid": {"levels": [{"kernel": 7, "width": 64}]},
            },
            SegmentationHead(
                "pyconvph",
                256,
                64,
                None,
                (7,),
                Conv((Level(3, 32, pattern=(1, 2)), Level(5, 32, 8))),
                Conv((Level(7, 64),)),
            ),
        ),
    ],
)
def test_settings_and_their_published_defaults(kind, settings, expected):
    fields = Fields(settings, ("head",), Problems())
    assert read(kind, fields, Backbone(2048, 8)) == expected
    fields.close()
    fields.problems.check()


def test_defaults_that_follow_the_backbone():
    def fields():
        return Fields({}, ("head",), Problems())

    assert read("aspp", fields(), Backbone(2048, 16)).rates == (6, 12, 18)
    assert read("ppm", fields(), Backbone(512, 8)).branch == 128


@pytest.mark.parametrize("kind", KINDS)
def test_json_and_back(kind):
    arch = preset(f"pyconvresnet-50+{kind}")
    again = from_dict(json.loads(canonical_json(arch)))
    assert again == from_dict(to_dict(arch)) == arch
    assert (hash(again), again.arch_id) == (hash(arch), arch.arch_id)
    others = [replace(arch.head, auxiliary=False), replace(arch.head, width=64)]
    assert len({replace(arch, head=head).arch_id for head in (arch.head, *others, None)}) == 4


def mistakes(head, image=(3, 32, 32), **settings):
    with pytest.raises(SpecError) as caught:
        resnet({**SMALL, **settings, "head": head}, image, 5)
    return str(caught.value).splitlines()


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ({"kind": "conv3x3", "rates": [6]}, "head.rates: unknown key; known here: auxiliary, kind, width"),
        ({"kind": "ppm", "bin": [1]}, "head.bin: unknown key; did you mean bins?"),
        ({"kind": "ppm", "bins": []}, "head.bins: must not be empty"),
        ({"kind": "aspp", "rates": [6, 0]}, "head.rates[1]: must be an integer of 1 or more, but got 0; nearest: 1"),
        ({"kind": "aspp", "width": 0}, "head.width: must be an integer of 1 or more, but got 0; nearest: 1"),
        ({"kind": "aspp", "auxiliary": "no"}, "head.auxiliary: must be true or false, but got a text ('no')"),
        ({"kind": "pyconvph", "bins": [3, 9]}, "head.bins: pyconvph averages once, but got [3, 9]; nearest: one number"),
        ({"kind": "ppm", "bins": [1, 17]}, "head.bins[1]: cannot average 16×16 features to 17×17; nearest: 16, or a larger image"),
        (
            {"kind": "pyconvph", "branch": 24, "local_pyramid": {"groups": [1, 4, 6, 6]}},
            "head.local_pyramid.groups[1]: 4 does not divide 6 output channels of the level; nearest: 3, 6",
        ),
        (
            {"kind": "pyconvph", "branch": 510},
            "head.local_pyramid.split: cannot split 510 channels 1:1:1:1 over 4 levels; nearest width: 508, 512",
        ),
        (
            {"kind": "pyconvph", "global_pyramid": {"kernels": [3, 4]}},
            "head.global_pyramid.kernels[1]: must be odd, but got 4; nearest: 3, 5",
        ),
        (
            {"kind": "pyconvph", "global_pyramid": {"levels": [4, 3]}},
            "head.global_pyramid.levels: must be one number, or a list with a mapping for each level, but got [4, 3]",
        ),
        ({"kind": "pyconvph", "local_pyramid": {"kernal": 3}}, "head.local_pyramid.kernal: unknown key; did you mean kernels?"),
    ],
)  # fmt: skip
def test_mistakes_in_the_settings(head, message):
    assert message in mistakes(head)


def test_mistakes_of_the_backbone():
    assert mistakes("aspp", (3, 4, 32, 32)) == [
        "head.kind: aspp is for images, but the input is video; nearest: classifier, or no head"
    ]
    assert mistakes("aspp", blocks=[1]) == [
        "head.auxiliary: reads the stage before the last, but the network has one stage; nearest: false"
    ]
    assert "pixels are too few" in mistakes("pyconvph", (3, 1, 9))[0]


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (SegmentationHead("pspnet", 8), "head.kind: must be one of conv3x3, aspp, ppm, pyconvph, but got 'pspnet'"),
        (SegmentationHead("aspp", 8, 8), "head.rates: is required by a head of kind aspp"),
        (SegmentationHead("conv3x3", 8, bins=(1,)), "head.bins: must be left out of a head of kind conv3x3"),
        (
            SegmentationHead("pyconvph", 8, 8, None, (2,), Conv((Level(3, 8, 3),)), Conv((Level(4, 8),))),
            "head.local_pyramid.levels[0].groups: 3 does not divide 8 input channels; nearest: 2, 4\n"
            "head.global_pyramid.levels[0].kernel: must be odd, but got 4; nearest: 3, 5",
        ),
    ],
)
def test_mistakes_in_a_value_that_came_from_a_file(head, message):
    with pytest.raises(SpecError) as caught:
        replace(resnet(SMALL, (3, 32, 32), 5), head=head)
    assert str(caught.value) == message
