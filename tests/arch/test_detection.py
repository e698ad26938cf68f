"""Detectors in closed form: the supplement's table 1, and what is told before a detector is built."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from pyconv_search.arch.canonical import canonical_json, from_dict
from pyconv_search.arch.cost import cost
from pyconv_search.arch.heads import read
from pyconv_search.arch.heads.fpn import FPN
from pyconv_search.arch.heads.head import Backbone
from pyconv_search.arch.heads.ssd import SSD
from pyconv_search.arch.presets import preset
from pyconv_search.arch.resnet import resnet
from pyconv_search.arch.spec import Conv, Level
from pyconv_search.fields import Problems, SpecError

SMALL = {"blocks": [1, 1, 1], "stem": {"kernel": 3, "width": 8, "stride": 1, "pool": "none"}}


def head(kind, **settings):
    problems = Problems()
    found = read({"kind": kind, **settings}, ("head",), problems, Backbone(1024, 8))
    problems.check()
    return found


def small(own, image=(3, 64, 64)):
    return replace(resnet(SMALL, image, 5), head=own)


@pytest.mark.parametrize(
    ("name", "params", "gflops"),
    [
        ("resnet-50+ssd", 22.89, 20.92),
        ("pyconvresnet-50+pyconvssd", 21.55, 19.71),
        ("resnet-101+ssd", 41.89, 48.45),
        ("pyconvresnet-101+pyconvssd", 39.01, 45.02),
    ],
)
def test_pyconv_supplement_table_1(name, params, gflops):
    arch = preset(name)
    found = cost(arch)
    assert (round(found.params / 1e6, 2), round(found.thop / 1e9, 2)) == (params, gflops)
    assert found.parts[-2].size == (1024, 38, 38)
    assert found.parts[-1].size == (8732, 4, 1)
    assert [sides[0] for sides in arch.head.maps((1024, 38, 38))] == [38, 19, 10, 5, 3, 1]


def test_the_pyramids_of_figure_1():
    kernels = [tuple(level.kernel for level in conv.levels) for conv in head("pyconvssd").convs]
    assert kernels == [(3, 5, 7, 9), (3, 5, 7), (3, 5), (3,), (3,)]
    assert head("ssd").strides == head("pyconvssd").strides == (2, 2, 2, 1, 1)


def test_an_fpn_by_hand():
    """ResNet-50 at 64×64 has 256, 512, 1024 and 2048 channels on 16², 8², 4² and 2² positions."""
    bare = resnet({"depth": 50}, (3, 64, 64), 5)
    part = cost(replace(bare, head=head("fpn", width=32))).parts[-1]
    assert part.params == 32 * (256 + 512 + 1024 + 2048) + 4 * 32 + 4 * (9 * 32 * 32 + 32)
    lateral = 32 * (256 * 256 + 512 * 64 + 1024 * 16 + 2048 * 4)
    assert part.macs == lateral + 9 * 32 * 32 * (256 + 64 + 16 + 4)
    assert part.size == (32, 16, 16)
    later = cost(replace(bare, head=head("fpn", width=32, first=3))).parts[-1]
    assert later.params == 32 * (1024 + 2048) + 2 * 32 + 2 * (9 * 32 * 32 + 32)


def test_what_a_detector_puts_out_stays_in_memory():
    """With many classes the last concatenation decides: locations, and all scores twice."""
    arch = replace(small(head("ssd", extra=2, boxes=4)), classes=5000)
    boxes = 4 * sum(h * w for h, w in arch.head.maps((32, 16, 16)))
    assert cost(arch).inference_peak == boxes * (4 + 2 * 5000)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (head("ssd"), head("pyconvssd", levels=1)),
        (head("pyconvssd"), head("ssd", levels=[4, 3, 2, 1, 1])),
        (head("ssd", levels=3), head("ssd", levels=[3, 3, 3, 1, 1])),
        (head("ssd", width=64, extra=2), head("ssd", convs=[{"width": 64}, {"width": 64, "inner": 32}])),
        (head("ssd", extra=1, boxes=4), head("ssd", extra=1, boxes=[4, 4])),
        (head("ssd", extra=6).convs, head("ssd", extra=6, width=[512, 512, 256, 256, 256, 256]).convs),
        (head("fpn"), FPN(256, True, 1)),
    ],
)
def test_spellings(one, other):
    assert one == other


@pytest.mark.parametrize(
    "own",
    [
        head("ssd", extra=3),
        head("pyconvssd", extra=3, pattern=[1, 2], convs=[{"split": [1, 1, 3, 3]}, {}, {"levels": 1}]),
        head("fpn"),
        head("fpn", extra=False, width=8, first=2),
    ],
)
def test_from_dict_inverts_to_dict(own):
    arch = small(own)
    again = from_dict(json.loads(canonical_json(arch)))
    assert (again, hash(again), again.arch_id) == (arch, hash(arch), arch.arch_id)
    assert arch.arch_id != replace(arch, head=None).arch_id


def messages(make):
    with pytest.raises(SpecError) as caught:
        make()
    return str(caught.value).splitlines()


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("ssd", {"boxes": [4, 6]}, "head.boxes: must be one number, or one for each of the 6 maps, but got [4, 6]"),
        ("ssd", {"width": [8]}, "head.width: must be one number, or one for each of the 5 maps, but got [8]"),
        (
            "ssd",
            {"levels": [4, 3]},
            "head.levels: must be one number, or one for each of the 5 extra feature maps, but got [4, 3]",
        ),
        (
            "ssd",
            {"extra": 2, "convs": [{}]},
            "head.convs: must have one entry for each of the 2 extra feature maps, but got 1",
        ),
        ("ssd", {"extra": 0}, "head.extra: must be an integer between 1 and 16, but got 0; nearest: 1"),
        (
            "ssd",
            {"convs": [{"groups": 5}]},
            "head.convs[0].groups: 5 does not divide 256 input channels; nearest: 4, 8",
        ),
        ("ssd", {"convs": [{"wdth": 5}]}, "head.convs[0].wdth: unknown key; did you mean width?"),
        ("fpn", {"width": 0}, "head.width: must be an integer of 1 or more, but got 0; nearest: 1"),
        ("fpn", {"extra": 2}, "head.extra: must be true or false, but got an integer (2)"),
        ("fpn", {"boxes": 2}, "head.boxes: unknown key; known here: extra, first, kind, width"),
    ],
)
def test_mistakes_in_the_settings(kind, settings, message):
    assert message in messages(lambda: head(kind, **settings))


CONV = Conv((Level(3, 8),))
PAIR = Conv((Level(3, 4), Level(5, 4)))


@pytest.mark.parametrize(
    ("own", "message"),
    [
        (
            head("ssd"),
            "head.convs[3].stride: 3×3 without padding does not fit a map of 2×2; nearest: stride 2, 3 instead of 5 "
            "convs, or last features of 33×33 instead of 16×16",
        ),
        (
            SSD((8,), (PAIR,), (1,), (4, 4)),
            "head.convs[0].levels: at stride 1, which has no padding, must be one level of one dilation, but got "
            "2 levels; nearest: 1, or stride 2",
        ),
        (
            SSD((8,), (Conv((Level(3, 8, pattern=(1, 2)),)),), (1,), (4, 4)),
            "head.convs[0].levels: at stride 1, which has no padding, must be one level of one dilation, but got the "
            "pattern [1, 2]; nearest: 1, or stride 2",
        ),
        (
            SSD((6,), (Conv((Level(3, 8, groups=4),)),), (2,), (4, 4)),
            "head.convs[0].levels[0].groups: 4 does not divide 6 input channels; nearest: 2",
        ),
        (SSD((8,), (CONV,), (2,), (4, 5)), "head.boxes[1]: must be 2, 4 or 6, but got 5; nearest: 4, 6"),
        (SSD((8,), (CONV,), (2,), (4,)), "head.boxes: must have one number for each of the 2 feature maps, but got 1"),
        (SSD((8, 8), (CONV,), (2,), (4, 4)), "head.inner: must have one number for each of the 1 convs, but got 2"),
        (SSD((8,), (CONV,), (2, 2), (4, 4)), "head.strides: must have one number for each of the 1 convs, but got 2"),
        (SSD((), (), (), (4,)), "head.convs: must not be empty"),
        (head("fpn", first=4), "head.first: must be one of the 3 stages, counted from 1, but got 4; nearest: 3"),
    ],
)
def test_mistakes_in_a_head(own, message):
    assert message in messages(lambda: small(own))


def test_the_nearest_size_that_is_told_fits():
    assert small(head("ssd"), (3, 132, 132)).head.maps((32, 33, 33))[-1] == (1, 1)
    assert any("without padding" in line for line in messages(lambda: small(head("ssd"), (3, 131, 128))))


@pytest.mark.parametrize("kind", ["ssd", "fpn"])
def test_video_is_refused(kind):
    video = resnet(SMALL, (3, 64, 64), 5)
    told = messages(lambda: replace(video, input=(3, 8, 64, 64), head=head(kind)))
    assert told == [f"head.kind: {kind} is for images, but the input is video; nearest: classifier, or no head"]
