"""Gradients in bfloat16 with the channels last where oneDNN's own are wrong: against float64, and not read from nowhere."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad

from pyconv_search.ops.psconv import PSConv2d
from pyconv_search.ops.pyconv import PyConv2d, same_conv2d
from pyconv_search.ops.sound import unsound
from pyconv_search.ops.video import same_conv3d

CASES = {
    "psconv 16": lambda: PSConv2d(16, 16, bias=False),
    "psconv 32 sorted": lambda: sorted_(PSConv2d(32, 32, bias=False)),
    "psconv 24 in groups": lambda: PSConv2d(24, 32, groups=2, pattern=(1, 4), bias=False),
    "psconv along input": lambda: PSConv2d(16, 16, axes="input", bias=False),
    "pyramid of dilations": lambda: PyConv2d(16, [8, 8, 16], [3, 5, 3], [1, 4, 2], pattern=[(2,), (1,), (1, 2)]),
    "psconv of one dilation": lambda: PSConv2d(24, 16, pattern=(2,), bias=False),
    "dilated 24": lambda: same_conv2d(24, 32, 3, pattern=(2,), bias=False),
    "dilated in groups": lambda: same_conv2d(32, 32, 3, 4, pattern=(4,), bias=False),
}


def sorted_(module: PSConv2d) -> PSConv2d:
    module.sorted_in = module.sorted_out = True
    return module


def inputs(channels: int) -> Tensor:
    # What the allocator hands out next was full of NaN.
    del [torch.full((4, 64, 40, 40), torch.nan) for _ in range(4)][:]
    numbers = torch.Generator().manual_seed(0)
    return torch.randn(4, channels, 40, 40, generator=numbers).contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("transformed", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_gradients_are_those_of_float64(case: str, transformed: bool):
    torch.manual_seed(0)
    module = CASES[case]()
    exact = deepcopy(module).double()
    module = module.to(memory_format=torch.channels_last)
    images = inputs(module.in_channels)
    parameters = dict(module.named_parameters())

    def loss(weights: dict[str, Tensor]) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return functional_call(module, weights, images).float().square().mean()

    if transformed:
        found = grad(loss)(parameters)
    else:
        loss(parameters).backward()
        found = {name: parameter.grad for name, parameter in parameters.items()}
    exact(images.double()).square().mean().backward()
    for name, parameter in exact.named_parameters():
        error = torch.linalg.norm(found[name] - parameter.grad) / torch.linalg.norm(parameter.grad)
        assert error < 0.02, name


@pytest.mark.parametrize("autocast", [True, False])
@pytest.mark.parametrize("groups", [1, 2])
def test_the_stem_of_video_networks_in_bfloat16(autocast: bool, groups: int):
    torch.manual_seed(0)
    module = same_conv3d(16, 16, (5, 7, 7), groups, (1, 2, 2))
    exact = deepcopy(module).double()
    inputs(16)
    clips = torch.randn(2, 16, 4, 16, 16)
    if not autocast:
        module, clips = module.bfloat16(), clips.bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        out = module(clips)
    assert out.dtype == torch.bfloat16
    out.float().square().mean().backward()
    exact(clips.double()).square().mean().backward()
    error = torch.linalg.norm(module.weight.grad - exact.weight.grad) / torch.linalg.norm(exact.weight.grad)
    assert error < 0.02


def test_a_dilated_convolution_stays_one_and_keeps_its_layout():
    module = same_conv2d(24, 32, 3, pattern=(2,), bias=True).to(memory_format=torch.channels_last)
    plain = nn.Conv2d(24, 32, 3, padding=2, dilation=2)
    plain.load_state_dict(module.state_dict())
    images = inputs(24)
    assert torch.allclose(module(images), plain(images), atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        assert module(images).is_contiguous(memory_format=torch.channels_last)
        assert module(images[0]).shape == (32, 40, 40)


def test_it_is_for_few_channels_in_bfloat16_on_cpus_alone():
    cpu = torch.device("cpu")
    assert unsound(cpu, torch.bfloat16, 24, 2)
    assert not any(
        unsound(torch.device(device), dtype, fan_in, dilation)
        for device, dtype, fan_in, dilation in (
            ("cuda", torch.bfloat16, 24, 2),
            ("cpu", torch.float32, 24, 2),
            ("cpu", torch.float16, 24, 2),
            ("cpu", torch.bfloat16, 32, 2),
            ("cpu", torch.bfloat16, 24, 1),
        )
    )


@pytest.mark.parametrize("stride", [2, (1, 3)])
def test_a_narrow_strided_pointwise_convolution_reads_the_pixels_it_needs(stride: int | tuple[int, int]):
    """nn.Conv2d itself ends the process here, with 8 channels last at 56 pixels, so a small image is compared."""
    module = same_conv2d(8, 16, 1, stride=stride, bias=True).to(memory_format=torch.channels_last)
    plain = nn.Conv2d(8, 16, 1, stride)
    plain.load_state_dict(module.state_dict())
    small = torch.randn(2, 8, 9, 7)
    torch.testing.assert_close(module(small), plain(small))
    torch.testing.assert_close(module(small[0]), plain(small[0]))
    large = torch.randn(32, 8, 56, 56).contiguous(memory_format=torch.channels_last).requires_grad_()
    module(large).square().mean().backward()
    exact = deepcopy(plain).double()
    exact(large.detach().double()).square().mean().backward()
    torch.testing.assert_close(module.weight.grad.double(), exact.weight.grad, rtol=1e-4, atol=1e-7)
    assert large.grad is not None


@pytest.mark.parametrize("stride", [2, (1, 2)])
@pytest.mark.parametrize("channels", [3, 8])
def test_a_pointwise_level_of_a_pyramid_reads_the_pixels_it_needs(channels: int, stride: int | tuple[int, int]):
    """Else the backward pass writes into other tensors, and at this size ends the process."""
    torch.manual_seed(0)
    module = PyConv2d(channels, [16, 8], [1, 7], [1, 1], stride=stride, bias=False)
    exact = deepcopy(module).double()
    module = module.to(memory_format=torch.channels_last)
    images = torch.randn(32, channels, 56, 56).contiguous(memory_format=torch.channels_last).requires_grad_()
    doubles = images.detach().double().requires_grad_()
    for network, x in ((module, images), (exact, doubles)):
        network(x).square().mean().backward()
    torch.testing.assert_close(images.grad.double(), doubles.grad, rtol=1e-3, atol=1e-7)
    for found, expected in zip(module.parameters(), exact.parameters(), strict=True):
        torch.testing.assert_close(found.grad.double(), expected.grad, rtol=1e-3, atol=1e-7)
