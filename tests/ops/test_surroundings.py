"""What training does with a module: casts, copies, frozen weights, processes; and what a step packs and keeps."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from pyconv_search.arch.plans.choice import choose, plan_of
from pyconv_search.errors import UserError
from pyconv_search.ops import PSConv2d, PyConv2d, packing, plan
from pyconv_search.ops import execute as executor
from pyconv_search.ops.execute import Programs, execute
from pyconv_search.ops.planning import executed_as, operation_of
from pyconv_search.ops.program import program
from pyconv_search.ops.sums import index

POLY = ("split", "per-class", "masked", "masked-1")
PYRAMID = ("plain", "grouped-1", "depthwise", "merged-1", "swapped", "strips2")
EXECUTIONS = [("poly-scale", way) for way in POLY] + [("pyramid", way) for way in PYRAMID]


def make(name: str, **options) -> nn.Module:
    torch.manual_seed(0)
    if name == "poly-scale":
        return PSConv2d(8, 8, groups=2, **options)
    return PyConv2d(8, [4, 8, 4], [3, 5, 7], [1, 2, 4], bias=True, **options)


@pytest.fixture
def x():
    torch.manual_seed(1)
    return torch.randn(2, 8, 7, 6)


class Casts(TorchDispatchMode):
    """Counts the tensors that are made 16 bits wide."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function is torch.ops.aten._to_copy.default
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(("name", "way"), EXECUTIONS)
def test_autocast_casts_each_tensor_once(name, way, x):
    module = make(name)
    expected = module(x)
    with executed_as(way), torch.autocast("cpu", torch.bfloat16):
        with Casts() as casts:
            out = module(x)
        again = module(x.bfloat16())
    assert out.dtype == again.dtype == torch.bfloat16
    weights = sum(parameter.dim() == 4 for parameter in module.parameters())
    assert casts.count == 1 + weights + 1, "the input, every weight, and the bias"
    torch.testing.assert_close(out.float(), expected, atol=0.05, rtol=0.05)
    out.float().sum().backward()
    assert {parameter.grad.dtype for parameter in module.parameters()} == {torch.float32}


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex64])
@pytest.mark.parametrize("name", ["poly-scale", "pyramid"])
def test_autocast_leaves_what_it_leaves_in_other_convolutions(name, dtype, x):
    module, standard = make(name, dtype=dtype), nn.Conv2d(8, 8, 3, padding=1, dtype=dtype)
    image = torch.randn_like(x, dtype=dtype)
    expected = module(image)
    with torch.autocast("cpu", torch.bfloat16):
        assert standard(image).dtype == dtype
        assert torch.equal(module(image), expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex64, torch.int64])
@pytest.mark.parametrize("name", ["poly-scale", "pyramid"])
def test_types_that_autocast_leaves_must_be_those_of_the_weights(name, dtype, x):
    with (
        torch.autocast("cpu", torch.bfloat16),
        pytest.raises(UserError, match=f"input must be of torch.float32, as the weight is, but got {dtype}"),
    ):
        make(name)(x.to(dtype))


def shifted(x: torch.Tensor) -> torch.Tensor:
    """The same numbers, channels last, which begin at the fourth number of their memory."""
    last = x.permute(0, 2, 3, 1)
    return torch.cat([x.new_zeros(3), last.reshape(-1)])[3:].view(last.shape).permute(0, 3, 1, 2)


@pytest.mark.parametrize("size", [(5, 6), (1, 1)])
def test_images_may_begin_anywhere_in_memory(size):
    """Eight channels of 16 bits, which are moved at once, stand at whole multiples of 16 bytes as a rule alone."""
    module = PSConv2d(32, 32, bias=False, dtype=torch.bfloat16)
    module.sorted_in = module.sorted_out = True
    x, direction = (torch.randn(1, 32, *size).bfloat16().to(memory_format=torch.channels_last) for _ in range(2))
    wide = torch.cat([torch.zeros_like(x)[:, :3], x, torch.zeros_like(x)[:, :5]], 1)
    found = []
    for image, grad in ((x, direction), (shifted(x), direction), (x, shifted(direction)), (wide[:, 3:35], direction)):
        leaf = image.detach().requires_grad_()
        out = module(leaf)
        found.append([out, *torch.autograd.grad(out, [leaf, module.weight], grad)])
    for other in found[1:]:
        assert all(torch.equal(one, two) for one, two in zip(found[0], other, strict=True))


