"""Every published family, at a small size: what it puts out, that all of it learns, and that it can be exported."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from pyconv_search.arch.presets import settings_of
from pyconv_search.arch.readers import read
from pyconv_search.models import build
from pyconv_search.models.attention import NonLocal
from pyconv_search.ops import executed_as

TINY = {"depth": None, "block": "bottleneck", "blocks": [2, 2, 2, 2], "width": 16}
IMAGE, CLIP = (3, 64, 64), (3, 8, 32, 32)

# A preset, what is made smaller, the input, and the shapes of the outputs of two inputs in evaluation mode.
FAMILIES = {
    "resnet-50": (TINY, IMAGE, [(2, 7)]),
    "preact-resnet-50": (TINY, IMAGE, [(2, 7)]),
    "iresnet-50": (TINY, IMAGE, [(2, 7)]),
    "nl-resnet-50": (TINY, (3, 128, 128), [(2, 7)]),
    "se-resnet-50": (TINY, IMAGE, [(2, 7)]),
    "resnext-50-32x4d": ({**TINY, "width": 32}, IMAGE, [(2, 7)]),
    "pyconvresnet-50": (TINY, IMAGE, [(2, 7)]),
    "pyconvresnet-18": ({**TINY, "block": "basic"}, IMAGE, [(2, 7)]),
    "pyconvresnet-18-pointwise": ({**TINY, "block": "basic-pointwise"}, IMAGE, [(2, 7)]),
    "pyconvhgresnet-50": ({**TINY, "width": 128, "blocks": [1, 1, 1, 1]}, IMAGE, [(2, 7)]),
    "ps-resnet-50": (TINY, IMAGE, [(2, 7)]),
    "ps-se-resnet-50": (TINY, IMAGE, [(2, 7)]),
    "ps-resnext-50-32x4d": ({**TINY, "width": 16, "groups": 2}, IMAGE, [(2, 7)]),
    "ps-resnext-29-8x64d": ({"depth": 11, "stages": None, "width": 16, "groups": 2}, (3, 16, 16), [(2, 7)]),
    "drn-a-50": (TINY, IMAGE, [(2, 7)]),
    "inception-resnet-v2": ({"blocks": [1, 1, 2]}, (3, 79, 83), [(2, 7)]),
    "pyconvinception": ({"blocks": [1, 1, 1]}, (3, 79, 83), [(2, 7)]),
    "resnet3d-50": (TINY, CLIP, [(2, 7)]),
    "pyconvresnet3d-50": (TINY, CLIP, [(2, 7)]),
    "resnet-50+conv3x3": (TINY, (3, 73, 81), [(2, 7, 73, 81)]),
    "resnet-50+aspp": (TINY, (3, 73, 81), [(2, 7, 73, 81)]),
    "resnet-50+ppm": (TINY, (3, 73, 81), [(2, 7, 73, 81)]),
    "ps-resnet-50+pyconvph": (TINY, (3, 73, 81), [(2, 7, 73, 81)]),
    "pyconvresnet-50+pyconvph-os16": (TINY, (3, 145, 145), [(2, 7, 145, 145)]),
    "resnet-50+ssd": (TINY, (3, 300, 300), [(2, 8732, 4), (2, 8732, 7)]),
    "pyconvresnet-50+pyconvssd": (TINY, (3, 300, 300), [(2, 8732, 4), (2, 8732, 7)]),
    "ps-resnext-50-32x4d+fpn": (
        {**TINY, "width": 16, "groups": 2},
        (3, 64, 96),
        [(2, 256, 16, 24), (2, 256, 8, 12), (2, 256, 4, 6), (2, 256, 2, 3), (2, 256, 1, 2)],
    ),
}


@pytest.fixture(params=FAMILIES)
def family(request):
    """(network, its input, expected output shapes)."""
    changes, size, shapes = FAMILIES[request.param]
    merged = {**settings_of(request.param), **changes}
    settings = {key: value for key, value in merged.items() if value is not None}  # None takes a preset's value out
    torch.manual_seed(0)
    network = build(read({key: value for key, value in settings.items() if value is not None}, size, 7))
    for module in network.modules():
        if isinstance(module, NonLocal):  # which begins as the identity
            nn.init.ones_(module.norm.weight)
    return network, torch.randn(2, *size), shapes


@pytest.fixture
def one_thread():
    """With several another batch size may be summed in another order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_outputs_and_export(family, one_thread):
    network, x, shapes = family
    with torch.no_grad(), executed_as("plain"):  # what is exported, so that nothing but rounding's order can differ
        outputs = tree_leaves(network.eval()(x))
        exported = torch.export.export(network, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},)).module()
        more = tree_leaves(exported(x[[0, 1, 0]]))
    assert [tuple(out.shape) for out in outputs] == shapes
    assert all(out.isfinite().all() for out in outputs)
    for ours, theirs in zip(outputs, more, strict=True):
        torch.testing.assert_close(theirs, ours[[0, 1, 0]])


def test_a_gradient_reaches_every_parameter(family):
    network, x, _ = family
    sum(out.square().mean() for out in tree_leaves(network.train()(x))).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().amax() > 0, name
