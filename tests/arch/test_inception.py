"""Inception-ResNet in closed form: the printed figures, the released network's pieces, and every mistake."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from pyconv_search.arch import network
from pyconv_search.arch.canonical import canonical_json, from_dict
from pyconv_search.arch.cost import cost
from pyconv_search.arch.counting import thop
from pyconv_search.arch.inception_settings import INCEPTION_RESNET_V2, PYCONV_INCEPTION, read
from pyconv_search.arch.spec import Conv, Level, SqueezeExcite, Stem, pointwise
from pyconv_search.fields import SpecError
from pyconv_search.space.document import parse
from pyconv_search.space.space import space_of

PUBLISHED = read(INCEPTION_RESNET_V2, (3, 299, 299), 1000)
OURS = read(PYCONV_INCEPTION, (3, 299, 299), 1000)

# (params, thop-2019 operations), counted by hooks on a plain PyTorch network of the released layers.
PIECES = {
    "stem": (172_672, 1_363_403_824),
    "transitions.0": (268_320, 331_573_200),
    "transitions.1": (2_664_960, 1_402_709_184),
    "transitions.2": (3_880_960, 587_477_152),
    "stages.0.0": (123_168, 201_938_800),
    "stages.1.19": (1_126_784, 446_965_088),
    "stages.2.0": (2_035_424, 190_070_784),
    "stages.2.9": (2_035_424, 190_070_784 - 2080 * 8 * 8),
    "final": (3_197_952, 204_963_840),
}


def test_the_printed_figures():
    """Supplement, Table 5: 55.84 M and 16.75 G. Our last pooling is adaptive, that of the release an 8×8 window."""
    found = cost(PUBLISHED)
    assert (found.params, found.macs, found.activations) == (55_843_464, 13_155_794_016, 25_059_976)
    assert found.thop - 1536 * (64 + 1) + 1536 * (8 + 1) == 16_752_476_504
    assert [part.size for part in found.parts] == [
        (192, 35, 35),
        (320, 35, 35),
        (1088, 17, 17),
        (2080, 8, 8),
        (1536, 8, 8),
        (1000, 1, 1),
    ]


@pytest.mark.parametrize("name", PIECES)
def test_the_pieces_of_the_released_network(name):
    layers = [layer for layer in network.layers(PUBLISHED) if layer.name.startswith(f"{name}.")]
    assert (sum(layer.params for layer in layers), thop(layers)) == PIECES[name]


def test_ours_with_pyramids_is_close_to_what_is_printed():
    """43.48 M and 11.92 G are printed, but not of what; a block is added up by hand."""
    total = cost(PUBLISHED).params - sum(
        n * PIECES[name][0] for n, name in ((10, "stages.0.0"), (20, "stages.1.19"), (10, "stages.2.0"))
    )
    for blocks, out, w, levels in (
        (10, 320, 160, ((3, 40, 1), (5, 40, 4), (7, 80, 8))),
        (20, 1088, 176, ((3, 44, 1), (5, 44, 4), (7, 88, 8))),
        (10, 2080, 272, ((3, 136, 1), (5, 136, 4))),
    ):
        pyramid = sum(kernel**2 * width * w // groups for kernel, width, groups in levels)
        total += blocks * (2 * out * w + pyramid + 2 * (w + w + out))
    found = cost(OURS)
    assert (found.params, found.thop) == (total, 11_916_332_920) == (43_503_944, 11_916_332_920)
    assert found.params / 43.48e6 == pytest.approx(1, rel=6e-4)


def test_receptive_field_and_stride_by_hand():
    """3×3 of stride 2, two 3×3, pool, 3×3, pool; two 3×3 in every branched part but 7-wide and 3-wide blocks."""
    stem = 1 + 2 + 2 * 2 + 2 * 2 + 2 * 2 + 2 * 4 + 2 * 4
    stage1, stage2, stage3 = 4 * 8 + 10 * 4 * 8, 4 * 8 + 20 * 6 * 16, 4 * 16 + 10 * 2 * 32
    assert cost(PUBLISHED).receptive_field == stem + stage1 + stage2 + stage3
    assert PUBLISHED.stride == 2**5


@pytest.mark.parametrize("arch", [PUBLISHED, OURS], ids=["published", "ours"])
def test_to_json_and_back(arch):
    again = from_dict(json.loads(canonical_json(arch)))
    assert again == arch
    assert again.arch_id == arch.arch_id


def test_a_wider_stage_reaches_the_next_one():
    """The reductions pool what they are given, so that its channels go through them."""
    arch = read({"stages": [{"block": "bottleneck", "out": 384, "levels": 2}, {}, {}]}, (3, 75, 75), 5)
    assert [stage.out for stage in arch.stages] == [384, 1152, 2144]
    assert [stage.block for stage in arch.stages] == ["bottleneck", "inception-b", "inception-c"]
    assert [level.width for level in arch.stages[0].conv.levels] == [48, 48]


def test_a_space_of_it():
    text = """
space: t
parameters:
  block: {choice: [inception, bottleneck]}
  levels: {choice: [[1, 1, 1], [3, 3, 2]], when: block == 'bottleneck'}
