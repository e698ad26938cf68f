"""The residual network: its parts, its field of view, its initialisation, and that all of it is trained."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from pyconv_search.arch.cost import cost
from pyconv_search.arch.presets import preset
from pyconv_search.models import build
from pyconv_search.models.attention import NonLocal


def averaging(network):
    """The same network with mean for max pooling: as wide, but every pixel of a window has a gradient."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.MaxPool2d):
                setattr(module, name, nn.AvgPool2d(child.kernel_size, child.stride, child.padding))
    return network


def test_receptive_field_is_the_support_of_the_gradient(small):
    if any(stage.se or stage.non_local for stage in small.stages):
        pytest.skip("attention sees the whole image; the closed form leaves it out")
    field = cost(small).receptive_field
    network = averaging(build(small)).double().eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.abs_().add_(0.01)
    side = 2 * field + 4 * small.stride + 1
    images = torch.ones(1, 3, side, side, dtype=torch.float64, requires_grad=True)
    features = network.features(images)[-1]
    features[0, :, features.shape[2] // 2, features.shape[3] // 2].sum().backward()
    for axes in ((0, 1, 2), (0, 1, 3)):
        touched = images.grad.sum(axes).nonzero().flatten()
        assert touched.max() - touched.min() + 1 == field


def test_a_gradient_reaches_every_parameter(small):
    torch.manual_seed(0)
    network = build(small).train()
    for module in network.modules():
        if isinstance(module, NonLocal):
            nn.init.ones_(module.norm.weight)
    network(torch.randn(4, 3, 32, 32)).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().amax() > 0, name


def test_it_takes_images_of_other_sizes_and_either_memory_format(small):
    torch.manual_seed(0)
    network = build(small).eval()
    images = torch.randn(2, 3, 40, 36)
    out = network(images)
    assert out.shape == (2, 5)
    last = network.to(memory_format=torch.channels_last)(images.to(memory_format=torch.channels_last))
    torch.testing.assert_close(last, out, atol=1e-4, rtol=1e-3)


def test_initialisation(small):
    torch.manual_seed(0)
    network = build(small)
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 400:
            expected = math.sqrt(2 / (module.out_channels * math.prod(module.kernel_size)))
            assert module.weight.std().item() == pytest.approx(expected, rel=0.15), name
        elif isinstance(module, nn.BatchNorm2d):
            gate = isinstance(network.get_submodule(name.rpartition(".")[0]), NonLocal)
            assert module.weight.eq(0 if gate else 1).all(), name
            assert module.bias.eq(0).all(), name
    assert network.head.bias.abs().max() > 0


def test_the_same_seed_gives_the_same_network(small):
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        states.append(build(small).state_dict())
    assert all(torch.equal(a, b) for a, b in zip(*map(dict.values, states), strict=True))


def test_names_of_the_parts():
    with torch.device("meta"):
        names = build(preset("pyconvresnet-50")).state_dict().keys()
    assert {"stem.conv.weight", "stages.0.0.conv1.weight", "stages.0.0.conv2.levels.3.weight"} <= names
    assert {"stages.0.0.shortcut.conv.weight", "stages.3.2.norm3.bias", "head.weight", "head.bias"} <= names


def test_pretrained_standard_weights_load_into_a_poly_scale_network():
    with torch.device("meta"):
        standard, poly = build(preset("resnet-50")), build(preset("ps-resnet-50"))
    shapes = [{name: value.shape for name, value in network.state_dict().items()} for network in (standard, poly)]
    assert shapes[0] == shapes[1]


def test_a_block_follows_the_paper():
    """Figure 5 of ResNet, left: ReLU(BN(conv(ReLU(BN(conv(x))))) + x)."""
    block = build(preset("resnet-20-cifar")).eval().stages[0][1]
    x = torch.randn(2, 16, 8, 8).abs()
    inner = torch.relu(block.norm1(block.conv1(x)))
    torch.testing.assert_close(block(x.clone()), torch.relu(block.norm2(block.conv2(inner)) + x))
