"""Every mistake in a network's settings: where it is, what is right, the nearest legal number; and all at once."""

from __future__ import annotations

import dataclasses

import pytest

from pyconv_search.arch.dilation import dilation_matrix
from pyconv_search.arch.presets import preset
from pyconv_search.arch.readers import read
from pyconv_search.arch.resnet import resnet
from pyconv_search.arch.spec import Architecture, Conv, Level, Stage, Stem
from pyconv_search.errors import UserError
from pyconv_search.fields import SpecError

STEM = {"kernel": 3, "width": 8, "stride": 1, "pool": "none"}


def mistakes(image=(3, 224, 224), **settings):
    with pytest.raises(SpecError) as caught:
        resnet({"depth": 50, **settings}, image, 1000)
    assert isinstance(caught.value, (UserError, ValueError))
    return str(caught.value).splitlines()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (None, "must be a mapping of keys to values, but got nothing"),
        (
            {"family": "resnets"},
            "family: must be one of resnet, inception-resnet, but got 'resnets'; did you mean resnet?",
        ),
        ({"family": [1]}, "family: must be one of resnet, inception-resnet, but got a list ([1])"),
        ({"depth": 18, "input": 32, "classes": "x"}, "classes: must be an integer of 1 or more, but got a text ('x')"),
        ({"depth": 18, "input": [3, "x", 32]}, "input[1]: must be an integer of 1 or more, but got a text ('x')"),
        (
            {"blocks": [1] * 5_000},
            "width: leads to 131,072 channels in stages[11], but there may be 65,536 at most; say width there",
        ),
        ({"blocks": []}, "blocks: must have one entry for each stage, but got an empty list; nearest: [1]"),
    ],
)
def test_settings_that_no_family_can_read(settings, message):
    with pytest.raises(SpecError) as caught:
        read(settings)
    assert message in str(caught.value).splitlines()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"groups": 6}, "groups: 6 does not divide 64 input channels; nearest: 4, 8"),
        ({"kernels": 4}, "kernels: must be odd, but got 4; nearest: 3, 5"),
        ({"levels": 0}, "levels: must be an integer between 1 and 16, but got 0; nearest: 1"),
        ({"levels": [1, 2]}, "levels: must be one number, or one for each of the 4 stages, but got [1, 2]"),
        (
            {"levels": 2, "kernels": [3]},
            "kernels: must have one entry for each of the 2 levels, but got [3]",
        ),
        ({"pattern": [1, 0]}, "pattern[1]: must be an integer between 1 and 64, but got 0; nearest: 1"),
        (
            {"pattern": []},
            "pattern: must hold at least one dilation, but got an empty list; a standard convolution is [1]",
        ),
        ({"axes": "inputs"}, "axes: must be one of both, input, output, but got 'inputs'; did you mean input?"),
        (
            {"groups": "pyramids"},
            "groups: must be an integer or one of pyramid, matched, but got 'pyramids'; did you mean pyramid?",
        ),
        ({"shortcut": "cnv"}, "shortcut: must be one of conv, max+conv, but got 'cnv'; did you mean conv?"),
        (
            {"block": "basicc"},
            "block: must be one of basic, basic-pointwise, bottleneck, but got 'basicc'; did you mean basic?",
        ),
        (
            {"levels": 3, "split": [1, 1, 3]},
            "split: cannot split 64 channels 1:1:3 over 3 levels; nearest width: 60, 65",
        ),
        ({"levls": 3}, "levls: unknown key; did you mean levels?"),
        ({"stem": {"kernal": 3}}, "stem.kernal: unknown key; did you mean kernel?"),
        ({"stem": {"kernel": 4}}, "stem.kernel: must be odd, but got 4; nearest: 3, 5"),
        (
            {"depth": 51, "stages": [{}] * 3},
            "depth: must be 6·n + 2 for 3 stages of basic blocks, but got 51; nearest: 50, 56",
        ),
        (
            {"depth": 40, "stages": [{}] * 4},
            "depth: must be 18, 34, 50, 101 or 152 for four stages, but got 40; nearest: 34, 50",
        ),
        (
            {"blocks": [1, 1, 1, 1]},
            "depth: give either depth or blocks (the number of blocks in each stage), one of the two",
        ),
        (
            {"image": (3, 16, 224)},
            "input: 16×224 pixels are too few: the network reduces each side 32 times; "
            "at least 32×32, or fewer strides",
        ),
        (
            {"depth": 18, "stages": [{"out": 60}, {}, {}, {}]},
            "stages[0].out: a basic block puts out the 64 channels of its convolution, but got 60; nearest: 64",
        ),
        (
            {"stages": [{"levels": [{"kernel": 3, "width": 32}, {"kernel": 5, "width": 31}]}, {}, {}, {}]},
            "stages[0].levels: the widths of the levels must sum to 64, but 32 + 31 = 63",
        ),
    ],
)
def test_a_mistake_is_told_where_it_is(settings, message):
    assert mistakes(**settings)[0] == message


def test_all_mistakes_are_told_at_once():
    found = mistakes(pattern=[1, 0], axes="inputs", sten={}, stages=[{"groups": 5}, {}, {"kernels": 2}, {}])
    assert [line.split(":")[0] for line in sorted(found)] == [
        "axes",
        "pattern[1]",
        "stages[0].groups",
        "stages[2].kernels",
        "sten",
    ]


