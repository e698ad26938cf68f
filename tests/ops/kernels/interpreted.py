"""The Triton kernels against the reference, in Triton's interpreter or on a GPU; test_kernels.py runs this file.

Tolerances: products are summed in float32 in every dtype, so a result is off by its own rounding (relative, the unit
roundoff of its dtype) and by float32's along the sum (absolute: 2⁻²⁴ times √1000 terms times a sum of 30, 6e-5, for the
longest of these unit normal sums). Inputs are rounded before the reference sees them. The interpreter cuts bfloat16 off
where a GPU rounds it: twice the roundoff.
"""

from __future__ import annotations

import os

import pytest
import torch
from examples import EXAMPLES, FOUR, Example, Part, reference
from torch.autograd import forward_ad
from torch.utils.flop_counter import FlopCounterMode

from pyconv_search.errors import UserError
from pyconv_search.ops import PSConv2d, PyConv2d, executed_as, plan
from pyconv_search.ops.kernels import choice, executed_macs, launch, multi_scale_conv2d, operators
from pyconv_search.ops.kernels.level import Level, encode
from pyconv_search.ops.kernels.plan import Tile

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
ROUNDOFF = {torch.float32: 2**-24, torch.float16: 2**-11, torch.bfloat16: 2**-7 if INTERPRETED else 2**-8}


@pytest.fixture(autouse=True)
def exact_products():
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


def near(found, expected, dtype):
    expected = expected.to(found.device)
    torch.testing.assert_close(found.double(), expected, rtol=ROUNDOFF[dtype], atol=6e-5)


def check(example):
    """Values and all gradients are the reference's."""
    x, weights, bias = example.draw(DEVICE)
    inputs = [x, *weights] + [bias] * example.bias
    exact = [t.detach().double().cpu().requires_grad_() for t in inputs]
    expected = reference(exact[0], exact[1 : len(weights) + 1], exact[-1] if example.bias else None, example)
    out = multi_scale_conv2d(x, weights, example.levels, example.stride, bias)
    assert out.dtype == x.dtype
    assert out.is_contiguous(memory_format=torch.channels_last)
    near(out, expected, example.dtype)
    direction = torch.randn_like(out, memory_format=torch.contiguous_format)
    found = torch.autograd.grad(out, inputs, direction)
    wanted = torch.autograd.grad(expected, exact, direction.double().cpu())
    # torch's own sum gives the gradient by the bias.
    for ours, theirs in list(zip(found, wanted, strict=True))[: len(inputs) - example.bias]:
        near(ours, theirs, example.dtype)
    if example.bias:
        torch.testing.assert_close(found[-1], direction.sum((0, 2, 3)))


@pytest.mark.parametrize("name", EXAMPLES)
def test_values_and_gradients_are_the_references(name):
    check(EXAMPLES[name])


TILES = [
    Tile((1, 1), 16, 1, 16, "class", "class"),
    Tile((1, 1), 16, 1, 16, "strided", "strided"),
    Tile((1, 2), 16, 2, 8, "strided", "class"),
    Tile((2, 2), 4, 4, 4, "class", "strided"),
    Tile((4, 4), 2, 2, 16, "whole", "whole"),
    Tile((1, 1), 32, 1, 32, "class", "whole"),
]


@pytest.mark.parametrize("tile", TILES[:4], ids=str)
@pytest.mark.parametrize("order", [None, (1, 0)], ids=["interleaved", "sorted"])
def test_every_tile_gives_the_same(tile, order, monkeypatch):
    monkeypatch.setattr(launch, "choose", lambda *_: tile)
    check(Example(4, (Part(6, (3, 3), 1, (1, 2), "both", order, order),), (2, 1), (5, 6), batch=1))


@pytest.mark.parametrize("tile", TILES[3:], ids=str)
def test_every_tile_gives_the_same_pyramid(tile, monkeypatch):
    monkeypatch.setattr(launch, "choose", lambda *_: tile)
    check(Example(8, (Part(4), Part(4, (5, 5), 4)), size=(5, 6), batch=1))


