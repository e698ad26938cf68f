"""What PyTorch makes of a module from the outside: compilers, export, tracing, derivatives and function transforms.

Everything is compared with the module's own plain plan, which ``test_execute.py`` compares with the definition.
"""

from __future__ import annotations

import io
import shutil

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.fx.experimental.proxy_tensor import make_fx

from pyconv_search.ops import PSConv2d, PyConv2d
from pyconv_search.ops.planning import executed_as

MAKERS = {
    "poly-scale": lambda **o: PSConv2d(8, 8, **o),
    "ragged": lambda **o: PSConv2d(8, 6, pattern=(1, 2, 3), stride=2, **o),
    "poly-scale groups": lambda **o: PSConv2d(16, 8, groups=2, pattern=(1, 2), **o),
    "one axis": lambda **o: PSConv2d(8, 8, axes="input", **o),
    "pyramid": lambda **o: PyConv2d(8, [4, 8, 4], [3, 5, 7], [1, 2, 4], bias=True, **o),
    "strided pyramid": lambda **o: PyConv2d(8, [4, 4], [3, 5], [1, 2], 2, pattern=[(1,), (1, 2)], **o),
}
POLY = ("plain", "per-class", "masked", "masked-1")
PYRAMID = ("plain", "grouped-1", "depthwise", "merged-1", "swapped", "strips2", "1:grouped-1 2+3:grouped-2")
EXECUTIONS = [
    *[(name, way) for name in ("poly-scale", "ragged", "poly-scale groups") for way in POLY],
    *[("one axis", "split"), ("one axis", "masked")],
    *[("pyramid", way) for way in PYRAMID],
    *[("strided pyramid", way) for way in ("plain", "masked", "depthwise", "strips4")],
]


def made(name: str, size: int = 7) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    module = MAKERS[name](dtype=torch.float64)
    return module, torch.randn(2, module.in_channels, size, size - 1, dtype=torch.float64)


def derivatives(module: nn.Module, call, x: torch.Tensor) -> list[torch.Tensor]:
    """The output and the gradients of the input and of all parameters, by ``call``."""
    leaf = x.clone().requires_grad_()
    out = call(leaf)
    torch.manual_seed(1)
    return [out.detach(), *torch.autograd.grad(out, [leaf, *module.parameters()], torch.randn_like(out))]


def convolutions(graph: torch.fx.Graph) -> int:
    return sum("conv" in str(node.target) for node in graph.nodes)