@pytest.mark.parametrize(("name", "way"), EXECUTIONS)
def test_empty_batches_and_meta_tensors(name, way, x):
    module = make(name)
    with executed_as(way):
        out = module(x)
        leaf = x[:0].clone().requires_grad_()
        empty = module(leaf)
        empty.sum().backward()
        on_meta = make(name, device="meta")
        shadow = on_meta(x.to("meta").requires_grad_())
        shadow.sum().backward()
    assert empty.shape == (0, *out.shape[1:])
    assert leaf.grad.shape == leaf.shape
    assert all((parameter.grad == 0).all() for parameter in module.parameters())
    assert shadow.shape == out.shape
    for parameter in on_meta.parameters():
        assert parameter.grad.shape == parameter.shape


@pytest.mark.parametrize(("name", "way"), EXECUTIONS)
def test_a_channels_last_weight_makes_a_channels_last_output(name, way, x):
    """As in nn.Conv2d; all numbers are those of a contiguous weight."""
    module = make(name)
    moved = copy.deepcopy(module).to(memory_format=torch.channels_last)
    direction = torch.randn_like(module(x))
    with executed_as(way):
        found = []
        for each in (module, moved):
            leaf = x.clone().requires_grad_()
            out = each(leaf)
            found.append([out, *torch.autograd.grad(out, [leaf, *each.parameters()], direction)])
    assert found[1][0].is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found[0], found[1], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("shape", [(2, 8, 1, 1), (2, 8, 1, 5), (2, 8, 5, 1), (1, 8, 3, 3)])
def test_memory_formats_are_those_of_a_standard_convolution(shape):
    """Also of images of one pixel and of 1×1 kernels, whose strides fit both formats; and of expanded images."""
    modules = PSConv2d(8, 8), PyConv2d(8, [4, 4], [1, 3])
    standard = nn.Conv2d(8, 8, 3, padding=1)
    image = torch.randn(shape)
    for x in (image, image.to(memory_format=torch.channels_last), image[:1, :, :1, :1].expand(shape)):
        for module in modules:
            assert module(x).stride() == standard(x).stride()


@pytest.mark.parametrize(("name", "way"), EXECUTIONS)
def test_what_needs_no_gradient_gets_none(name, way, x):
    module = make(name)
    weights = [parameter for parameter in module.parameters() if parameter.dim() == 4]
    direction = torch.randn_like(module(x))
    with executed_as(way):
        leaf = x.clone().requires_grad_()
        expected = torch.autograd.grad(module(leaf), [leaf, *weights], direction)
        for i in range(len(weights) + 1):
            module.requires_grad_(False)
            image = x.clone().requires_grad_(i == 0)
            one = [image, *weights][i].requires_grad_()
            module(image).backward(direction)
            torch.testing.assert_close(one.grad, expected[i])
            others = [each for each in (image, *module.parameters()) if each is not one]
            assert all(each.grad is None for each in others)
            one.grad = None


@pytest.mark.parametrize(("name", "way"), EXECUTIONS)
def test_weights_are_packed_once_a_step(name, way, x, monkeypatch):
    """For the output, and for the gradient of the input too where it goes by the same plan; unpacked once."""
    calls = []
    for function in (packing.pack, packing.unpack):
        counted = lambda *args, function=function: calls.append(function.__name__) or function(*args)  # noqa: E731
        monkeypatch.setattr(executor, function.__name__, counted)
    monkeypatch.setattr(executor, "FEWEST", 0)
    monkeypatch.setattr(executor, "PORTION", 1)
    module = make(name)
    with executed_as(way):
        with torch.no_grad():
            module(x)
        assert calls == ["pack"]
        for image in (x, x.clone().requires_grad_()):
            calls.clear()
            module(image).sum().backward()
            assert calls == ["pack", "unpack"]


