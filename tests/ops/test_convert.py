"""Standard convolutions turned into poly-scale ones inside a network of the user's."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from pyconv_search.arch.resnet import resnet
from pyconv_search.errors import UserError
from pyconv_search.models import build
from pyconv_search.ops import PSConv2d
from pyconv_search.ops.convert import convert


def network(**tensors) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 7, 2, 3, **tensors),
        nn.BatchNorm2d(8, **tensors),
        nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1, groups=2, bias=False, **tensors), nn.Conv2d(8, 8, 1, **tensors)),
        nn.Conv2d(8, 8, 3, 2, 1, **tensors),
        nn.Conv2d(8, 8, 3, padding="same", **tensors),
        nn.Conv2d(8, 8, 3, padding=2, dilation=2, **tensors),
        nn.Conv2d(8, 8, 2, **tensors),
        nn.Conv2d(8, 8, (3, 5), padding=(1, 2), **tensors),
        nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect", **tensors),
        nn.ConvTranspose2d(8, 8, 3, padding=1, **tensors),
        PSConv2d(8, 8, pattern=(1, 3), **tensors),
    )


def test_what_is_turned_and_what_it_computes(reference):
    model = network(dtype=torch.float64).eval()
    model[3].weight.requires_grad_(False)
    before, inputs = copy.deepcopy(model), {}
    names = ["0", "2.0", "3", "4"]
    assert convert(model, (1, 2, 4), "input") == names[1:]
    assert convert(model, (1, 2, 4), "input", lambda name, conv: conv.kernel_size == (7, 7)) == names[:1]
    assert model[10].pattern == (1, 3)
    assert {name for name, m in model.named_modules() if type(m) is PSConv2d} == {*names, "10"}
    for name in names:
        model.get_submodule(name).register_forward_pre_hook(lambda m, args, name=name: inputs.update({name: args[0]}))
        model.get_submodule(name).register_forward_hook(lambda m, _, out, name=name: inputs.update({name + "→": out}))
    model(torch.randn(2, 3, 33, 30, dtype=torch.float64))
    for name in names:
        conv = before.get_submodule(name)
        case = {key: getattr(conv, key) for key in ("in_channels", "out_channels", "groups", "stride")}
        expected = reference(inputs[name], conv.weight, conv.bias, {**case, "pattern": (1, 2, 4), "axes": "input"})
        torch.testing.assert_close(inputs[name + "→"], expected, atol=1e-12, rtol=1e-12)
    assert all(not m.training for m in model.modules())
    assert [n for n, p in model.named_parameters() if not p.requires_grad] == ["3.weight"]
    before.load_state_dict(model.state_dict())


def test_a_pattern_of_ones_changes_nothing_and_copies_survive():
    model, x = network(), torch.randn(1, 3, 40, 40)
    expected = model(x)
    convert(model, (1,))
    torch.testing.assert_close(model(x), expected)
    torch.testing.assert_close(copy.deepcopy(model)(x), expected)


def test_an_optimizer_goes_on_and_a_shared_module_is_turned_once():
    shared = nn.Conv2d(8, 8, 3, padding=1)
    model = nn.ModuleDict({"a": shared, "b": nn.Sequential(shared)})
    calls = []
    shared.register_forward_hook(lambda *_: calls.append(1))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    before = shared.weight.clone()
    assert convert(model) == ["a"]
    assert convert(model) == []
    assert model["b"][0] is model["a"]
    model["b"](torch.randn(1, 8, 9, 9)).sum().backward()
    optimizer.step()
    assert calls
    assert not torch.equal(model["a"].weight, before)


@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_device_dtype_and_a_convolution_by_itself(device):
    conv = nn.Conv2d(8, 4, 3, padding=1, bias=False, device=device, dtype=torch.bfloat16)
    weight = conv.weight
    assert convert(conv) == [""]
    assert conv.weight is weight
    assert repr(conv) == "PSConv2d(8, 4, kernel_size=(3, 3), stride=(1, 1), bias=False, pattern=(1, 2, 1, 4))"
    assert conv(torch.zeros(1, 8, 5, 5, device=device, dtype=torch.bfloat16)).shape == (1, 4, 5, 5)


def test_the_users_choice():
    model = network()
    assert convert(model, where=lambda name, conv: conv.kernel_size in {(3, 5), (1, 1)} and name != "0") == ["2.1", "7"]


WRONG = {
    "5": "5: cannot become a PSConv2d: dilation must be (1, 1), since the pattern says it, but got (2, 2)",
    "6": "6: cannot become a PSConv2d: kernel_size must be odd, but got (2, 2); nearest: 1, 3",
    "8": "8: cannot become a PSConv2d: padding_mode must be 'zeros', but got 'reflect'",
    "11": "11: cannot become a PSConv2d: padding must be (1, 1), half the kernel, but got (0, 0)",
    "12": "12: cannot become a PSConv2d: it is a Own, whose own computation would be lost; only nn.Conv2d itself can",
}


class Own(nn.Conv2d):
    """A convolution that may compute something else."""


@pytest.mark.parametrize("picked", [[name] for name in WRONG] + [list(WRONG)], ids="+".join)
def test_what_cannot_be_turned_is_named_and_nothing_changes(picked):
    model = network().extend([nn.Conv2d(8, 8, 3), Own(8, 8, 3, padding=1)])
    with pytest.raises(UserError) as caught:
        convert(model, where=lambda name, _: name in {*picked, "3"})
    assert str(caught.value).splitlines() == [WRONG[name] for name in picked]
    assert type(model[3]) is nn.Conv2d


def test_a_wrong_pattern_is_refused_even_where_nothing_is_picked():
    with pytest.raises(UserError, match="pattern must hold dilations of 1 or more"):
        convert(nn.Linear(1, 1), (0, 1))


def test_a_resnet_becomes_the_poly_scale_network_of_the_paper():
    settings = {"blocks": [1, 2], "block": "bottleneck", "stem": {"width": 16}}
    standard = build(resnet(settings, (3, 64, 64), 5)).eval()
    poly = build(resnet({**settings, "pattern": [1, 2, 1, 4]}, (3, 64, 64), 5)).eval()
    poly.load_state_dict(standard.state_dict())
    assert convert(standard) == ["stages.0.0.conv2", "stages.1.0.conv2", "stages.1.1.conv2"]
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(standard(x), poly(x))