def pieces_of(module: nn.Module, x: torch.Tensor, way: str) -> int:
    """How many convolutions a way has."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    with executed_as(way), torch.profiler.profile(activities=activities) as profile, torch.no_grad():
        module(x)
    return sum(event.count for event in profile.key_averages() if event.key == "aten::convolution")


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize(("name", "way"), EXECUTIONS)
def test_compiled_it_is_one_graph_of_the_same_plan(name, way):
    module, x = made(name)
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph

    with executed_as("plain"):
        expected = derivatives(module, module, x)
    with executed_as(way):
        compiled = torch.compile(module, fullgraph=True, backend=backend)
        torch.testing.assert_close(derivatives(module, compiled, x), expected)
    assert len(graphs) == 1
    assert convolutions(graphs[0].graph) == pieces_of(module, x, way)


@pytest.mark.parametrize("name", ["poly-scale", "pyramid"])
def test_a_compiled_module_follows_a_forced_way(name):
    """A graph is compiled for each way, and both go on being used."""
    module, x = made(name)
    counter = CompileCounterWithBackend("eager")
    compiled = torch.compile(module, fullgraph=True, backend=counter)
    ways = ("plain", "masked" if name == "poly-scale" else "grouped-1") * 2
    for way in ways:
        with executed_as(way):
            torch.testing.assert_close(compiled(x), module(x))
    assert counter.frame_count == 2


@pytest.mark.parametrize("name", MAKERS)
def test_one_graph_for_batches_of_any_size(name):
    module, x = made(name)
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(module, fullgraph=True, backend=counter, dynamic=True)
    for batch in (2, 3, 5):
        images = torch.randn(batch, *x.shape[1:], dtype=x.dtype)
        torch.testing.assert_close(derivatives(module, compiled, images), derivatives(module, module, images))
    assert counter.frame_count == 1


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="Inductor needs a C++ compiler")
def test_inductor_compiles_it():
    module, x = made("strided pyramid")
    compiled = torch.compile(module, fullgraph=True, dynamic=True)
    for images in (x, torch.cat([x, x])):
        torch.testing.assert_close(derivatives(module, compiled, images), derivatives(module, module, images))


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(("name", "way"), [("poly-scale", "per-class"), ("pyramid", "merged-1")])
def test_what_is_exported_is_the_plain_plan(name, way, strict):
    module, x = made(name)
    with executed_as(way):
        program = torch.export.export(module, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},), strict=strict)
    assert convolutions(program.graph) == pieces_of(module, x, "plain") != pieces_of(module, x, way)
    for batch in (1, 5):
        images = torch.randn(batch, *x.shape[1:], dtype=x.dtype)
        torch.testing.assert_close(program.module()(images), module(images))


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("name", ["poly-scale", "pyramid"])
def test_traced_it_is_made_of_operators_alone(name):
    module, x = made(name)
    file = io.BytesIO()
    torch.jit.save(torch.jit.trace(module, x), file)
    file.seek(0)
    torch.testing.assert_close(torch.jit.load(file)(x), module(x))
    graph = make_fx(module)(x)
    torch.testing.assert_close(derivatives(module, graph, x)[0], module(x))


@pytest.mark.parametrize(("name", "way"), EXECUTIONS)
def test_first_and_second_derivatives(name, way):
    module, x = made(name, 4)
    weights = [parameter for parameter in module.parameters() if parameter.dim() == 4]

    def function(image, *given):
        named = {key: value for key, value in module.named_parameters() if value.dim() < 4}
        keys = [key for key, value in module.named_parameters() if value.dim() == 4]
        return torch.func.functional_call(module, {**named, **dict(zip(keys, given, strict=True))}, (image,))

    inputs = (x[:1].clone().requires_grad_(), *(w.detach().clone().requires_grad_() for w in weights))
    with executed_as(way):
        assert torch.autograd.gradcheck(function, inputs, fast_mode=True)
        assert torch.autograd.gradgradcheck(function, inputs, fast_mode=True)


@pytest.mark.parametrize(("name", "way"), EXECUTIONS)
def test_function_transforms(name, way):
    """Gradients of single images, derivatives along a direction, and many gradients at once."""
    module, x = made(name)
    parameters = {key: value.detach() for key, value in module.named_parameters()}

    def loss(values, image):
        return torch.func.functional_call(module, values, (image[None],)).square().sum()

    with executed_as(way):
        single = torch.func.vmap(torch.func.grad(loss), (None, 0))(parameters, x)
        for i, image in enumerate(x):
            module.zero_grad()
            loss(dict(module.named_parameters()), image).backward()
            for key, parameter in module.named_parameters():
                torch.testing.assert_close(single[key][i], parameter.grad)
        direction = torch.randn_like(x)
        out, along = torch.func.jvp(module, (x,), (direction,))
        torch.testing.assert_close(out, module(x))
        torch.testing.assert_close(along, module(direction) - module(torch.zeros_like(x)))


@pytest.mark.parametrize("name", MAKERS)
def test_many_gradients_at_once(name):
    module, x = made(name)
    leaf = x.clone().requires_grad_()
    out = module(leaf)
    directions = torch.randn(3, *out.shape, dtype=out.dtype)
    wanted = [leaf, *module.parameters()]
    together = torch.autograd.grad(out, wanted, directions, is_grads_batched=True, retain_graph=True)
    for i, direction in enumerate(directions):
        one = torch.autograd.grad(out, wanted, direction, retain_graph=True)
        torch.testing.assert_close([grad[i] for grad in together], list(one))
    small = x[:1, :, :3, :3]
    jacobian = torch.autograd.functional.jacobian(module, small, vectorize=True)
    torch.testing.assert_close(jacobian, torch.autograd.functional.jacobian(module, small))


def test_complex_numbers_have_gradients():
    torch.manual_seed(0)
    module = PSConv2d(4, 4, bias=False, dtype=torch.complex128)
    real, imaginary = (PSConv2d(4, 4, bias=False, dtype=torch.float64) for _ in range(2))
    with torch.no_grad():
        real.weight.copy_(module.weight.real)
        imaginary.weight.copy_(module.weight.imag)
    x = torch.randn(1, 4, 5, 5, dtype=torch.complex128, requires_grad=True)
    out = module(x)
    torch.testing.assert_close(out.real, real(x.real) - imaginary(x.imag))
    assert torch.autograd.gradcheck(module, (x,), fast_mode=True)