def test_each_direction_packs_its_own_plan_once(x, monkeypatch):
    calls = []
    counted = lambda weights, program: calls.append(program) or packing.pack(weights, program)  # noqa: E731
    monkeypatch.setattr(executor, "pack", counted)
    operation = operation_of(make("poly-scale").signature)
    programs = Programs(*(program(operation, plan_of(operation, (((0,), way),))) for way in POLY[:3]))
    leaf, weight = x.clone().requires_grad_(), make("poly-scale").weight
    execute(leaf, [weight], programs).sum().backward()
    assert calls == [programs.output, programs.input]
    calls.clear()
    execute(x, [weight], programs).sum().backward()
    assert calls == [programs.output], "the gradient of the input is not wanted"


@pytest.mark.parametrize(("name", "way"), EXECUTIONS)
def test_nothing_is_kept_but_input_and_weights(name, way, x):
    """The packed weights are kept beside the levels' own where the gradient of the input needs them again."""
    module = make(name)
    weights = [parameter for parameter in module.parameters() if parameter.dim() == 4]
    leaf = x.clone().requires_grad_()
    for image in (x, leaf):
        kept = []
        with (
            executed_as(way),
            torch.autograd.graph.saved_tensors_hooks(lambda t, k=kept: k.append(t) or t, lambda t: t),
        ):
            told = plan(module, image)
            module(image)
        own = [tensor.data_ptr() for tensor in (image, *weights)]
        assert [tensor.data_ptr() for tensor in kept[: len(own)]] == own
        packed = kept[len(own) :]
        assert bool(packed) == (image is leaf and told.output.name == told.input.name)
        steps = choose(operation_of(module.signature), told.setting, forced=way).plan.pieces
        filters = [len(piece.target) * piece.strip for piece in steps]
        assert [tensor.shape[0] for tensor in packed] == filters * bool(packed)


def test_what_was_changed_in_place_before_the_backward_is_told(x):
    module = make("poly-scale")
    hidden = x.clone().requires_grad_() * 1
    out = module(hidden)
    hidden.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("name", "way"), [*EXECUTIONS, ("one level", "strips2"), ("one level", "strips4-1")])
def test_outputs_may_be_changed_in_place(name, way, memory_format, x):
    """As by an nn.ReLU(inplace=True) behind it."""
    module = PyConv2d(8, [8], [3], [4]) if name == "one level" else make(name)
    found = []
    with executed_as(way):
        for activation in (torch.relu, torch.relu_):
            leaf = x.to(memory_format=memory_format).clone().requires_grad_()
            out = activation(module(leaf))
            found.append([out, *torch.autograd.grad(out.square().sum(), [leaf, *module.parameters()])])
    assert all(torch.equal(one, two) for one, two in zip(*found, strict=True))


@pytest.mark.parametrize("name", ["poly-scale", "pyramid"])
def test_second_derivatives_are_not_rounded_where_autocast_is_on_in_the_backward_pass_alone(name, x):
    module = make(name)
    leaf = x.clone().requires_grad_()
    inputs, out = [leaf, *module.parameters()], module(leaf).square().sum()
    expected = torch.autograd.grad(out, inputs, create_graph=True)
    out = module(leaf).square().sum()
    with torch.autocast("cpu", torch.bfloat16):
        found = torch.autograd.grad(out, inputs, create_graph=True)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("name", ["poly-scale", "pyramid"])
def test_activation_checkpointing(name, reentrant, x):
    module, found = make(name), []
    for call in (module, lambda image: checkpoint(module, image, use_reentrant=reentrant)):
        leaf = x.clone().requires_grad_()
        module.zero_grad()
        call(leaf).square().sum().backward()
        found.append([leaf.grad, *(parameter.grad for parameter in module.parameters())])
    torch.testing.assert_close(found[0], found[1])


@pytest.mark.parametrize(("name", "way"), EXECUTIONS)
def test_copies_of_a_module_that_ran_compute_the_same(name, way, x):
    module = make(name)
    with executed_as(way):
        out = module(x)
        for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
            assert torch.equal(twin(x), out)


