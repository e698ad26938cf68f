"""Networks with sorted channels: they compute what the network as built computes, and come back bit for bit."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.utils import prune

import pyconv_search as ps
from pyconv_search.arch.plans.choice import choose
from pyconv_search.arch.plans.operation import class_order
from pyconv_search.arch.resnet import resnet
from pyconv_search.arch.spec import Architecture
from pyconv_search.errors import UserError
from pyconv_search.models.sorting import canonical_state, follow_order, sort_channels, sorted_sides, unsort_channels
from pyconv_search.ops.planning import executed_as, operation_of, setting_of
from pyconv_search.ops.program import program

STEM = {"kernel": 3, "width": 16, "stride": 1, "pool": "none"}
POLY = {"pattern": [1, 2, 1, 4], "stem": STEM}
PRESETS = ["ps-resnet-50", "ps-se-resnet-50", "ps-resnext-50-32x4d", "ps-resnext-29-8x64d"]
FORMS = ("post", "pre", "ires")
SMALL = {
    **{f"basic {form}": {"blocks": [2, 3], "form": form, **POLY} for form in FORMS},
    **{f"bottleneck {form}": {"blocks": [2, 3], "block": "bottleneck", "form": form, **POLY} for form in FORMS},
    **{
        f"basic-pointwise {form}": {"blocks": [2, 2], "block": "basic-pointwise", "form": form, **POLY}
        for form in FORMS
    },
    "groups basic": {"blocks": [1, 2], "groups": 2, **POLY},
    "groups bottleneck": {"blocks": [1, 2], "block": "bottleneck", "groups": 4, "form": "pre", **POLY},
    "pattern of six": {"blocks": [2], "pattern": [1, 2, 1, 4, 1, 2], "stem": {**STEM, "width": 24}},
    "input": {"blocks": [1, 2], "block": "bottleneck", "axes": "input", **POLY},
    "output": {"blocks": [1, 2], "axes": "output", **POLY},
    "attention": {"blocks": [1, 2], "block": "bottleneck", "se": 4, **POLY},
    "some": {"blocks": [1, 1], "block": "bottleneck", "stages": [{"pattern": [1, 3]}, {"levels": 2}], "stem": STEM},
}
UNSORTABLE = {
    "no pattern": {"blocks": [1, 1], "stem": STEM},
    "dilated": {"blocks": [1, 1], "pattern": 2, "stem": STEM},
    "length that does not divide": {"blocks": [1, 1], "block": "bottleneck", "pattern": [1, 2, 3], "stem": STEM},
    "depthwise": {"blocks": [1], "block": "bottleneck", "groups": 16, **POLY},
    "pyramid": {"blocks": [1, 1], "block": "bottleneck", "levels": 2, "pattern": [[1], [1, 2]], "stem": STEM},
}


def small(name: str) -> Architecture:
    return resnet({**SMALL, **UNSORTABLE}[name], (3, 16, 16), 5)


def architecture(name: str) -> Architecture:
    """A small network, or a preset with one block in each stage."""
    if name in SMALL:
        return small(name)
    arch = ps.preset(name)
    return replace(arch, stages=tuple(replace(stage, blocks=1) for stage in arch.stages))


def network(arch: Architecture, seed: int = 0) -> nn.Module:
    """In float64, with random weights, biases and running statistics everywhere."""
    torch.manual_seed(seed)
    model = ps.build(arch).double()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 1.5)
    return model.eval()


def images(arch: Architecture, side: int = 32, count: int = 4) -> Tensor:
    side = min(side, arch.input[1])
    return torch.randn(count, 3, side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def both(name: str) -> tuple[nn.Module, nn.Module]:
    """The network as built, and a sorted copy."""
    expected = network(architecture(name))
    found = deepcopy(expected)
    assert sort_channels(found)
    return expected, found


def assert_close(found: Tensor, expected: Tensor, tolerance: float = 1e-12, scale: float = 0.0) -> None:
    assert (found - expected).abs().max() <= tolerance * max(scale, expected.abs().max().item())


def assert_same_gradients(found: nn.Module, expected: nn.Module) -> None:
    """Relative to the largest one, since that of a shift in front of a normalisation is zero but for rounding."""
    own = dict(found.named_parameters())
    scale = max(parameter.grad.abs().max().item() for parameter in expected.parameters())
    for key, parameter in expected.named_parameters():
        assert_close(own[key].grad, parameter.grad, 1e-12, scale)


def backward(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """The output and the gradient of the input; those of the parameters are in place."""
    x = x.clone().requires_grad_()
    out = model(x)
    weights = torch.randn(out.shape, dtype=out.dtype, generator=torch.Generator().manual_seed(2))
    (out * weights).sum().backward()
    assert x.grad is not None
    return out.detach(), x.grad


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", [*PRESETS[:3], pytest.param(PRESETS[3], marks=pytest.mark.slow), *SMALL])
def test_outputs_gradients_and_statistics_are_those_of_the_network_as_built(name: str, training: bool):
    expected, found = both(name)
    x = images(architecture(name))
    out, grad = backward(expected.train(training), x)
    sorted_out, sorted_grad = backward(found.train(training), x)
    assert_close(sorted_out, out)
    assert_close(sorted_grad, grad)
    unsort_channels(found)
    assert_same_gradients(found, expected)
    buffers = dict(found.named_buffers())
    assert buffers.keys() == dict(expected.named_buffers()).keys()
    for key, buffer in expected.named_buffers():
        assert_close(buffers[key].double(), buffer.double())


@pytest.mark.parametrize("way", ["split", "per-class", "masked"])
@pytest.mark.parametrize("name", ["basic post", "bottleneck pre", "groups bottleneck"])
def test_whichever_way_it_is_executed(name: str, way: str):
    expected, found = both(name)
    with executed_as("masked"):
        out, grad = backward(expected, images(architecture(name)))
    with executed_as(way):
        sorted_out, sorted_grad = backward(found, images(architecture(name)))
    assert_close(sorted_out, out)
    assert_close(sorted_grad, grad)


@pytest.mark.parametrize("name", [*PRESETS, *SMALL])
def test_comes_back_bit_for_bit(name: str):
    expected, found = both(name)
    parameters = list(found.parameters())
    turned = sorted_sides(found)
    moved = [key for key, tensor in expected.state_dict().items() if not torch.equal(found.state_dict()[key], tensor)]
    assert moved
    assert sorted(unsort_channels(found)) == sorted(turned)
    assert sorted_sides(found) == []
    assert all(a is b for a, b in zip(found.parameters(), parameters, strict=True))
    state = found.state_dict()
    assert list(state) == list(expected.state_dict())
    assert all(torch.equal(state[key], tensor) for key, tensor in expected.state_dict().items())
    assert unsort_channels(found) == []


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("bottleneck post", ["conv2.sorted_in", "conv2.sorted_out"]),
        ("bottleneck ires", ["conv2.sorted_in", "conv2.sorted_out"]),
        ("groups bottleneck", ["conv2.sorted_in", "conv2.sorted_out"]),
        ("basic post", ["conv1.sorted_out", "conv2.sorted_in"]),
        ("basic pre", ["conv1.sorted_out", "conv2.sorted_in"]),
        ("groups basic", ["conv1.sorted_out", "conv2.sorted_in"]),
        ("basic-pointwise post", ["conv1.sorted_out"]),
        *[(name, []) for name in UNSORTABLE],
    ],
)
def test_the_sides_that_are_sorted(name: str, expected: list[str]):
    model = network(small(name))
    blocks = [f"stages.{i}.{j}" for i, stage in enumerate(small(name).stages) for j in range(stage.blocks)]
    state = deepcopy(model.state_dict())
    assert sort_channels(model) == [f"{block}.{side}" for block in blocks for side in expected]
    assert sorted_sides(model) == [f"{block}.{side}" for block in blocks for side in expected]
    if not expected:
        assert list(model.state_dict()) == list(state)
        assert all(torch.equal(tensor, state[key]) for key, tensor in model.state_dict().items())


def test_a_second_time_changes_nothing():
    _, found = both("bottleneck post")
    state = deepcopy(found.state_dict())
    assert sort_channels(found) == []
    assert all(torch.equal(tensor, state[key]) for key, tensor in found.state_dict().items())


def test_what_is_left_to_sort_is_sorted():
    expected, found = both("bottleneck post")
    block = found.stages[0][0]
    unsort_channels(block)
    assert not block.conv2.sorted_in
    assert sort_channels(found) == ["stages.0.0.conv2.sorted_in", "stages.0.0.conv2.sorted_out"]
    x = images(small("bottleneck post"))
    assert_close(found(x), expected(x))


def test_nothing_is_gathered():
    expected, found = both("bottleneck post")
    counts = [
        [gathers(module) for module in model.modules() if isinstance(module, ps.PSConv2d)]
        for model in (expected, found)
    ]
    assert min(counts[0]) > 0
    assert max(counts[1]) == 0


def gathers(conv: nn.Module) -> int:
    """How often the split of a convolution takes or puts channels that do not stand side by side."""
    operation = operation_of(conv.signature)
    found = program(operation, choose(operation, setting_of(conv.weight), forced="split").plan)
    slices = [part for step in found.steps for channels in (step.source, step.target) for part in channels.slices]
    slices += [run.whole for sums in (found.output, found.input) for run in sums.runs]
    taken = [channels for step in found.steps for channels in (step.source, step.target)]
    indexed = sum(channels.order is not None and not channels.slices for channels in taken)
    return indexed + sum(part.step != 1 for part in slices)


def test_gradients_that_are_there_are_sorted_along():
    expected, found = both("basic post")
    unsort_channels(found)
    backward(expected, images(small("basic post")))
    backward(found, images(small("basic post")))
    assert sort_channels(found)
    plain, turned = expected.stages[0][0], found.stages[0][0]
    order = [0, 4, 8, 12, 2, 6, 10, 14, 1, 5, 9, 13, 3, 7, 11, 15]
    assert torch.equal(turned.conv1.weight.grad, plain.conv1.weight.grad[order])
    assert torch.equal(turned.norm1.bias.grad, plain.norm1.bias.grad[order])
    assert torch.equal(turned.conv2.weight.grad, plain.conv2.weight.grad[:, order])


@pytest.mark.parametrize("name", ["basic post", "bottleneck pre", "basic ires", "groups bottleneck"])
def test_steps_of_an_optimizer_are_those_of_the_network_as_built(name: str):
    expected, found = both(name)
    x = images(small(name))
    for model in (expected.train(), found.train()):
        optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, nesterov=True, weight_decay=1e-3)
        for i in range(4):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x + i), torch.arange(4)).backward()
            optimizer.step()
    unsort_channels(found)
    for key, tensor in expected.state_dict().items():
        assert_close(found.state_dict()[key].double(), tensor.double(), 1e-10)


def test_biases_and_layers_without_normalisation():
    expected = network(small("bottleneck post"))
    for module in [*expected.modules()]:
        if isinstance(module, nn.Conv2d):
            module.bias = nn.Parameter(torch.randn(module.out_channels, dtype=torch.float64))
    expected.stages[0][0].norm1 = nn.Identity()
    expected.stages[0][0].norm2 = nn.BatchNorm2d(16, affine=False, track_running_stats=False, dtype=torch.float64)
    found = deepcopy(expected)
    assert len(sort_channels(found)) == 10
    x = images(small("bottleneck post"))
    assert_close(found(x), expected(x))
    unsort_channels(found)
    assert all(torch.equal(tensor, expected.state_dict()[key]) for key, tensor in found.state_dict().items())


@torch.no_grad()
def pruned(layer: nn.Module, name: str = "weight") -> nn.Module:
    """A layer that makes the tensor of this name anew at every step, from another one."""
    return prune.random_unstructured(layer, name, 0.5)


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("norm2", nn.GroupNorm(4, 16)),
        ("act2", nn.PReLU(16)),
        ("conv1", nn.Conv2d(64, 16, 1, groups=2)),
        ("conv1", ps.PSConv2d(64, 16, pattern=(1, 2))),
        ("conv1", ps.PSConv2d(64, 16, groups=2)),
        ("conv1", ps.PyConv2d(64, [8, 8], [3, 5])),
        ("conv1", nn.utils.parametrizations.weight_norm(nn.Conv2d(64, 16, 1))),
        ("conv1", pruned(nn.Conv2d(64, 16, 1))),
        ("conv1", pruned(nn.Conv2d(64, 16, 1), "bias")),
        ("norm2", pruned(nn.BatchNorm2d(16))),
    ],
)
def test_a_neighbour_that_cannot_have_the_order_leaves_the_side(name: str, layer: nn.Module):
    expected = network(small("bottleneck pre"))
    expected.stages[0][1].add_module(name, layer.double())
    found = deepcopy(expected)
    turned = sort_channels(found)
    assert "stages.0.1.conv2.sorted_out" in turned
    assert "stages.0.1.conv2.sorted_in" not in turned
    assert not found.stages[0][1].conv2.sorted_in
    x = images(small("bottleneck pre"))
    assert_close(found(x), expected(x))


@pytest.mark.parametrize("conv1", [ps.PSConv2d(64, 16, 1), ps.PSConv2d(64, 16, 3, pattern=(2, 2))])
def test_a_neighbour_of_one_dilation_is_a_standard_one(conv1: nn.Module):
    expected = network(small("bottleneck pre"))
    expected.stages[0][1].conv1 = conv1.double()
    found = deepcopy(expected)
    assert "stages.0.1.conv2.sorted_in" in sort_channels(found)
    x = images(small("bottleneck pre"))
    assert_close(found(x), expected(x))


def test_networks_of_others_stay_as_they_are():
    model = nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), ps.PSConv2d(8, 8), nn.Conv2d(8, 8, 1))
    assert sort_channels(model) == []
    model[2].sorted_in = True
    with pytest.raises(UserError, match=r"^2\.sorted_in: must be False to unsort this model, but got True"):
        unsort_channels(model)


def test_a_tensor_that_one_side_alone_calls_sorted_is_left_alone():
    model = network(small("basic post"))
    model.stages[0][0].conv1.sorted_out = True
    state = deepcopy(model.state_dict())
    assert not [name for name in sort_channels(model) if name.startswith("stages.0.0.")]
    with pytest.raises(UserError, match=r"^stages\.0\.0\.conv1\.sorted_out: must be False"):
        unsort_channels(model)
    assert all(torch.equal(model.state_dict()[key], state[key]) for key in state if key.startswith("stages.0.0."))


def test_what_can_no_longer_be_unsorted_is_told_and_nothing_changed():
    _, found = both("bottleneck post")
    found.stages[1][0].norm1 = nn.GroupNorm(4, 32)
    state = deepcopy(found.state_dict())
    with pytest.raises(UserError, match=r"stages\.1\.0\.conv2\.sorted_in: must be False"):
        unsort_channels(found)
    assert all(torch.equal(tensor, state[key]) for key, tensor in found.state_dict().items())


def test_a_flag_needs_a_pattern_that_divides():
    conv = ps.PSConv2d(8, 6)
    with pytest.raises(UserError, match=r"sorted_out must be False here, but got True: .* on 6 channels in 1 groups"):
        conv.sorted_out = True
    conv.sorted_in = True
    assert (conv.sorted_in, conv.sorted_out) == (True, False)
    conv.sorted_in = False
    assert list(conv.state_dict()) == list(nn.Conv2d(8, 6, 3).state_dict())


def test_the_state_of_a_sorted_network_says_so():
    expected, found = both("bottleneck post")
    more = set(found.state_dict()) - set(expected.state_dict())
    assert len(more) == 10
    assert {key.rpartition(".")[2] for key in more} == {"order_in", "order_out"}
    assert {tuple(found.state_dict()[key].tolist()) for key in more} == {class_order((1, 2, 1, 4))} == {(0, 2, 1, 3)}


@pytest.mark.parametrize("name", ["bottleneck post", "basic pre", "basic-pointwise ires"])
@pytest.mark.parametrize("strict", [True, False])
def test_a_state_of_the_other_order_is_refused(name: str, strict: bool):
    expected, found = both(name)
    first = sorted_sides(found)[0].rpartition(".")[0]
    with pytest.raises(
        RuntimeError, match=rf"{first}: channels are sorted in the state dict .* sort_channels\(model\)"
    ):
        expected.load_state_dict(found.state_dict(), strict=strict)
    with pytest.raises(RuntimeError, match=rf"{first}: .* not in the state dict; unsort_channels\(model\)") as raised:
        found.load_state_dict(expected.state_dict(), strict=strict)
    assert str(raised.value).count("unsort_channels") == 1


@pytest.mark.parametrize("strict", [True, False])
def test_a_state_of_the_same_order_is_loaded(strict: bool):
    _, found = both("bottleneck post")
    other = network(small("bottleneck post"), seed=7)
    sort_channels(other)
    other.load_state_dict(found.state_dict(), strict=strict)
    x = images(small("bottleneck post"))
    assert torch.equal(other(x), found(x))
    sort_channels(head := network(small("bottleneck post"), seed=8))
    head.load_state_dict({key: tensor for key, tensor in found.state_dict().items() if "head" in key}, strict=False)
    assert torch.equal(head.head.weight, found.head.weight)


def test_states_sorted_on_one_side_or_for_another_pattern_are_refused():
    conv, other = ps.PSConv2d(8, 8), ps.PSConv2d(8, 8, pattern=(1, 2, 3, 4))
    conv.sorted_in = other.sorted_in = True
    with pytest.raises(RuntimeError, match=r"the model itself: order_in must be \[0, 2, 1, 3\] .* got \[0, 1, 2, 3\]"):
        conv.load_state_dict(other.state_dict())
    conv.sorted_out, weight = True, conv.weight.clone()
    with pytest.raises(RuntimeError, match="sorted in the model but not in the state dict"):
        conv.load_state_dict(ps.PSConv2d(8, 8).state_dict() | {"order_in": torch.tensor([0, 2, 1, 3])}, strict=False)
    assert torch.equal(conv.weight, weight)


def test_a_standard_convolution_does_not_take_a_sorted_state():
    conv = ps.PSConv2d(8, 8)
    conv.sorted_in = True
    with pytest.raises(RuntimeError, match="Unexpected key"):
        nn.Conv2d(8, 8, 3).load_state_dict(conv.state_dict())


def test_follow_order_makes_the_state_fit():
    expected, found = both("bottleneck post")
    x, states = images(small("bottleneck post")), [deepcopy(m.state_dict()) for m in (expected, found)]
    model = network(small("bottleneck post"), seed=3)
    for state in (states[1], states[0], states[1]):
        follow_order(model, state)
        model.load_state_dict(state)
        assert_close(model(x), expected(x))


def test_the_canonical_state_is_that_of_the_network_as_built():
    expected, found = both("basic post")
    before = deepcopy(found.state_dict())
    state = canonical_state(found)
    assert list(state) == list(expected.state_dict())
    assert all(torch.equal(state[key], tensor) for key, tensor in expected.state_dict().items())
    assert all(torch.equal(tensor, before[key]) for key, tensor in found.state_dict().items())


def test_convert_and_load_released_want_the_network_as_built():
    _, found = both("bottleneck post")
    with pytest.raises(UserError, match=r"sorted; unsort_channels\(model\) first"):
        ps.convert(found)
    with pytest.raises(UserError, match=r"sorted; unsort_channels\(model\) first"):
        ps.load_released(found, {"a": torch.zeros(1)})


def test_converted_networks_are_sorted_too():
    torch.manual_seed(0)
    expected = ps.build(resnet({"blocks": [1, 1], "block": "bottleneck", "stem": STEM}, (3, 16, 16), 5)).double().eval()
    assert ps.convert(expected, where=lambda name, conv: name.endswith("conv2"))
    found = deepcopy(expected)
    assert len(sort_channels(found)) == 4
    x = images(small("bottleneck post"))
    assert_close(found(x), expected(x))
    unsort_channels(found)
    assert all(torch.equal(tensor, expected.state_dict()[key]) for key, tensor in found.state_dict().items())


def test_channels_last_stays():
    model = ps.build(small("bottleneck post")).to(memory_format=torch.channels_last)
    strides = [parameter.stride() for parameter in model.parameters()]
    sort_channels(model)
    assert [parameter.stride() for parameter in model.parameters()] == strides


def through_deepcopy(model: nn.Module, folder: Path) -> nn.Module:
    return deepcopy(model)


def through_pickle(model: nn.Module, folder: Path) -> nn.Module:
    return pickle.loads(pickle.dumps(model))


def through_a_file(model: nn.Module, folder: Path) -> nn.Module:
    safetensors.torch.save_file(model.state_dict(), folder / "state")
    other = network(small("bottleneck post"), seed=9)
    sort_channels(other)
    other.load_state_dict(safetensors.torch.load_file(folder / "state"))
    return other


def through_meta(model: nn.Module, folder: Path) -> nn.Module:
    with torch.device("meta"):
        other = ps.build(small("bottleneck post")).double().eval()
        assert len(sort_channels(other)) == 10
    other.to_empty(device="cpu").load_state_dict(model.state_dict())
    return other


def through_a_cast(model: nn.Module, folder: Path) -> nn.Module:
    cast = deepcopy(model).to("cpu", torch.bfloat16)
    assert cast.stages[0][0].conv2.order_in.dtype == torch.int64
    cast.to(torch.float64).load_state_dict(model.state_dict())
    return cast


def exported(model: nn.Module, folder: Path) -> nn.Module:
    return torch.export.export(model, (images(small("bottleneck post")),)).module()


def compiled(model: nn.Module, folder: Path) -> nn.Module:
    torch.compiler.reset()
    return torch.compile(model, backend="aot_eager", fullgraph=True)


def averaged(model: nn.Module, folder: Path) -> nn.Module:
    average = torch.optim.swa_utils.AveragedModel(model, use_buffers=True)
    average.update_parameters(model)
    average.update_parameters(model)
    state = average.state_dict()
    assert {tuple(state[key].tolist()) for key in state if key.endswith("order_in")} == {(0, 2, 1, 3)}
    return average


@pytest.mark.parametrize(
    "way",
    [
        through_deepcopy,
        through_pickle,
        through_a_file,
        through_meta,
        through_a_cast,
        exported,
        compiled,
        averaged,
    ],
    ids=["deepcopy", "pickle", "safetensors", "meta", "cast", "export", "compile", "average"],
)
def test_what_happens_to_models_may_happen_to_sorted_ones(way: Callable[[nn.Module, Path], nn.Module], tmp_path: Path):
    expected, found = both("bottleneck post")
    x = images(small("bottleneck post"))
    with torch.no_grad():
        assert_close(way(found, tmp_path)(x), expected(x))


@pytest.mark.slow
def test_a_compiled_network_follows():
    expected, found = both("bottleneck post")
    x = images(small("bottleneck post"))
    torch.compiler.reset()
    fast = torch.compile(found, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        for change in (lambda model: [], unsort_channels, sort_channels):
            change(found)
            assert_close(fast(x), expected(x))


@pytest.fixture
def alone() -> Iterator[None]:
    """A process group of one."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("alone")
def test_distributed_training_takes_it(tmp_path: Path):
    expected, found = both("basic post")
    x = images(small("basic post"))
    parallel: Any = nn.parallel.DistributedDataParallel(found.train())
    for _ in range(2):
        assert_close(backward(parallel, x)[0], backward(expected.train(), x)[0])
    assert len(unsort_channels(parallel)) == 10
    assert_same_gradients(parallel.module, expected)


@pytest.mark.parametrize("change", ["tied weights", "a hook on the normalisation"])
def test_layers_that_others_reach_are_left_alone(change):
    _, model = both("bottleneck post")
    unsort_channels(model)
    first, second = model.stages[0][0], model.stages[0][1]
    if change == "tied weights":
        second.conv2.weight = first.conv2.weight
    else:
        first.norm1.register_forward_hook(lambda module, inputs, out: out * torch.arange(out.shape[1])[:, None, None])
    model.eval()
    x = images(small("bottleneck post"))
    before = model(x)
    assert not any(name.startswith("stages.0.0") and name.endswith("in") for name in sort_channels(model))
    torch.testing.assert_close(model(x), before, rtol=1e-12, atol=1e-12)
