"""Checkpoints in the layouts of the published code, written here with torch's own layers, loaded into our networks."""

from __future__ import annotations

import copy

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from pyconv_search.arch.resnet import resnet
from pyconv_search.errors import UserError
from pyconv_search.models import build
from pyconv_search.models.released import load_released
from pyconv_search.ops import PSConv2d
from pyconv_search.ops.released import ReleasedPSConv2d

STEM = {"kernel": 7, "width": 16, "stride": 2}
NO_POOL = {"stem": {**STEM, "pool": "none"}, "shortcut": "max+conv"}
POOL = {"stem": {**STEM, "pool": "max"}}
TWO = {"blocks": [2, 1]}
DEEP = {**TWO, "block": "bottleneck"}
POLY = {**DEEP, **POOL, "pattern": [1, 2, 1, 4]}


class Parallel(nn.Module):
    """A released pyramid."""

    def __init__(self, levels):
        super().__init__()
        for i, level in enumerate(levels, 1):
            self.add_module(f"conv2_{i}", level)

    def forward(self, x):
        return torch.cat([level(x) for level in self.children()], 1)


class Poly(nn.Module):
    """A released poly-scale layer: three convolutions and a mask on the last, which it starts from and keeps to."""

    def __init__(self, width, stride, groups, parts, dilation, reading):
        super().__init__()
        self.groups, d = groups, dilation
        self.gwconv = nn.Conv2d(width, width, 3, stride, d, d, groups * parts, bias=False)
        self.gwconv_shift = nn.Conv2d(width, width, 3, stride, 2 * d, 2 * d, groups * parts, bias=False)
        self.conv = nn.Conv2d(width, width, 3, stride, 1, 1, groups, bias=False)
        self.parts = parts
        self.erase(reading)

    def erase(self, reading):
        groups, parts = self.groups, self.parts
        n, begin = self.conv.out_channels // groups // parts, groups if reading == "released" else parts
        for j in range(groups):
            for i in range(parts):
                for o in (i, (i + parts // 2) % parts):
                    row = (j * begin + o) * n
                    self.conv.weight.data[row : row + n, i * n : i * n + n] = 0

    def forward(self, x):
        halves = [half for group in x.chunk(self.groups, 1) for half in reversed(group.chunk(2, 1))]
        return self.gwconv(x) + self.conv(x) + self.gwconv_shift(torch.cat(halves, 1))


class Block(nn.Module):
    """A released residual block; ``middle`` makes its spatial convolutions from (width in, stride)."""

    def __init__(self, in_width, width, out, stride, middle, downsample, basic):
        super().__init__()
        self.basic = basic
        self.conv1 = middle(in_width, stride) if self.basic else nn.Conv2d(in_width, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = middle(width, 1 if self.basic else stride)
        self.bn2 = nn.BatchNorm2d(width)
        if not self.basic:
            self.conv3, self.bn3 = nn.Conv2d(width, out, 1, bias=False), nn.BatchNorm2d(out)
        self.downsample = downsample

    def forward(self, x):
        out = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        out = out if self.basic else self.bn3(self.conv3(out.relu()))
        return (out + (x if self.downsample is None else self.downsample(x))).relu()


class Network(nn.Module):
    """A released network of two and one blocks for 3×H×W images and five classes; ``outs`` makes them bottlenecks."""

    def __init__(self, middle, outs=None, pools=False, width=16):
        super().__init__()
        self.conv1, self.bn1, self.pools = nn.Conv2d(3, 16, 7, 2, 3, bias=False), nn.BatchNorm2d(16), pools
        in_width = 16
        for i, count in enumerate([2, 1]):
            inner, stride = width * 2**i, 1 + (i > 0 or pools)
            out = outs[i] if outs else inner
            stage = []
            for j in range(count):
                step = stride if j == 0 else 1
                down = self.shortcut(in_width, out, step)
                stage.append(Block(in_width, inner, out, step, middle(i, inner), down, outs is None))
                in_width = out
            self.add_module(f"layer{i + 1}", nn.Sequential(*stage))
        self.fc = nn.Linear(in_width, 5)

    def shortcut(self, in_width, out, stride):
        parts = [nn.MaxPool2d(3, stride, 1)] if self.pools and stride > 1 else []
        if in_width != out or (stride > 1 and not parts):
            conv = nn.Conv2d(in_width, out, 1, 1 if parts else stride, bias=False)
            return nn.Sequential(*parts, conv, nn.BatchNorm2d(out))
        return parts[0] if parts else None

    def forward(self, x):
        x = self.bn1(self.conv1(x)).relu()
        x = x if self.pools else nn.functional.max_pool2d(x, 3, 2, 1)
        return self.fc(self.layer2(self.layer1(x)).mean((2, 3)))


def plain(_, width):
    return lambda into, stride: nn.Conv2d(into, width, 3, stride, 1, bias=False)


def pyramid(stage, width):
    """Three levels in the first stage, one in the second, which the release then writes as a plain convolution."""
    if stage:
        return plain(stage, width)
    shape = ((width // 4, 3, 1), (width // 4, 5, 4), (width // 2, 7, 8))
    return lambda into, stride: Parallel(
        nn.Conv2d(into, out, k, stride, k // 2, groups=g, bias=False) for out, k, g in shape
    )


def poly(groups=1, parts=4, dilation=2, reading="released"):
    return lambda _, width: lambda into, stride: Poly(into, stride, groups, parts, dilation, reading)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def released(*arguments, **options):
    """A network whose every number is random, and so differs from what a new one has."""
    network = Network(*arguments, **options).double().eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean):
                nn.init.normal_(tensor)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return network


def ours(settings):
    return build(resnet(settings, (3, 40, 36), 5)).double().eval()


def assert_same_outputs(network, model):
    x = torch.randn(2, 3, 40, 36, dtype=torch.float64)
    torch.testing.assert_close(model(x), network(x), atol=1e-10, rtol=1e-10)


def types(model):
    return [type(module) for module in model.modules()]


def assert_refused(model, source, mask=None):
    """The message, after a look at whether the model is as it was."""
    before, kinds = copy.deepcopy(model.state_dict()), types(model)
    with pytest.raises(UserError) as caught:
        load_released(model, source, mask)
    assert types(model) == kinds
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])
    return str(caught.value)


WIDE = (64, 128)
CASES = {
    "basic": ({**TWO, **POOL}, plain, {}),
    "bottleneck": ({**DEEP, **POOL}, plain, {"outs": WIDE}),
    "pyramid": ({**DEEP, **NO_POOL, "levels": [3, 1]}, pyramid, {"outs": WIDE, "pools": True}),
    "pyramid basic": ({**TWO, **NO_POOL, "levels": [3, 1]}, pyramid, {"pools": True}),
    "pool alone": ({**DEEP, **NO_POOL, "stages": [{"out": 16}] * 2}, plain, {"outs": (16, 16), "pools": True}),
    "poly-scale": (POLY, poly(), {"outs": WIDE}),
    "turned": ({**POLY, "pattern": [4, 1, 2, 1]}, poly(), {"outs": WIDE}),
    "dilation 1": ({**POLY, "pattern": [1, 1, 1, 2]}, poly(dilation=1), {"outs": WIDE}),
    "two parts": ({**POLY, "pattern": [3, 6]}, poly(parts=2, dilation=3), {"outs": WIDE}),
    "eight parts": ({**POLY, "pattern": [1, 3, 1, 1, 1, 6, 1, 1]}, poly(parts=8, dilation=3), {"outs": WIDE}),
    "four groups": ({**POLY, "groups": 4}, poly(4), {"outs": WIDE}),
}


@pytest.mark.parametrize("mask", [None, "corrected", "released"])
@pytest.mark.parametrize("case", CASES)
def test_outputs_are_those_of_the_released_network(case, mask):
    settings, middle, options = CASES[case]
    network, model = released(middle, **options), ours(settings)
    kinds = types(model)
    load_released(model, network.state_dict(), mask)
    assert_same_outputs(network, model)
    assert types(model) == kinds


IN_GROUPS = [(2, 16), (3, 24), (8, 32)]


def grouped(groups, width, reading="released"):
    network = released(poly(groups, reading=reading), outs=(64, 128), width=width)
    return network, ours({**POLY, "groups": groups, "width": width, "stages": [{"out": 64}, {"out": 128}]})


@pytest.mark.parametrize(("groups", "width"), IN_GROUPS)
def test_both_readings_of_the_mask_in_groups(groups, width):
    network, model = grouped(groups, width)
    load_released(model, network.state_dict(), "released")
    assert types(model).count(ReleasedPSConv2d) == 3
    assert_same_outputs(network, model)
    network, model = grouped(groups, width)
    load_released(model, network.state_dict(), "corrected")
    assert types(model).count(PSConv2d) == 3
    for module in network.modules():
        if isinstance(module, Poly):
            module.erase("corrected")
    assert_same_outputs(network, model)
    for mask in (None, "corrected"):
        network, model = grouped(groups, width, "corrected")
        load_released(model, network.state_dict(), mask)
        assert_same_outputs(network, model)


def test_a_layer_that_stays_as_released_is_trained_as_released():
    network, model = grouped(2, 16)
    model.train().requires_grad_(False).stages[0][0].conv2.requires_grad_(True)
    load_released(model, network.state_dict(), "released")
    layer, theirs = copy.deepcopy(model.stages[0][0].conv2), network.layer1[0].conv2
    assert layer.training
    assert [p.requires_grad for p in model.stages[0][1].conv2.parameters()] == [False] * 3
    assert layer.state_dict().keys() == theirs.state_dict().keys()
    x = torch.randn(2, 16, 9, 7, dtype=torch.float64)
    for module in (layer, theirs):
        module(x).square().sum().backward()
    torch.testing.assert_close(layer(x[0]), layer(x)[0])
    theirs.conv.weight.data.fill_(1)
    theirs.erase("released")
    never = theirs.conv.weight == 0
    assert never.any()
    assert torch.equal(layer.conv.weight.grad, theirs.conv.weight.grad.masked_fill(never, 0))


def test_files_and_wrappings(tmp_path):
    network = released(plain)
    state = network.state_dict()
    wrapped = {"epoch": 3, "state_dict": {f"module.{name}": tensor for name, tensor in state.items()}}
    torch.save(wrapped, tmp_path / "file.pth.tar")
    save_file(state, tmp_path / "file.safetensors")
    old = {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
    for source in (tmp_path / "file.pth.tar", str(tmp_path / "file.safetensors"), wrapped, old):
        model = ours({**TWO, **POOL})
        load_released(model, source)
        assert_same_outputs(network, model)


def test_files_that_hold_no_checkpoint(tmp_path):
    model = ours({**TWO, **POOL})
    (tmp_path / "text").write_text("no weights")
    (tmp_path / "word").write_text("hello")
    (tmp_path / "text.safetensors").write_text("no weights")
    torch.save({"fc.weight": torch.zeros(1), "args": object.__new__(Parallel)}, tmp_path / "more")
    for name in ("missing", "missing.safetensors"):
        assert assert_refused(model, tmp_path / name) == f"{tmp_path / name}: no such file"
    for name in ("text", "word", "text.safetensors"):
        assert assert_refused(model, tmp_path / name).startswith(f"{tmp_path / name}: cannot be read: ")
    assert assert_refused(model, tmp_path / "more").endswith("if you trust it, save its state_dict by itself")
    for source, found in {"{}": {}, "'epoch' is an integer (3)": {"epoch": 3}}.items():
        assert assert_refused(model, found).startswith("the checkpoint: must hold tensors by name, but ")
        assert source in assert_refused(model, found)


def test_the_checkpoint_of_another_network_is_named_in_full():
    state = released(plain, outs=WIDE).state_dict()
    assert assert_refused(ours(POLY), state).splitlines() == [
        "the checkpoint: a plain ResNet checkpoint, but not of this network; nothing was loaded",
        "  missing: layer1.0.conv2.gwconv.weight (16×4×3×3), layer1.0.conv2.gwconv_shift.weight (16×4×3×3), "
        "layer1.0.conv2.conv.weight (16×16×3×3), layer1.1.conv2.gwconv.weight (16×4×3×3) and 5 more",
        "  not in the network: layer1.0.conv2.weight (16×16×3×3), layer1.1.conv2.weight (16×16×3×3), "
        "layer2.0.conv2.weight (32×32×3×3)",
    ]
    state["fc.weight"] = torch.zeros(7, 128)
    assert assert_refused(ours({**DEEP, **POOL}), state).splitlines()[1:] == [
        "  of another shape: fc.weight is 7×128 and must be 5×128"
    ]
    pyramids = released(pyramid, outs=WIDE, pools=True).state_dict()
    assert "a PyConv checkpoint, but" in assert_refused(ours({**DEEP, **POOL, "levels": [3, 1]}), pyramids)
    assert "a PSConv checkpoint, but" in assert_refused(ours({**DEEP, **POOL}), grouped(2, 16)[0].state_dict())
    assert "of no known layout, but" in assert_refused(ours({**DEEP, **POOL}), ours({**DEEP, **POOL}).state_dict())


def test_a_mask_that_must_be_given_or_does_not_fit():
    network, model = grouped(3, 24)
    state = network.state_dict()
    assert "mask must be one of corrected, released, but got 'relesed'; did" in assert_refused(model, state, "relesed")
    message = assert_refused(model, state)
    layer = network.layer1[0].conv2
    before = torch.count_nonzero(layer.conv.weight[:, :, 0, 0])
    layer.erase("corrected")
    twice = before - torch.count_nonzero(layer.conv.weight[:, :, 0, 0])
    assert message.startswith(f"the checkpoint: layer1.0.conv2.conv.weight holds {twice} kernels in cells that gwconv")
    state = grouped(3, 24, "corrected")[0].state_dict()
    assert "kernels that the released mask covers" in assert_refused(model, state, "released")
    load_released(model, grouped(3, 24)[0].state_dict(), "released")
    assert "build the network anew" in assert_refused(model, grouped(3, 24)[0].state_dict(), "released")


UNLIKE = {
    "not the middle of a bottleneck": {**TWO, **POOL, "pattern": [1, 2, 1, 4]},
    "its kernel is 5×5": {**POLY, "kernels": 5},
    "its axes are 'input'": {**POLY, "axes": "input"},
    r"its pattern is (1, 2, 3, 4), theirs is (1, d, 1, 2·d)": {**POLY, "pattern": [1, 2, 3, 4]},
    r"its pattern is (1, 2, 4), theirs": {**POLY, "pattern": [1, 2, 4]},
    "4 blocks do not divide the 2 and 2 channels": {**POLY, "groups": 8},
}


@pytest.mark.parametrize("reason", UNLIKE)
def test_layers_that_the_released_code_does_not_have(reason):
    message = assert_refused(ours(UNLIKE[reason]), released(poly(), outs=WIDE).state_dict())
    assert "conv2 is like no poly-scale" in message or "conv1 is like no poly-scale" in message
    assert reason in message


@pytest.mark.parametrize(("change", "told"), [("to", "holds no numbers"), ("int", "is of torch.int32")])
def test_tensors_that_are_no_weights(change, told):
    model = ours({**TWO, **POOL})
    weight = torch.zeros(2)
    assert told in assert_refused(model, {"fc.weight": weight.to("meta") if change == "to" else weight.int()})