def test_transposed_factors_give_the_same(monkeypatch):
    monkeypatch.setattr(
        launch, "configs", lambda kernel: [launch.config(64, 4, 2, **{"SWAP": True} if kernel == "convolve" else {})]
    )
    monkeypatch.setattr(launch, "tuned", launch.tuned.__wrapped__)
    check(Example(16, (Part(64, pattern=FOUR),), size=(4, 4), dtype=torch.bfloat16))


def test_offsets_of_64_bits_give_the_same(monkeypatch):
    monkeypatch.setattr(launch, "NARROW", 0)
    check(EXAMPLES["sorted in, stride"])


def test_two_runs_are_equal_to_the_bit():
    example = Example(8, (Part(8, pattern=FOUR),), size=(16, 16), batch=4)
    x, weights, _ = example.draw(DEVICE)
    direction = torch.randn(4, 8, 16, 16, device=DEVICE)
    runs = []
    for _ in range(2):
        out = multi_scale_conv2d(x, weights, example.levels)
        runs.append([out, *torch.autograd.grad(out, [x, *weights], direction)])
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


def test_second_derivatives_are_the_references():
    example = EXAMPLES["pyramid of patterns"]
    x, weights, _ = example.draw(DEVICE)
    exact = [t.detach().double().cpu().requires_grad_() for t in (x, *weights)]

    def second(out, inputs):
        first = torch.autograd.grad(out.square().sum(), inputs, create_graph=True)
        return torch.autograd.grad(sum(g.square().sum() for g in first), inputs)

    found = second(multi_scale_conv2d(x, weights, example.levels), [x, *weights])
    expected = second(reference(exact[0], exact[1:], None, example), exact)
    for ours, theirs in zip(found, expected, strict=True):
        # Three convolutions in float32 one after the other, of values up to 10⁶.
        torch.testing.assert_close(ours.double().cpu(), theirs, rtol=1e-4, atol=1e-5 * float(theirs.abs().max()))


def test_shapes_alone_pass_anywhere():
    example = EXAMPLES["psconv"]
    x, weights, _ = example.draw()
    out = multi_scale_conv2d(x.to("meta"), [weight.to("meta") for weight in weights], example.levels)
    assert out.shape == x.shape
    assert out.device.type == "meta"


def test_an_empty_batch_has_empty_results():
    x, weights, _ = EXAMPLES["psconv"].draw(DEVICE)
    empty = x[:0].detach().requires_grad_()
    out = multi_scale_conv2d(empty, weights, EXAMPLES["psconv"].levels)
    assert out.shape == (0, 8, 6, 5)
    by_x, by_weight = torch.autograd.grad(out.sum(), [empty, weights[0]])
    assert by_x.shape == empty.shape
    assert not by_weight.any()


def test_autocast_computes_in_its_dtype():
    example = EXAMPLES["psconv with bias"]
    x, weights, bias = example.draw(DEVICE)
    with torch.autocast(DEVICE, torch.bfloat16):
        out = multi_scale_conv2d(x, weights, example.levels, bias=bias)
    half = [t.detach().bfloat16() for t in (x, *weights, bias)]
    assert torch.equal(out, multi_scale_conv2d(half[0], half[1:-1], example.levels, bias=half[-1]))
    out.float().sum().backward()
    assert {t.grad.dtype for t in (x, *weights, bias)} == {torch.float32}


