"""Segmentation heads as modules: layer by layer against the closed forms, and what they do with real images."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pyconv_search.arch import network as traced
from pyconv_search.arch.cost import cost
from pyconv_search.arch.heads.segmentation import KINDS
from pyconv_search.arch.presets import preset
from pyconv_search.arch.resnet import resnet
from pyconv_search.models import build
from pyconv_search.ops import executed_as

PLAIN = {"stem": {"kernel": 3, "width": 8, "stride": 2, "pool": "none"}}
BACKBONES = {
    "basic": {"blocks": [1, 1, 1], "output_stride": 4, **PLAIN},
    "poly-scale": {"blocks": [1, 1], "block": "bottleneck", "pattern": [1, 2, 1, 4], **PLAIN},
    "pyramid": {
        "blocks": [1, 2, 1],
        "block": "bottleneck",
        "levels": [3, 2, 1],
        "shortcut": "max+conv",
        "output_stride": 4,
        **PLAIN,
    },
    "squeeze-excitation, pre-activation": {"blocks": [1, 2], "se": 1, "form": "pre", **PLAIN},
    "improved": {"blocks": [2, 2], "block": "bottleneck", "form": "ires", "output_stride": 2, **PLAIN},
}
HEADS = {
    "conv3x3": {"width": 16},
    "aspp": {"width": 16, "branch": 8, "rates": [1, 3]},
    "ppm": {"width": 16, "branch": 8, "bins": [1, 2, 5]},
    "pyconvph": {"width": 16, "branch": 32, "bins": 5, "local_pyramid": {"pattern": [[1, 2], [1], [1], [1]]}},
}


def small(kind, backbone="basic", image=(3, 41, 58), **settings):
    return resnet({**BACKBONES[backbone], "head": {"kind": kind, **HEADS[kind], **settings}}, image, 5)


@pytest.fixture(scope="module")
def witness():
    """The counters of the networks without a head."""
    spec = importlib.util.spec_from_file_location("cost_witness", Path(__file__).parent / "test_cost_witness.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def called(network, images, count=lambda module, x, y: 0):
    """The shape that every leaf puts out in one pass, by name, and what ``count`` says of its call."""
    shapes = {}

    def note(name):
        return lambda module, x, y: shapes.__setitem__(name, (tuple(y.shape[1:]), count(module, x[0], y)))

    leaves = [(n, m) for n, m in network.named_modules() if not [*m.children()] and not isinstance(m, nn.Identity)]
    hooks = [module.register_forward_hook(note(name)) for name, module in leaves]
    network(images)
    for hook in hooks:
        hook.remove()
    return shapes


@pytest.mark.parametrize(
    "arch",
    [
        *(preset(f"resnet-50+{kind}") for kind in KINDS),
        *(preset(f"pyconvresnet-50+{kind}-os16") for kind in KINDS),
        *(small(kind, backbone) for kind, backbone in zip(KINDS, [*BACKBONES][1:], strict=True)),
        small("pyconvph", auxiliary=False),
    ],
    ids=lambda arch: f"{arch.head.kind} {arch.input[1]}",
)
def test_layer_by_layer(arch, witness):
    with torch.device("meta"):
        network, images = build(arch), torch.empty(2, *arch.input)
    layers = {layer.name: layer for layer in traced.layers(arch) if layer.name}
    seen = called(network, images, witness.thop)
    assert {name: layer.output.shape for name, layer in layers.items()} == {name: y for name, (y, _) in seen.items()}
    for name, layer in layers.items():
        assert layer.params == sum(p.numel() for p in network.get_submodule(name).parameters()), name
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        inference = called(network.eval(), images)
    assert inference.keys() == {name for name, layer in layers.items() if not layer.training}
    closed = cost(arch)
    assert closed.thop * 2 == sum(operations for _, operations in seen.values())
    assert closed.params == sum(p.numel() for p in network.parameters())
    assert closed.executed * 2 * 2 == counter.get_total_flops()


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("kind", KINDS)
def test_forward_and_backward_at_odd_sizes(kind, backbone):
    torch.manual_seed(0)
    network = build(small(kind, backbone))
    logits, auxiliary = network(torch.randn(2, 3, 41, 58))
    assert logits.shape == auxiliary.shape == (2, 5, 41, 58)
    (logits.square().mean() + 0.4 * auxiliary.square().mean()).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name
    with torch.no_grad():
        assert network.eval()(torch.randn(1, 3, 37, 45)).shape == (1, 5, 37, 45)


def test_without_an_auxiliary_head_training_gives_logits_alone():
    network = build(small("aspp", auxiliary=False))
    assert network(torch.randn(2, 3, 41, 58)).shape == (2, 5, 41, 58)
    assert not [name for name, _ in network.named_parameters() if "auxiliary" in name]


@pytest.mark.parametrize("kind", KINDS)
def test_interpolation_keeps_the_corners(kind):
    network = build(small(kind)).eval()
    scores = []
    network.head.classify.register_forward_hook(lambda module, x, y: scores.append(y))
    with torch.no_grad():
        logits = network(torch.randn(1, 3, 41, 58))
    assert scores[0].shape[2:] == (11, 15)
    torch.testing.assert_close(logits[..., ::40, ::57], scores[0][..., ::10, ::14])


@pytest.mark.parametrize(("kind", "reach"), [("conv3x3", {1}), ("aspp", None), ("ppm", None), ("pyconvph", None)])
def test_all_but_one_convolution_see_the_whole_image(kind, reach):
    """How far, in pixels along each side, the features lie that a pixel's logits depend on."""
    torch.manual_seed(0)
    head = build(small(kind)).head.double().eval()
    x = torch.randn(1, 32, 31, 31, dtype=torch.double, requires_grad=True)
    head([x, x], (31, 31))[0, :, 15, 15].sum().backward()
    seen = x.grad[0].abs().sum(0).nonzero() - 15
    assert set(seen.abs().max(0).values.tolist()) == (reach or {15})


