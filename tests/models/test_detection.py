"""Detection heads as modules: the calls of the built network, its costs and memory, against the closed form."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pyconv_search.arch import network
from pyconv_search.arch.cost import cost
from pyconv_search.arch.heads.fpn import FPN
from pyconv_search.arch.heads.ssd import SSD
from pyconv_search.arch.presets import preset
from pyconv_search.arch.resnet import resnet
from pyconv_search.arch.spec import Conv, Level
from pyconv_search.models import build
from pyconv_search.models.boxes import default_boxes_of
from pyconv_search.ops import execute, packing

PLAIN = Conv((Level(3, 16),))
PYRAMID = Conv((Level(3, 8, 1), Level(5, 4, 4), Level(7, 8, 8)))
POLY = Conv((Level(3, 16, pattern=(1, 2, 1, 4)),))
DILATED = Conv((Level(3, 16, 2, (2,)),))
HEADS = {
    "ssd": SSD((8, 8, 8), (PLAIN, PLAIN, PLAIN), (2, 2, 1), (4, 6, 2, 4)),
    "pyconvssd": SSD((16, 8, 8), (PYRAMID, POLY, PLAIN), (2, 2, 1), (4, 6, 6, 4)),
    "dilated ssd": SSD((8, 8), (DILATED, PLAIN), (1, 3), (4, 4, 2)),
    "fpn": FPN(16),
    "fpn extra": FPN(12, extra=True, first=2),
}
STEM = {"stem": {"kernel": 3, "width": 8, "stride": 1, "pool": "none"}}
SETTINGS = {
    "resnet": {"blocks": [2, 3, 2], **STEM},
    "ps-resnet": {"blocks": [1, 1, 2], "block": "bottleneck", "pattern": [1, 2, 1, 4], **STEM},
    "resnext": {"blocks": [1, 2, 1], "block": "bottleneck", "width": 16, "expansion": 2, "groups": 8, **STEM},
    "pyramid": {"blocks": [1, 1, 1], "levels": 2, "shortcut": "max+conv", **STEM},
    "stride 1": {"blocks": [1, 1, 1], "stages": [{}, {}, {"stride": 1}], **STEM},
}


def small(backbone, head, image=(3, 64, 48)):
    """``backbone`` may say the form of the blocks, as in "pre resnet"."""
    form, name = backbone.split(maxsplit=1) if backbone.startswith(("pre ", "ires ")) else ("post", backbone)
    return replace(resnet(SETTINGS[name], image, 5), form=form, head=HEADS[head])


BACKBONES = [*SETTINGS, "pre resnet", "ires resnet", "pre ps-resnet"]
COMBINED = [small(b, h) for b, h in itertools.product(BACKBONES, HEADS)]
ODD = [small(b, h, (3, 77, 101)) for b, h in zip(itertools.cycle(BACKBONES), HEADS, strict=False)]
FULL = [*map(preset, ("resnet-50+ssd", "pyconvresnet-50+pyconvssd", "ps-resnet-50+fpn", "resnext-50-32x4d+fpn"))]
KINDS = (nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.MaxPool2d)


def named(arch):
    return f"{arch.form}-{len(arch.stages)}-{arch.stages[0].conv.width}-{arch.head.kind}"


@pytest.mark.parametrize("arch", [*COMBINED, *ODD, *FULL], ids=named)
def test_every_call_is_in_the_closed_form(arch):
    """Names, shapes and order of all calls, parameters by name, and multiply-adds that run."""
    calls, params = [], {}
    with torch.device("meta"):
        built, image = build(arch).eval(), torch.empty(1, *arch.input)
    for name, module in built.named_modules():
        if isinstance(module, KINDS):
            module.register_forward_hook(lambda m, x, y, name=name: calls.append((name, tuple(y.shape[1:]))))
            params[name] = sum(p.numel() for p in module.parameters())
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        out = built(image)
    traced = [layer for layer in network.layers(arch) if layer.name]
    assert [(layer.name, layer.output.shape) for layer in traced] == calls
    assert {layer.name: layer.params for layer in traced} == params
    assert sum(params.values()) == sum(p.numel() for p in built.parameters()) == cost(arch).params
    assert counter.get_total_flops() // 2 == cost(arch).executed
    *_, head = network.parts(arch)
    assert [tuple(y.shape[1:]) for y in out] == [x.shape for x in head.units[0].results]


@pytest.mark.parametrize("arch", COMBINED, ids=named)
def test_a_gradient_reaches_every_parameter(arch):
    torch.manual_seed(0)
    built = build(arch).train()
    out = built(torch.randn(4, *arch.input))
    assert all(y.isfinite().all() for y in out)
    sum((y * torch.randn_like(y)).sum() for y in out).backward()
    for name, parameter in built.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().amax() > 0, name


@pytest.mark.parametrize("arch", COMBINED, ids=named)
def test_training_memory_is_what_autograd_keeps(arch, monkeypatch):
    built, kept, indices = build(arch).train(), {}, []
    own = {x.untyped_storage().data_ptr() for x in (*built.parameters(), *built.buffers())}
    weights = []  # as they are packed for execution; held, so that nothing else gets their memory

    def noted(*arguments):
        weights.extend(found := packing.pack(*arguments))
        own.update(weight.untyped_storage().data_ptr() for weight in found)
        return found

    monkeypatch.setattr(execute, "pack", noted)

    def pack(x):
        if x.dtype == torch.int64:
            indices.append(x.numel())
        elif x.dim() > 1 and x.untyped_storage().data_ptr() not in own:  # one axis: statistics of a normalisation
            kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes() // 4
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        out = built(torch.randn(2, *arch.input))
    assert out is not None
    found = cost(arch)
    assert (sum(kept.values()), sum(indices)) == (2 * found.training_peak, 2 * found.pool_indices)


def test_predictions_stand_in_the_order_of_the_default_boxes():
    arch = small("resnet", "ssd")
    built = build(arch).eval()
    grids = {}
    for name, module in built.head.named_modules():
        if name.startswith(("locations.", "scores.")):
            module.register_forward_hook(lambda m, x, y, name=name: grids.__setitem__(name, y))
    locations, scores = built(torch.randn(2, *arch.input))
    assert len(default_boxes_of(arch)) == locations.shape[1] == scores.shape[1]
    n = 0
    for i, ((h, w), boxes) in enumerate(zip(arch.head.maps(network.tapped(arch)[0]), arch.head.boxes, strict=True)):
        for row, column, box in itertools.product(range(h), range(w), range(boxes)):
            for found, name, numbers in ((locations, "locations", 4), (scores, "scores", 5)):
                at = grids[f"{name}.{i}"][:, box * numbers : (box + 1) * numbers, row, column]
                assert torch.equal(found[:, n], at)
            n += 1
    assert n == locations.shape[1]


def test_fpn_adds_the_nearest_neighbours_top_down():
    """With laterals that sum the channels and outputs that copy, every map is the sum of those above it."""
    arch = replace(small("resnet", "fpn", (3, 50, 70)), head=FPN(1, extra=True))
    built = build(arch).double().eval()
    with torch.no_grad():
        for lateral, output in zip(built.head.lateral, built.head.output, strict=True):
            lateral.weight.fill_(1)
            output.weight.zero_()[0, 0, 1, 1] = 1
    features = built.features(torch.randn(1, *arch.input, dtype=torch.float64))
    found = built.head(features, arch.input[1:])
    assert [tuple(x.shape[2:]) for x in found] == [(50, 70), (25, 35), (13, 18), (7, 9)]
    for i, x in enumerate(found[:3]):
        h, w = x.shape[2:]
        for row, column in itertools.product(range(h), range(w)):
            above = [f[0, :, row * f.shape[2] // h, column * f.shape[3] // w].sum() for f in features[i : i + 2]]
            if i == 0:  # two maps up, by way of the one between
                (a, b), (c, d) = features[1].shape[2:], features[2].shape[2:]
                above.append(features[2][0, :, (row * a // h) * c // a, (column * b // w) * d // b].sum())
            assert x[0, 0, row, column].item() == pytest.approx(sum(above).item(), abs=1e-4)
    assert torch.equal(found[3], found[2][:, :, ::2, ::2])


@pytest.mark.parametrize("head", ["pyconvssd", "fpn"])
def test_initialisation(head):
    torch.manual_seed(0)
    built = build(small("resnet", head))
    for name, module in built.head.named_modules():
        if isinstance(module, nn.Conv2d):
            fan = module.weight[0].numel() + module.weight.shape[0] * math.prod(module.kernel_size)
            bound = math.sqrt(6 / fan)
            assert 0.9 * bound < module.weight.abs().max() <= bound, name
            assert module.bias is None or module.bias.eq(0).all(), name
    assert built.stages[2][0].conv2.weight.std().item() == pytest.approx(math.sqrt(2 / (32 * 9)), rel=0.1)