def test_flops_are_those_of_the_convolutions():
    # torch counts the gradient by the weights of grouped convolutions as if they were not.
    example = Example(8, (Part(4), Part(4, (5, 5))), (2, 2))
    x, weights, _ = example.draw(DEVICE)

    def flops(run):
        with FlopCounterMode(display=False) as counter:
            run().sum().backward()
        return counter.get_total_flops()

    def plain():
        return torch.cat([torch.nn.functional.conv2d(x, w, None, 2, w.shape[2] // 2) for w in weights], 1)

    assert flops(lambda: multi_scale_conv2d(x, weights, example.levels, 2)) == flops(plain) > 0


def test_operators_are_well_formed():
    example = EXAMPLES["pyconv2"]
    x, weights, _ = example.draw(DEVICE)
    flat = torch.cat([w.detach().reshape(-1) for w in weights]).requires_grad_()
    text, stride, bias = encode(example.levels), [2, 2], torch.randn(8, device=DEVICE, requires_grad=True)
    grad = torch.randn(2, 8, 3, 3, device=DEVICE, requires_grad=True)
    checks = ["test_schema", "test_autograd_registration", "test_faketensor"]
    for operator, args in [
        (operators.conv, (x, flat, bias, text, stride)),
        (operators.grad_input, (grad, flat, text, stride, list(x.shape))),
        (operators.grad_weight, (x, grad, text, stride, len(flat))),
    ]:
        # Tracing by shapes alone takes seconds, and they are alike.
        dynamic = ["test_aot_dispatch_dynamic"] * (operator is operators.conv)
        torch.library.opcheck(operator, args, test_utils=checks + dynamic, atol=1e-4, rtol=1e-4)


class Layer(torch.nn.Module):
    def __init__(self, example):
        super().__init__()
        self.levels, self.stride = example.levels, example.stride
        self.weights = torch.nn.ParameterList(w.detach() for w in example.draw(DEVICE)[1])

    def forward(self, x):
        return multi_scale_conv2d(x.relu(), list(self.weights), self.levels, self.stride).relu()


def sorted_scale(**options):
    module = PSConv2d(8, 8, **options)
    module.sorted_in = module.sorted_out = True
    return module


MODULES = {
    "poly-scale": lambda: PSConv2d(8, 6, stride=2),
    "input": lambda: PSConv2d(8, 4, pattern=(1, 3, 2), axes="input", groups=2),
    "output": lambda: PSConv2d(4, 8, pattern=(1, 3, 2), axes="output", groups=2),
    "sorted": lambda: sorted_scale(groups=2),
    "sorted, two": lambda: sorted_scale(pattern=(1, 2)),
    "pyramid": lambda: PyConv2d(8, [2, 4, 2], [3, 5, (3, 1)], [1, 4, 2], bias=True, pattern=[(1,), (2, 1), (3,)]),
}


@pytest.mark.parametrize("name", MODULES)
def test_a_module_computes_the_same_in_one_kernel(name):
    torch.manual_seed(0)
    module, x = MODULES[name]().to(DEVICE), torch.randn(2, 8 if name != "output" else 4, 5, 4, device=DEVICE)
    found = []
    for way in ("plain", "fused"):
        leaf = x.clone().requires_grad_()
        with executed_as(way):
            assert (plan(module, x).output.name == "fused") is (way == "fused")
            out = module(leaf)
        found.append([out, *torch.autograd.grad(out.square().sum(), [leaf, *module.parameters()])])
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("name", ["poly-scale", "pyramid"])
def test_function_transforms_take_plans(name):
    """Which they can look into; the kernel they cannot."""
    torch.manual_seed(0)
    module, x = MODULES[name]().to(DEVICE), torch.randn(2, 8, 3, 3, device=DEVICE)
    parameters = {key: value.detach() for key, value in module.named_parameters()}

    def loss(values, image):
        return torch.func.functional_call(module, values, (image[None],)).square().sum()

    found = []
    for way in ("plain", "fused"):
        with executed_as(way):
            single = torch.func.vmap(torch.func.grad(loss), (None, 0))(parameters, x)
            out, along = torch.func.jvp(module, (x,), (x,))
            with forward_ad.dual_level():
                dual = forward_ad.unpack_dual(module(forward_ad.make_dual(x, x)))
        found.append([*single.values(), out, along, *dual])
    torch.testing.assert_close(found[0], found[1])


def test_compiles_whole_with_any_batch():
    layer = Layer(EXAMPLES["pyconv2"])
    compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend="aot_eager")
    for batch in (2, 3, 5):
        x = torch.randn(batch, 8, 6, 5, device=DEVICE, requires_grad=True)
        out = compiled(x)
        torch.testing.assert_close(out, layer(x))
        ours, theirs = (torch.autograd.grad(one.square().sum(), [x, *layer.parameters()]) for one in (out, layer(x)))
        torch.testing.assert_close(ours, theirs)


def test_exports_with_any_batch():
    layer, x = Layer(EXAMPLES["pyconv2"]), torch.randn(2, 8, 6, 5, device=DEVICE)
    program = torch.export.export(layer, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    assert "multi_scale_conv2d" in str(program.graph)
    wider = torch.randn(5, 8, 6, 5, device=DEVICE)
    torch.testing.assert_close(program.module()(wider), layer(wider))


@pytest.mark.skipif(not INTERPRETED, reason="counts in the interpreter")
@pytest.mark.parametrize(
    ("name", "stride"), [("standard", (2, 2)), ("psconv", (1, 1)), ("pyconv2", (2, 2)), ("four groups", (1, 1))]
)
def test_executed_macs_are_those_the_kernels_do(name, stride, monkeypatch):
    from triton.runtime.interpreter import InterpreterBuilder

    done, dot = [], InterpreterBuilder.create_dot

    def counted(self, a, b, *rest):
        done.append(a.data.shape[0] * a.data.shape[1] * b.data.shape[1])
        return dot(self, a, b, *rest)

    monkeypatch.setattr(InterpreterBuilder, "create_dot", counted)
    monkeypatch.setattr(launch, "choose", lambda problem, gradient, size: choice.choose(problem, gradient, (16, 16)))
    monkeypatch.setattr(launch, "tuned", launch.tuned.__wrapped__)
    example = EXAMPLES[name]
    monkeypatch.setattr(
        launch, "configs", lambda kernel: [launch.config(16, 4, 1, **{"SWAP": False} if kernel == "convolve" else {})]
    )
    # 16 rows of 4×4 patches: nothing hangs over, whatever the patch.
    x = torch.randn(1, example.channels, 16 * stride[0], 16 * stride[1])
    weights, work = example.draw()[1], executed_macs(example.levels, example.channels, stride, (16, 16))
    flat, text = torch.cat([w.detach().reshape(-1) for w in weights]), encode(example.levels)
    grad = operators.conv(x, flat, None, text, list(stride))
    assert sum(done) == work.forward * 256
    done.clear()
    operators.grad_input(grad, flat, text, list(stride), list(x.shape))
    assert sum(done) == work.grad_input * 256
    done.clear()
    operators.grad_weight(x, grad, text, list(stride), len(flat))
    assert sum(done) == work.grad_weight * 256
    assert work.nominal == sum(w.numel() for w in weights)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": torch.randn(8, 6, 5)}, r"x must be N×C×H×W of float32, float16, bfloat16"),
        ({"x": torch.randn(2, 8, 6, 5).double()}, r"x must be .*float64"),
        ({"weights": []}, r"weights must have one entry for each of the 1 levels, but got 0"),
        ({"weights": [torch.randn(8, 4, 3, 3)]}, r"weights\[0\] must be .*\(8, 8, 3, 3\) .*but got .*\(8, 4, 3, 3\)"),
        ({"bias": torch.randn(7)}, r"bias must be .*\(8,\)"),
        ({"stride": 0}, r"stride must be"),
        ({"levels": (Level(8, (3, 3), 8),), "x": torch.randn(2, 12, 6, 5)}, r"groups must divide in_channels = 12"),
    ],
)
def test_wrong_arguments_are_told(changes, message):
    x, weights, _ = EXAMPLES["psconv"].draw()
    arguments = {"x": x, "weights": weights, "levels": EXAMPLES["psconv"].levels, "stride": 1, "bias": None, **changes}
    tensors = {name: [w.to(DEVICE) for w in value] if name == "weights" else value for name, value in arguments.items()}
    for name in ("x", "bias"):
        tensors[name] = tensors[name] if tensors[name] is None else tensors[name].to(DEVICE)
    with pytest.raises(UserError, match=message):
        multi_scale_conv2d(**tensors)


@pytest.mark.skipif(INTERPRETED, reason="needs a GPU")
def test_a_cuda_graph_replays_it():
    layer, x = Layer(EXAMPLES["pyconv2"]), torch.randn(2, 8, 6, 5, device=DEVICE)
    layer(x)
    graph = torch.cuda.CUDAGraph()
    with torch.no_grad(), torch.cuda.graph(graph):
        out = layer(x)
    x.normal_()
    graph.replay()
    torch.testing.assert_close(out, layer(x))