WORKER = """
import sys, torch, torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from pyconv_search.ops import PSConv2d, PyConv2d
store, rank, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=size)
torch.manual_seed(0)
model = torch.nn.Sequential(PSConv2d(8, 8), torch.nn.ReLU(), PyConv2d(8, [4, 4], [3, 5], [1, 2]))
alone = [p.clone().detach().requires_grad_() for p in model.parameters()]
images = torch.randn(4, 8, 6, 6)
wrapped = DistributedDataParallel(model)
for step in range(2):
    model.zero_grad()
    wrapped(images[rank * 4 // size : (rank + 1) * 4 // size]).square().mean().backward()
names = [name for name, _ in model.named_parameters()]
whole = torch.func.functional_call(model, dict(zip(names, alone)), (images,)).square().mean()
for parameter, expected in zip(model.parameters(), torch.autograd.grad(whole, alone)):
    torch.testing.assert_close(parameter.grad, expected)
dist.destroy_process_group()
print("equal")
"""


@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="needs the gloo backend")
@pytest.mark.parametrize("size", [1, 2])
def test_distributed_data_parallel(size, tmp_path):
    """Each process has its share of a batch; gradients are those of the whole."""
    command = [sys.executable, "-c", WORKER, str(tmp_path / "store")]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    workers = [subprocess.Popen([*command, str(rank), str(size)], **pipes) for rank in range(size)]
    for worker in workers:
        out, error = worker.communicate(timeout=120)
        assert out.strip() == "equal", error


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_on_a_cpu_without_it(dtype):
    """PyTorch falls back to code that every CPU has: right to the type's precision."""
    code = f"""
import torch
from pyconv_search.ops import PSConv2d, PyConv2d
torch.manual_seed(0)
for module in (PSConv2d(16, 16), PyConv2d(16, [8, 8], [3, 5], [1, 4])):
    module, x = module.to({dtype}), torch.randn(2, 16, 7, 7).to({dtype}).requires_grad_()
    out = module(x)
    (grad,) = torch.autograd.grad(out.float().square().sum(), x)
    exact = module.double()(image := x.detach().double().requires_grad_())
    (expected,) = torch.autograd.grad(exact.square().sum(), image)
    tolerance = 4 * torch.finfo({dtype}).eps
    torch.testing.assert_close(out.double(), exact, atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(grad.double(), expected, atol=4 * tolerance, rtol=4 * tolerance)
print("right")
"""
    oldest = {"ONEDNN_MAX_CPU_ISA": "SSE41", "ATEN_CPU_CAPABILITY": "default"}
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **oldest})
    assert found.stdout.strip() == "right", found.stderr


def test_a_subclass_may_convolve_by_another_weight():
    class Standardised(PSConv2d):
        def forward(self, input):
            return self._conv_forward(input, self.weight - self.weight.mean((1, 2, 3), keepdim=True), self.bias)

    torch.manual_seed(0)
    module, x = Standardised(8, 8).double(), torch.randn(2, 8, 7, 7, dtype=torch.float64)
    plain = PSConv2d(8, 8).double()
    plain.load_state_dict(module.state_dict())
    with torch.no_grad():
        plain.weight.sub_(plain.weight.mean((1, 2, 3), keepdim=True))
    torch.testing.assert_close(module(x), plain(x))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_images_of_one_pixel_in_16_bits(dtype, memory_format):
    torch.manual_seed(0)
    for module in (PSConv2d(16, 16), PSConv2d(32, 64), PyConv2d(16, [8, 8, 8, 8], [3, 5, 7, 9], [1, 4, 8, 8])):
        x = torch.randn(4, module.in_channels, 1, 1).to(dtype)
        expected = module(x.float())
        out = module.to(dtype).to(memory_format=memory_format)(x.requires_grad_())
        out.sum().backward()
        torch.testing.assert_close(out.float(), expected, rtol=0.03, atol=0.03)
        assert x.grad.isfinite().all()


@pytest.mark.parametrize("mode", [torch.inference_mode, FakeTensorMode])
def test_an_index_that_is_kept_is_an_ordinary_tensor(mode):
    """It is made once for a device; here the meta device, which is no CPU either."""
    numbers, device = np.arange(3), torch.device("meta")
    with mode():
        index(numbers, device)
    found = index(numbers, device)
    assert type(found) is torch.Tensor
    assert not found.is_inference()
    assert index(numbers, device) is found
