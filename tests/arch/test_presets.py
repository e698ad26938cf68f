"""Networks by name: spellings, combinations with heads, and what cannot be combined."""

from __future__ import annotations

import pytest

from pyconv_search.arch.cost import cost
from pyconv_search.arch.presets import HEADS, PRESETS, is_preset, preset
from pyconv_search.errors import UserError


@pytest.mark.parametrize("name", ["PyConvResNet-50", "pyconvresnet50", "pyconv_resnet-50"])
def test_hyphens_and_capitals_do_not_matter(name):
    assert is_preset(name)
    assert preset(name) == preset("pyconvresnet-50")


def test_every_backbone_has_every_head_or_says_why_not():
    refused = {}
    for backbone in PRESETS:
        for head in HEADS:
            try:
                assert cost(preset(f"{backbone}+{head}")).params > cost(preset(backbone)).params / 4
            except UserError as error:
                refused.setdefault(backbone, {})[head] = str(error)
    small = {name for name in PRESETS if "cifar" in name or "-29-" in name}
    assert set(refused) == {"resnet3d-50", "pyconvresnet3d-50", "inception-resnet-v2", "pyconvinception", *small}
    assert all("fpn" not in refused[name] for name in (*small, "pyconvinception"))
    assert refused["resnet3d-50"]["ppm"] == (
        "resnet3d-50+ppm: the head ppm is for images, but resnet3d-50 is for video; leave the head out"
    )
    first, second = refused["resnet-20-cifar"]["aspp"].splitlines()
    assert first.startswith("resnet-20-cifar+aspp: aspp is published with output_stride 8, input [3, 473, 473]")
    assert second == "output_stride: must be one of 1, 2, 4 for these strides, but got 8; nearest: 4"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet-51", "unknown network 'resnet-51'; did you mean resnet-50?"),
        ("resnet-50+fpnn", "unknown head 'fpnn'; did you mean fpn?"),
        ("", "unknown network ''; known: resnet-18, "),
    ],
)
def test_unknown_names(name, message):
    assert not is_preset(name)
    with pytest.raises(UserError) as caught:
        preset(name)
    assert str(caught.value).startswith(message)


def test_a_name_is_no_architecture():
    with pytest.raises(UserError, match=r"must be an Architecture, as preset\(name\) gives it, but got a text"):
        cost("resnet-50")
