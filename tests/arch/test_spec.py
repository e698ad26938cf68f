"""The Architecture: one value for every spelling of a network, and the way to JSON and back."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from pyconv_search.arch.canonical import canonical_json, from_dict, to_dict
from pyconv_search.arch.presets import PRESETS, preset
from pyconv_search.arch.resnet import resnet
from pyconv_search.arch.spec import Conv, Level, shortest_period
from pyconv_search.errors import UserError
from pyconv_search.fields import ABSENT, SpecError

GOLDEN = {
    "resnet-50": "2942d2a877ac417f9d20db01e9ddcbefa24bc3e4c15e3d5f9cf1b894e1caedf5",
    "pyconvresnet-50": "5d0a80acbdaa4d2800a87f563fb49b593199118a2da04a3433ba31db8d27479a",
    "ps-resnet-50": "267cd9dc12bdcd1466cf3f9f69d1a824f9e5321d253af6af9cd6f7987bb2bc2d",
}


def network(**settings):
    return resnet({"depth": 50, **settings}, (3, 224, 224), 1000)


@pytest.mark.parametrize("name", GOLDEN)
def test_ids_stay_what_they_are(name):
    """Stores refer to networks by this id; a change here orphans every row written before it."""
    assert preset(name).arch_id == GOLDEN[name]


def test_ids_of_all_presets_differ():
    assert len({preset(name).arch_id for name in PRESETS}) == len(PRESETS)


def test_the_same_id_in_another_process():
    code = "from pyconv_search.arch.presets import preset; print(preset('ps-resnext-50-32x4d').arch_id)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == preset("ps-resnext-50-32x4d").arch_id


@pytest.mark.parametrize("name", PRESETS)
def test_from_dict_inverts_to_dict(name):
    arch = preset(name)
    again = from_dict(json.loads(canonical_json(arch)))
    assert again == from_dict(to_dict(arch)) == arch
    assert hash(again) == hash(arch)
    assert again.arch_id == arch.arch_id


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stem": None}, "stem: has no value; write one behind it"),
        ({"foo": 1}, "foo: unknown key; did you mean form?"),
        ({"classes": "ten"}, "classes: must be an integer, but got a text ('ten')"),
        ({"classes": 10.0}, "classes: must be an integer, but got a number (10.0)"),
        ({"input": 3}, "input: must be a list, but got an integer (3)"),
        ({"input": [3, [32], 32]}, "input[1]: must be an integer, but got a list ([32])"),
        ({"stem": {"kernel": [3, 3], "width": 8, "stride": 1}}, "stem.kernel: must be an integer or a list, but got a list ([3, 3])"),
        ({"stages": [7]}, "stages[0]: must be a mapping, but got an integer (7)"),
        ({"stages": [{"conv": {"levels": [{"kernel": 3, "width": 8, "pattern": []}]}}]}, "stages[0].block: is required, but missing"),
        ({"head": {"kind": "fnp"}}, "head.kind: must be one of classifier, conv3x3, aspp, ppm, pyconvph, ssd, fpn, but got 'fnp'; did you mean fpn?"),
        ({"head": {"kind": "fpn", "width": True}}, "head.width: must be an integer, but got true/false (true)"),
    ],
)  # fmt: skip
def test_values_that_are_no_architecture_are_told_with_their_place(changes, message):
    with pytest.raises(SpecError) as caught:
        from_dict(to_dict(preset("resnet-20-cifar")) | changes)
    assert str(caught.value).splitlines()[0] == message


def test_an_empty_pattern_is_told_with_its_place():
    values = to_dict(preset("resnet-20-cifar"))
    values["stages"][1]["conv"]["levels"][0]["pattern"] = []
    with pytest.raises(SpecError, match=r"^stages\[1\].conv.levels\[0\].pattern: must hold at least one dilation"):
        from_dict(values)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"pattern": [1, 2, 1, 2]}, {"pattern": [1, 2]}),
        ({"pattern": [2, 2, 2]}, {"pattern": 2}),
        ({"pattern": [1, 1]}, {}),
        ({"pattern": [1], "axes": "input"}, {}),
        ({"kernels": 1, "pattern": [1, 2, 1, 4], "axes": "output"}, {"kernels": 1}),
        ({"levels": 1, "kernels": 3, "groups": 1}, {}),
        ({"levels": [4, 3, 2, 1]}, {"stages": [{"levels": n} for n in (4, 3, 2, 1)]}),
        ({"levels": 2}, {"levels": [2, 2, 2, 2], "kernels": [3, 5], "groups": [1, 4], "split": [1, 1]}),
        ({"levels": 2, "groups": 4.0}, {"levels": 2, "groups": [4, 4]}),
        ({"width": 64, "expansion": 4}, {"stages": [{"width": 64 * 2**i, "out": 256 * 2**i} for i in range(4)]}),
        ({"stem": {"kernel": 7, "width": 64, "stride": 2, "pool": "max"}}, {"stem": ABSENT}),
        (
            {"width": 8, "groups": 8, "pattern": [1, 2], "stages": [{"groups": 8}, {}, {}, {}], "axes": "both"},
            {"width": 8, "groups": 8, "pattern": [1, 2], "stages": [{"axes": "input"}, {}, {}, {}]},
        ),
    ],
)
def test_two_spellings_of_one_network_are_one_architecture(one, other):
    assert network(**one) == network(**other)
    assert network(**one).arch_id == network(**other).arch_id


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"pattern": [1, 2]}, {"pattern": [2, 1]}),
        ({"pattern": [1, 2]}, {"pattern": [1, 2], "axes": "input"}),
        ({"levels": 2, "split": "top-heavy"}, {"levels": 2, "split": [1, 3]}),
        ({"shortcut": "max+conv"}, {}),
        ({"stem": {"pool": "none"}}, {}),
    ],
)
def test_different_networks_are_different_architectures(one, other):
    assert network(**one).arch_id != network(**other).arch_id


def test_axes_are_dropped_from_depthwise_levels_alone():
    settings = {"width": 8, "pattern": [1, 2], "axes": "input", "stages": [{"groups": 8}, {"groups": 4}, {}, {}]}
    levels = [stage.conv.levels[0] for stage in network(**settings).stages]
    assert [level.axes for level in levels] == ["both", "input", "input", "input"]


@pytest.mark.parametrize(
    ("pattern", "shortest"),
    [((1,), (1,)), ((3, 3, 3), (3,)), ((1, 2, 1, 2), (1, 2)), ((1, 2, 1, 4), (1, 2, 1, 4)), ((1, 2, 1), (1, 2, 1))],
)
def test_shortest_period(pattern, shortest):
    assert shortest_period(pattern) == shortest
    assert Level(3, 8, 1, pattern).pattern == shortest


def test_width_of_a_pyramid_is_the_sum_of_its_levels():
    assert Conv((Level(3, 16), Level(5, 8, 4))).width == 24


def test_values_are_frozen():
    with pytest.raises(AttributeError):
        preset("resnet-18").classes = 10  # type: ignore[misc]


def test_an_unknown_preset_is_told_with_the_nearest():
    with pytest.raises(UserError, match=r"unknown network 'pyconvresent50'; did you mean pyconvresnet-50\?"):
        preset("pyconvresent50")


def test_groups_of_a_bottleneck_need_not_divide_what_reaches_the_block():
    """The 1×1 convolution before it has the width of the grouped one, whatever the stage before put out."""
    settings = {"blocks": [1, 2], "block": "bottleneck", "width": 24, "groups": 3, "stem": {"width": 16}}
    arch = resnet({**settings, "stages": [{"out": 64}, {"out": 128}]}, (3, 64, 64), 5)
    assert [stage.conv.levels[0].groups for stage in arch.stages] == [3, 3]


def test_an_output_stride_dilates_every_stage_behind_the_first_that_lost_its_stride():
    settings = {"shortcut": "max+conv", "stages": [{}, {}, {}, {"stride": 1}]}
    stages = network(**settings, output_stride=8).stages
    assert [stage.conv.levels[0].pattern for stage in stages] == [(1,), (1,), (2,), (2,)]
    assert [stage.stride for stage in stages] == [1, 2, 1, 1]
    assert [stage.keeps_pool for stage in stages] == [False, False, True, False]
    undilated = network(**settings, output_stride=8, dilate=False).stages
    assert [stage.conv.levels[0].pattern for stage in undilated] == [(1,)] * 4
    assert not any(stage.keeps_pool for stage in undilated)


def test_the_usual_head_has_one_spelling():
    plain = preset("resnet-20-cifar")
    named = from_dict(to_dict(plain) | {"head": {"kind": "classifier"}})
    assert named == plain
    assert named.arch_id == plain.arch_id


def test_a_pooled_shortcut_that_never_pools_is_a_plain_one():
    """Both are one network, so they are one value; where dilation takes the place of a stride, the pooling stays."""
    settings = {"blocks": [1, 2], "block": "bottleneck", "stem": {"pool": "none"}}
    size = (3, 64, 64)
    plain, pooled = (
        resnet({**settings, "stages": [{"stride": 1, "shortcut": shortcut}, {}]}, size, 5)
        for shortcut in ("conv", "max+conv")
    )
    assert pooled == plain
    assert pooled.arch_id == plain.arch_id
    assert resnet({**settings, "shortcut": "max+conv"}, size, 5) != resnet(settings, size, 5)
    dilated = {**settings, "output_stride": 4}
    assert resnet({**dilated, "shortcut": "max+conv"}, size, 5).stages[1].keeps_pool
    assert resnet({**dilated, "shortcut": "max+conv"}, size, 5) != resnet(dilated, size, 5)


@pytest.mark.parametrize("head", ["pyconvph", "pyconvssd"])
def test_axes_of_depthwise_levels_in_a_head_are_no_difference(head):
    """In a depthwise convolution the pattern runs over the groups, whatever the axes."""
    keys = {"levels": 1, "groups": 128, "pattern": [1, 2]}
    own = (
        {"branch": 128, "local_pyramid": keys}
        if head == "pyconvph"
        else {"convs": [{"width": 128, "inner": 128, **keys}]}
    )

    def network(axes):
        inner = {**own["local_pyramid"], "axes": axes} if head == "pyconvph" else [{**own["convs"][0], "axes": axes}]
        key = "local_pyramid" if head == "pyconvph" else "convs"
        return resnet({"depth": 50, "head": {"kind": head, **own, key: inner}}, (3, 320, 320), 5)

    assert network("input").arch_id == network("both").arch_id


def test_matched_groups_keep_the_cost_of_a_level_in_two_and_three_dimensions():
    """Equation 1: a kernel of (5/3)² or (5/3)³ times the taps has about so many groups: 2.8 → 2, 4.6 → 4."""
    settings = {"blocks": [1], "block": "bottleneck", "kernels": 5, "groups": "matched", "stem": {"pool": "none"}}
    image, video = (resnet(settings, size, 5) for size in ((3, 32, 32), (3, 8, 32, 32)))
    assert [arch.stages[0].conv.levels[0].groups for arch in (image, video)] == [2, 4]
