"""Inception-ResNet as a module: against its closed form layer by layer, and against a plain one written out here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pyconv_search.arch import network as traced
from pyconv_search.arch.cost import cost
from pyconv_search.arch.inception_settings import INCEPTION_RESNET_V2, PYCONV_INCEPTION, read
from pyconv_search.arch.spec import SqueezeExcite
from pyconv_search.fields import SpecError
from pyconv_search.models import build

SMALL = {
    "inception": {"blocks": [2, 1, 2]},
    "pyramids": {"blocks": [1, 1, 1], "block": "bottleneck", "levels": [3, 2, 1], "stages": [{}, {}, {"out": 1024}]},
    "mixed": {"blocks": [1, 2, 1], "stages": [{}, {"block": "bottleneck", "width": 64, "pattern": [1, 2]}, {}]},
}


def small(name, image):
    return read(SMALL[name], image, 5)


def attended(image):
    """One with both kinds of attention in inception blocks."""
    arch = small("inception", image)
    first, second, third = arch.stages
    return replace(arch, stages=(replace(first, se=SqueezeExcite(8)), replace(second, non_local=True), third))


BIG = (3, 299, 299)
TRACED = {
    "inception-resnet-v2": lambda: read(INCEPTION_RESNET_V2, BIG, 1000),
    "pyconvinception": lambda: read(PYCONV_INCEPTION, BIG, 1000),
    "not square": lambda: small("mixed", (1, 107, 150)),
    "wider": lambda: small("pyramids", (3, 96, 75)),
    "attended": lambda: attended((3, 139, 139)),
}


@pytest.mark.parametrize("arch", TRACED.values(), ids=TRACED)
def test_closed_form_and_module_agree_layer_by_layer(arch):
    arch = arch()
    shapes, outputs = {}, []
    with torch.device("meta"):
        network, image = build(arch).eval(), torch.empty(1, *arch.input)
    for name, module in network.named_modules():
        if not list(module.children()) and not isinstance(module, nn.Identity):
            module.register_forward_hook(lambda module, x, y, name=name: shapes.update({name: tuple(y.shape[1:])}))
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.register_forward_hook(lambda module, x, y: outputs.append(y.numel()))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        assert network(image).shape == (1, arch.classes)
    layers = {layer.name: layer for layer in traced.layers(arch) if layer.name}
    assert {name: layer.output.shape for name, layer in layers.items()} == shapes
    for name, layer in layers.items():
        assert layer.params == sum(p.numel() for p in network.get_submodule(name).parameters()), name
    found = cost(arch)
    assert found.params == sum(p.numel() for p in network.parameters())
    assert (found.executed, found.activations) == (counter.get_total_flops() // 2, sum(outputs))
    features = [tuple(x.shape[1:]) for x in network.features(image)]
    assert features[:-1] == [part.size for part in found.parts[1:3]]
    assert features[-1] == found.parts[-2].size


class Cat(nn.ModuleList):
    def forward(self, x):
        return torch.cat([branch(x) for branch in self], 1)


class Residual(nn.Module):
    def __init__(self, branches, mixed, out, scale, relu=True):
        super().__init__()
        self.branches, self.up, self.scale = Cat(branches), nn.Conv2d(mixed, out, 1), scale
        self.relu = nn.ReLU() if relu else nn.Identity()

    def forward(self, x):
        return self.relu(self.up(self.branches(x)) * self.scale + x)


def plain(blocks, classes):
    """The released network, in the order of its modules: Szegedy et al. 2016, with the released widths and scales."""

    def c(i, o, k=1, s=1, p=0):
        return nn.Sequential(nn.Conv2d(i, o, k, s, p, bias=False), nn.BatchNorm2d(o, eps=1e-3), nn.ReLU())

    def block35():
        two = s(c(320, 32), c(32, 32, 3, 1, 1))
        return Residual([c(320, 32), two, s(c(320, 32), c(32, 48, 3, 1, 1), c(48, 64, 3, 1, 1))], 128, 320, 0.17)

    def block17():
        long = s(c(1088, 128), c(128, 160, (1, 7), 1, (0, 3)), c(160, 192, (7, 1), 1, (3, 0)))
        return Residual([c(1088, 192), long], 384, 1088, 0.1)

    def block8(scale=0.2, relu=True):
        long = s(c(2080, 192), c(192, 224, (1, 3), 1, (0, 1)), c(224, 256, (3, 1), 1, (1, 0)))
        return Residual([c(2080, 192), long], 448, 2080, scale, relu)

    s, pool = nn.Sequential, lambda: nn.MaxPool2d(3, 2)
    stem = s(c(3, 32, 3, 2), c(32, 32, 3), c(32, 64, 3, 1, 1), pool(), c(64, 80), c(80, 192, 3), pool())
    average = nn.AvgPool2d(3, 1, 1, count_include_pad=False)
    five, three = s(c(192, 48), c(48, 64, 5, 1, 2)), s(c(192, 64), c(64, 96, 3, 1, 1), c(96, 96, 3, 1, 1))
    mixed_5b = Cat([c(192, 96), five, three, s(average, c(192, 64))])
    mixed_6a = Cat([c(320, 384, 3, 2), s(c(320, 256), c(256, 256, 3, 1, 1), c(256, 384, 3, 2)), pool()])
    long = s(c(1088, 256), c(256, 288, 3, 1, 1), c(288, 320, 3, 2))
    mixed_7a = Cat([s(c(1088, 256), c(256, 384, 3, 2)), s(c(1088, 256), c(256, 288, 3, 2)), long, pool()])
    return s(
        stem,
        s(mixed_5b, mixed_6a, mixed_7a),
        s(*(block35() for _ in range(blocks[0]))),
        s(*(block17() for _ in range(blocks[1]))),
        s(*(block8() for _ in range(blocks[2] - 1)), block8(1.0, relu=False)),
        c(2080, 1536),
        nn.Linear(1536, classes),
    )


def run(network, x):
    stem, (mixed_5b, mixed_6a, mixed_7a), first, second, third, last, linear = network
    x = third(mixed_7a(second(mixed_6a(first(mixed_5b(stem(x)))))))
    return linear(last(x).mean((2, 3)))


def test_it_computes_what_the_released_network_does():
    torch.manual_seed(0)
    blocks = SMALL["inception"]["blocks"]
    network, other = build(small("inception", (3, 107, 107))).double().eval(), plain(blocks, 5).double().eval()
    for name, values in network.state_dict().items():
        if "running" in name or "norm.bias" in name:
            values.uniform_(0.2, 1.5 if "var" in name else 0.4)
    mine = network.state_dict()
    ordered = [
        key for part in ("stem", "transitions", "stages", "final", "head") for key in mine if key.startswith(part)
    ]
    theirs = other.state_dict()
    assert [mine[key].shape for key in ordered] == [value.shape for value in theirs.values()]
    other.load_state_dict(dict(zip(theirs, map(mine.get, ordered), strict=True)))
    images = torch.randn(2, 3, 107, 107, dtype=torch.double)
    with torch.no_grad():
        torch.testing.assert_close(network(images), run(other, images), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("name", "side"), [("inception", 75), ("inception", 107), ("pyramids", 76), ("mixed", 75)])
def test_a_gradient_reaches_every_parameter(name, side):
    torch.manual_seed(0)
    network = build(small(name, (3, side, side))).train()
    out = network(torch.randn(4, 3, side, side))
    out.square().sum().backward()
    assert out.isfinite().all()
    for path, parameter in network.named_parameters():
        assert parameter.grad is not None, path
        assert parameter.grad.isfinite().all(), path
        assert parameter.grad.abs().amax() > 0, path


def test_the_least_image_is_the_least_that_pytorch_takes():
    with torch.device("meta"):
        network = build(small("inception", (3, 75, 75))).eval()
        assert network.features(torch.empty(1, 3, 75, 75))[-1].shape[2:] == (1, 1)
        with pytest.raises(RuntimeError):
            network.features(torch.empty(1, 3, 75, 74))


@pytest.mark.parametrize("name", SMALL)
def test_every_normalisation_has_the_released_epsilon(name):
    with torch.device("meta"):
        modules = build(small(name, (3, 75, 75))).modules()
    assert {module.eps for module in modules if isinstance(module, nn.BatchNorm2d)} == {1e-3}


@pytest.mark.parametrize("axis", [2, 3])
def test_receptive_field_is_the_support_of_the_gradient(axis):
    arch = read({"blocks": [1, 1, 1]}, (3, 75, 75), 5)
    field = cost(arch).receptive_field
    network = build(arch).double().eval()
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.MaxPool2d):  # as wide, but every pixel of a window has a gradient
                setattr(module, name, nn.AvgPool2d(child.kernel_size, child.stride, child.padding))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.abs_().add_(0.01)
    size = [75, 75]
    size[axis - 2] = 2 * field + 4 * arch.stride + 1
    images = torch.ones(1, 3, *size, dtype=torch.double, requires_grad=True)
    features = network.features(images)[-1]
    features[0, :, features.shape[2] // 2, features.shape[3] // 2].sum().backward()
    touched = images.grad.sum((0, 1, 5 - axis)).nonzero().flatten()
    assert touched.max() - touched.min() + 1 == field


@dataclass(frozen=True)
class Refuses:
    """A head that reads all stages and says what it was offered."""

    kind: str = "refuses"

    def taps(self, stages: int) -> Sequence[int]:
        return tuple(range(stages))

    def check(self, features, path, problems):
        problems.add(path, str(list(features)))


def test_other_heads_are_offered_the_features_of_three_stages():
    arch = small("mixed", (3, 203, 171))
    with torch.device("meta"):
        features = build(arch).features(torch.empty(1, *arch.input))
    with pytest.raises(SpecError) as caught:
        replace(arch, head=Refuses())
    assert str(caught.value) == f"head: {[tuple(x.shape[1:]) for x in features]}"