network: {family: inception-resnet, blocks: [1, 2, 3], block: $block, levels: $levels, input: [3, 75, 75], classes: 5}
"""
    space = space_of(parse(text, "t.yaml"))
    found = [space.architecture(values) for values in space.assignments()]
    assert [[len(stage.conv.levels) for stage in arch.stages] for arch in found] == [[1, 1, 1], [1, 1, 1], [3, 3, 2]]
    assert [stage.blocks for stage in found[0].stages] == [1, 2, 3]
    assert {arch.classes for arch in found} == {5}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"blocks": [1, 2]}, "blocks: must have one entry for each of the 3 stages, but got 2"),
        ({"stages": [{}] * 4}, "stages: must have one entry for each of the 3 stages, but got 4"),
        ({"block": "bottleneck", "levels": [3]}, "levels: must have one entry for each of the 3 stages, but got 1"),
        ({"block": "botleneck"}, "block: must be one of inception, bottleneck, but got 'botleneck'; did you mean bottleneck?"),
        ({"levels": 3}, "levels: is for bottleneck blocks; add block: bottleneck, or leave it out"),
        (
            {"block": "bottleneck", "stages": [{"block": "inception", "width": 64}, {}, {}]},
            "stages[0].width: is for bottleneck blocks; add block: bottleneck, or leave it out",
        ),
        (
            {"block": "bottleneck", "stages": [{"width": 160, "groups": 7}, {}, {}]},
            "stages[0].groups: 7 does not divide 160 input channels; nearest: 5, 8",
        ),
        ({"form": "pre"}, "form: must be post in an inception-resnet network, but got 'pre'"),
        ({"depth": 50}, "depth: give blocks, the number of blocks in each of the three stages"),
        ({"output_stride": 8}, "output_stride: an inception-resnet network always reduces each side 32 times; leave it out"),
        ({"stem": {"width": 64}}, "stem: the stem of an inception-resnet network is fixed; leave it out"),
        ({"blcks": [1, 1, 1]}, "blcks: unknown key; did you mean blocks?"),
        (
            {"image": (3, 299, 74)},
            "input: 299×74 pixels are too few for the unpadded convolutions of an inception-resnet network; "
            "at least 75×75",
        ),
        ({"image": (3, 16, 224, 224)}, "input: an inception-resnet network is for images: channels×height×width"),
    ],
)  # fmt: skip
def test_a_mistake_in_settings_is_told_where_it_is(settings, message):
    image = settings.pop("image", (3, 299, 299))
    with pytest.raises(SpecError) as caught:
        read(settings, image, 1000)
    assert str(caught.value).splitlines() == [message]


FIRST, SECOND, THIRD = PUBLISHED.stages


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stem": Stem(7, 32, 2)}, "stem.kernel: is 3 in every inception-resnet network, but got 7"),
        ({"stem": Stem(3, 64, 2)}, "stem.width: is 32 in every inception-resnet network, but got 64"),
        ({"stem": Stem(3, 32, 2, "max")}, "stem.pool: is none in every inception-resnet network, but got max"),
        ({"stages": (FIRST, SECOND)}, "stages: an inception-resnet network has 3, but got 2"),
        ({"form": "ires"}, "form: must be post in an inception-resnet network, but got 'ires'"),
        (
            {"stages": (replace(FIRST, stride=2), SECOND, THIRD)},
            "stages[0].stride: must be 1: the transition before it reduces, but got 2",
        ),
        (
            {"stages": (FIRST, replace(SECOND, shortcut="max+conv"), THIRD)},
            "stages[1].shortcut: must be conv: the blocks keep the resolution, but got max+conv",
        ),
        (
            {"stages": (replace(FIRST, block="inception-b"), SECOND, THIRD)},
            "stages[0].block: must be inception-a or bottleneck here, but got inception-b",
        ),
        (
            {"stages": (FIRST, SECOND, replace(THIRD, conv=Conv((Level(3, 2080),))))},
            "stages[2].conv: must be the 1×1 convolution to 2080 channels that ends the block",
        ),
        (
            {"stages": (FIRST, SECOND, replace(THIRD, out=2048, conv=pointwise(2048)))},
            "stages[2].out: the block adds to the 2080 channels that reach it, but got 2048",
        ),
        (
            {"stages": (replace(FIRST, block="basic"), SECOND, THIRD)},
            "stages[0].block: must be one of inception-a, inception-b, inception-c, bottleneck, but got 'basic'",
        ),
        (
            {"stages": (replace(FIRST, se=SqueezeExcite(7)), SECOND, THIRD)},
            "stages[0].se: 7 does not divide 320 channels; nearest: 5, 8",
        ),
        (
            {"family": "resnet"},
            "stages[0].block: must be one of basic, basic-pointwise, bottleneck, but got 'inception-a'",
        ),
    ],
)
def test_an_architecture_written_by_hand_is_checked_too(changes, message):
    with pytest.raises(SpecError) as caught:
        replace(PUBLISHED, **changes)
    assert str(caught.value).splitlines()[0] == message