def test_atrous_convolutions_reach_by_their_rates():
    context = build(small("aspp", rates=[2, 5])).head.context
    seen = torch.zeros(1, 32, 15, 15)
    seen[..., 7, 7] = 1
    for rate, branch in zip((2, 5), context.atrous, strict=True):
        hit = branch.conv(seen)[0].abs().sum(0).nonzero().tolist()
        assert hit == [[7 + a, 7 + b] for a in (-rate, 0, rate) for b in (-rate, 0, rate)]


class Both(nn.Sequential):
    """The logits and those of the auxiliary head as one tensor."""

    def forward(self, images):
        return torch.stack(super().forward(images))


@pytest.mark.parametrize("kind", KINDS)
def test_memory_is_that_of_autograd_and_of_the_operators_that_run(kind, witness):
    arch = small(kind, **({"local_pyramid": {}} if kind == "pyconvph" else {}))
    network, closed = build(arch), cost(arch)
    masks = arch.head.width + network.head.auxiliary.classify.in_channels  # of dropout, left out of the closed form
    kept, positions = witness.kept_for_backward(Both(network), torch.randn(2, *arch.input))
    assert (kept, positions) == (2 * (closed.training_peak + masks), 2 * closed.pool_indices)
    network, images = network.eval(), torch.randn(1, *arch.input)
    with executed_as("plain"), witness.Calls() as calls, torch.no_grad():
        network(images)
    assert calls.peak(images) == closed.inference_peak


def test_inference_drops_the_feature_that_only_training_reads():
    network = build(small("ppm"))
    read = []
    network.head.register_forward_pre_hook(lambda module, given: read.append([x.shape[1] for x in given[0]]))
    for mode in (True, False):
        network.train(mode)(torch.randn(2, 3, 41, 58))
    assert read == [[16, 32], [32]]


@pytest.mark.parametrize("auxiliary", [False, True])
def test_whole_channels_are_dropped_before_the_classification_while_training(auxiliary):
    """A tenth of them (PSPNet), the others scaled so that the expectation stays; nothing in evaluation."""
    torch.manual_seed(0)
    network = build(small("conv3x3", width=400))
    part = network.head.auxiliary if auxiliary else network.head
    shares = {}
    before = part.context if auxiliary else part.context.out
    before.register_forward_hook(lambda module, x, y: shares.update(read=y))
    part.classify.register_forward_pre_hook(lambda module, x: shares.update(classified=x[0]))
    images = torch.randn(4, 3, 41, 58)
    network(images)
    read, found = (shares[name].detach() for name in ("read", "classified"))
    dropped = (found == 0).flatten(2).all(2)
    assert dropped[(read > 0).flatten(2).any(2)].float().mean() == pytest.approx(0.1, abs=0.03)
    torch.testing.assert_close(found[~dropped], read[~dropped] / 0.9)
    network.eval().head.auxiliary(torch.randn(2, 16, 11, 15)) if auxiliary else network.eval()(images)
    assert torch.equal(shares["read"], shares["classified"])
