"""Levels that are watched, replaced or parametrized, and inputs that do not fit."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize, prune

from pyconv_search.errors import UserError
from pyconv_search.ops import PSConv2d, PyConv2d
from pyconv_search.ops.planning import executed_as

POLY = ("split", "per-class", "masked", "masked-1")


def make(name: str, **options) -> nn.Module:
    torch.manual_seed(0)
    if name == "poly-scale":
        return PSConv2d(8, 8, groups=2, **options)
    return PyConv2d(8, [4, 8, 4], [3, 5, 7], [1, 2, 4], bias=True, **options)


@pytest.fixture
def x():
    torch.manual_seed(1)
    return torch.randn(2, 8, 7, 6)


def by_level(module: PyConv2d, x: torch.Tensor) -> torch.Tensor:
    return torch.cat([level(x) for level in module.levels], 1)


HOOKS = {
    "forward": lambda level, fired: level.register_forward_hook(lambda *_: fired.append(1)),
    "forward_pre": lambda level, fired: level.register_forward_pre_hook(lambda *_: fired.append(1)),
    "full_backward": lambda level, fired: level.register_full_backward_hook(lambda *_: fired.append(1)),
    "full_backward_pre": lambda level, fired: level.register_full_backward_pre_hook(lambda *_: fired.append(1)),
}


@pytest.mark.parametrize("hook", HOOKS)
def test_hooks_of_levels_fire(hook, x):
    module, fired = make("pyramid"), []
    expected = module(x).detach()
    handle = HOOKS[hook](module.levels[1], fired)
    out = module(x.clone().requires_grad_())
    out.sum().backward()
    assert fired == [1]
    torch.testing.assert_close(out, expected)
    handle.remove()
    module(x).sum().backward()
    assert fired == [1]


def test_hooks_of_all_modules_see_the_levels(x):
    module, seen = make("pyramid"), []
    handle = nn.modules.module.register_module_forward_hook(lambda level, *_: seen.append(level))
    try:
        module(x)
    finally:
        handle.remove()
    assert seen == [*module.levels, module]


def without_bias(conv: nn.Conv2d) -> nn.Conv2d:
    conv.bias = None
    return conv


def unlike_itself(conv: nn.Conv2d) -> nn.Conv2d:
    forward = conv.forward
    conv.forward = lambda image: 2 * forward(image)
    return conv


class Doubled(nn.Module):
    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return 2 * weight


def parametrized(conv: nn.Conv2d) -> nn.Module:
    return parametrize.register_parametrization(conv, "weight", Doubled())


def sorted_scale() -> PSConv2d:
    level = PSConv2d(8, 8, 3, groups=2, pattern=(1, 2))
    level.sorted_in = True
    return level


# Replacements of a level of 8 outputs with a 5×5 kernel and 2 groups.
LEVELS = {
    "sequential": lambda old: nn.Sequential(old, nn.BatchNorm2d(8), nn.ReLU()),
    "other groups": lambda old: nn.Conv2d(8, 8, 5, padding=2, groups=4),
    "other kernel": lambda old: nn.Conv2d(8, 8, (3, 1), padding=(1, 0)),
    "other width": lambda old: nn.Conv2d(8, 5, 5, padding=2),
    "dilated": lambda old: nn.Conv2d(8, 8, 3, padding=2, dilation=2),
    "circular padding": lambda old: nn.Conv2d(8, 8, 3, padding=1, padding_mode="circular"),
    "padding in words": lambda old: nn.Conv2d(8, 8, 5, padding="same"),
    "no bias": lambda old: without_bias(old),
    "poly-scale": lambda old: PSConv2d(8, 8, 3, pattern=(1, 2)),
    "sorted poly-scale": lambda old: sorted_scale(),
    "own forward": unlike_itself,
    "pruned": lambda old: prune.l1_unstructured(old, "weight", 0.5),
    "weight norm": lambda old: nn.utils.parametrizations.weight_norm(old),
    "parametrized": parametrized,
}


@pytest.mark.parametrize("replacement", LEVELS)
@pytest.mark.parametrize("number", [0, 1])
def test_a_level_may_become_another_module(replacement, number, x):
    torch.manual_seed(0)
    module = PyConv2d(8, [8, 8, 4], [5, 5, 3], [2, 2, 1], bias=True)
    module.levels[number] = LEVELS[replacement](module.levels[number])
    module.eval()
    for way in ("plain", "merged-1", "depthwise"):
        with executed_as(way):
            torch.testing.assert_close(module(x), by_level(module, x), atol=1e-5, rtol=1e-4)
    module(x).sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())


def test_levels_of_another_stride_together(x):
    module = PyConv2d(8, [8, 8], [3, 5])
    module.levels[0], module.levels[1] = PSConv2d(8, 8, 3, stride=2), PSConv2d(8, 8, 5, stride=2)
    torch.testing.assert_close(module(x), by_level(module, x))


@pytest.mark.parametrize("way", POLY)
def test_a_parametrized_poly_scale_convolution(way, x):
    module = PSConv2d(8, 8, bias=False)
    doubled = parametrized(copy.deepcopy(module))
    with executed_as(way):
        torch.testing.assert_close(doubled(x), 2 * module(x))
        doubled(x).sum().backward()
        module(x).sum().backward()
    torch.testing.assert_close(doubled.parametrizations.weight.original.grad, 2 * module.weight.grad)


@pytest.mark.parametrize("name", ["poly-scale", "pyramid"])
def test_inputs_that_do_not_fit_are_told(name, x):
    module = make(name)
    cases = [
        (module, x.to("meta"), "input must be on cpu, where the weight is, but got one on meta"),
        (module, x.double(), "input must be of torch.float32, as the weight is, but got torch.float64"),
        (module, x.half(), "input must be of torch.float32, as the weight is, but got torch.float16"),
        (module, x.long(), "input must be of torch.float32, as the weight is, but got torch.int64"),
        (copy.deepcopy(module).to("meta"), x, "input must be on meta, where the weight is, but got one on cpu"),
        (
            module,
            x[:, :7],
            r"input must have 8 channels, as 8×H×W or N×8×H×W, but got a tensor of shape \(2, 7, 7, 6\)",
        ),
    ]
    for each, image, message in cases:
        with pytest.raises(UserError, match=message):
            each(image)


def test_levels_that_differ_are_told(x):
    module = make("pyramid")
    module.levels[2].double()
    with pytest.raises(
        UserError,
        match=r"levels must all be on one device and of one type, but got torch.float32 on cpu and torch.float64 on cpu",
    ):
        module(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert module(x).dtype == torch.bfloat16
    module.float().levels[1].to("meta")
    with pytest.raises(UserError, match=r"but got torch.float32 on cpu and torch.float32 on meta"):
        module(x)


def test_a_hooked_pyramid_tells_the_channels_too(x):
    module = make("pyramid")
    module.levels[0].register_forward_hook(lambda *_: None)
    with pytest.raises(UserError, match="input must have 8 channels"):
        module(x[:, :7])


@pytest.mark.parametrize(
    ("channels", "pattern"), [((2, 3), (1, 2, 1, 4, 1, 3, 1, 2)), ((7, 5), (1, 2, 1, 4)), ((1, 1), (1, 2, 4))]
)
@pytest.mark.parametrize("way", POLY)
def test_patterns_that_do_not_divide_the_channels_or_are_longer(channels, pattern, way, reference):
    """The last partition is shorter (PSConv, section 3.2: a ceiling); a pattern longer than the channels is cut."""
    module = PSConv2d(*channels, pattern=pattern, dtype=torch.float64)
    case = {"in_channels": channels[0], "out_channels": channels[1], "groups": 1, "pattern": pattern}
    x = torch.randn(2, channels[0], 9, 9, dtype=torch.float64)
    with executed_as(way):
        expected = reference(x, module.weight, module.bias, {**case, "axes": "both", "stride": 1})
        torch.testing.assert_close(module(x), expected)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("way", ["plain", "masked", "grouped-1"])
def test_strided_convolutions_to_a_single_column(way, dtype, memory_format):
    """In which oneDNN leaves numbers as they were in memory."""
    torch.manual_seed(0)
    modules = [
        *(PSConv2d(16, 16, 7, stride, groups, dtype=dtype) for stride in (2, 3) for groups in (1, 4)),
        PyConv2d(2, [6, 6], [3, 7], [2, 2], (1, 3), pattern=[(2, 3, 1, 4), (1, 4, 2)], dtype=dtype),
        PyConv2d(16, [9, 8], [5, 7], [1, 4], 2, dtype=dtype),
    ]
    tolerance = {"atol": 0.1, "rtol": 0.02} if dtype == torch.bfloat16 else {"atol": 1e-4, "rtol": 1e-4}
    for module, width in ((module, width) for module in modules for width in (1, 2)):
        x = torch.randn(2, module.in_channels, 3, width, dtype=dtype).to(memory_format=memory_format)
        found = []
        for each, image in ((module, x), (copy.deepcopy(module).double(), x.double())):
            leaf = image.clone().requires_grad_()
            with executed_as(way):
                out = each(leaf)
            assert out.shape[3] == 1
            found.append([out, *torch.autograd.grad(out.sum(), [leaf, *each.parameters()])])
        for one, exact in zip(*found, strict=True):
            torch.testing.assert_close(one.double(), exact, **tolerance)