def test_an_architecture_written_by_hand_is_checked_too():
    stage = Stage("basic", 1, Conv((Level(4, 6, 4, (1, 2)),)), 8, 1)
    with pytest.raises(SpecError) as caught:
        Architecture(Stem(2, 6, 1), (stage,), 10, (3, 8, 8))
    assert str(caught.value).splitlines() == [
        "stem.kernel: must be odd, but got 2; nearest: 1, 3",
        "stages[0].out: a basic block puts out the 6 channels of its convolution, but got 8; nearest: 6",
        "stages[0].levels[0].kernel: must be odd, but got 4; nearest: 3, 5",
        "stages[0].levels[0].groups: 4 does not divide 6 input channels; nearest: 2",
    ]


def test_values_of_the_wrong_kind_are_told_before_what_follows_from_them():
    stage = Stage("bootleneck", 0, Conv((Level(3, 8, 0, (1, 0), "across"), Level(3, 8, True))), 8, 1, "max")
    with pytest.raises(SpecError) as caught:
        Architecture(Stem(3, 6, 1, "avg"), (stage,), 0, (3, 8, 8.5))
    assert str(caught.value).splitlines() == [
        "stem.pool: must be one of max, none, but got 'avg'",
        "stages[0].block: must be one of basic, basic-pointwise, bottleneck, but got 'bootleneck'; did you mean bottleneck?",
        "stages[0].blocks: must be an integer of 1 or more, but got 0; nearest: 1",
        "stages[0].conv.levels[0].groups: must be an integer of 1 or more, but got 0; nearest: 1",
        "stages[0].conv.levels[0].pattern[1]: must be an integer of 1 or more, but got 0; nearest: 1",
        "stages[0].conv.levels[0].axes: must be one of both, input, output, but got 'across'",
        "stages[0].conv.levels[1].groups: must be an integer of 1 or more, but got true/false (true)",
        "stages[0].shortcut: must be one of conv, max+conv, but got 'max'; did you mean max+conv?",
        "classes: must be an integer of 1 or more, but got 0; nearest: 1",
        "input[2]: must be an integer of 1 or more, but got a number (8.5)",
    ]
    with pytest.raises(SpecError, match="stages: must not be empty"):
        Architecture(Stem(3, 6, 1), (), 10, (3, 8, 8))
    with pytest.raises(SpecError, match="pattern: must hold at least one dilation"):
        Level(3, 8, 1, ())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((8, 8, (1, 2), "both", 3), "groups must divide the channels"),
        ((8, 8, (1, 0)), "pattern must hold dilations of 1 or more"),
        ((8, 8, ()), "pattern must hold dilations of 1 or more"),
        ((8, 8, (1, 2), "neither"), "axes must be one of both, input, output"),
    ],
)
def test_dilation_matrix_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        dilation_matrix(*arguments)


def test_an_unknown_family_is_told():
    with pytest.raises(SpecError, match=r"family: must be one of resnet.*, but got 'resnets'; did you mean resnet\?"):
        dataclasses.replace(preset("resnet-18"), family="resnets")


def test_output_strides_that_cannot_be():
    legal = "output_stride: must be one of 4, 8, 16, 32 for these strides, but got "
    assert mistakes(output_stride=-1) == [f"{legal}-1; nearest: 4"]
    assert mistakes(output_stride=12) == [f"{legal}12; nearest: 8, 16"]
    for_video = ["output_stride: is for images, since it dilates; for video leave it out"]
    assert mistakes((3, 16, 224, 224), output_stride=8) == for_video


@pytest.mark.parametrize(("sides", "told"), [((8, 8), ""), ((4, 8), "1×2"), ((8, 4), "2×1"), ((4, 4), "1×1")])
def test_a_non_local_block_needs_two_pixels_along_each_side_of_its_own_stage(sides, told):
    def network(blocks):
        return resnet({"blocks": [1, 1, 1], "stem": STEM, "stages": blocks}, (3, *sides), 5)

    network([{}, {"non_local": True}, {}])
    if not told:
        network([{}, {}, {"non_local": True}])
        return
    with pytest.raises(SpecError) as caught:
        network([{}, {"non_local": True}, {"non_local": True}])
    text = f"stages[2].non_local: subsamples features, which have {told} pixels; at least 2×2"
    assert str(caught.value) == text


# At the n-th level of a pyramid the groups are the divisor nearest to 4, 8 and 16, and the smaller of two.
@pytest.mark.parametrize(("n", "width", "groups"), [(1, 15, 3), (2, 30, 6), (3, 255, 15), (1, 21, 3), (2, 77, 7)])
def test_of_two_divisors_as_near_the_smaller_is_taken(n, width, groups):
    network = resnet({"blocks": [1], "width": width * (n + 1), "stem": {"width": width, "kernel": 3}, "block": "bottleneck", "levels": n + 1, "split": [1] * (n + 1)}, (3, 64, 64), 5)  # fmt: skip
    levels = network.stages[0].conv.levels
    assert [level.width for level in levels] == [width] * (n + 1)
    assert levels[n].groups == groups
