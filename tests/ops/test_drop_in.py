"""What a user of nn.Conv2d expects of a convolution, for every operator of the package."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch

from pyconv_search.errors import UserError
from pyconv_search.ops import PSConv2d, PyConv2d

MAKERS = {
    "both": lambda **options: PSConv2d(8, 8, bias=True, **options),
    "wide": lambda **options: PSConv2d(8, 8, groups=2, pattern=(1, 2), bias=True, **options),
    "ragged": lambda **options: PSConv2d(8, 6, pattern=(1, 2, 3), bias=True, **options),
    "input": lambda **options: PSConv2d(8, 8, axes="input", bias=True, **options),
    "output": lambda **options: PSConv2d(8, 8, axes="output", bias=True, **options),
    "depthwise": lambda **options: PSConv2d(8, 8, groups=8, bias=True, **options),
    "dilated": lambda **options: PSConv2d(8, 8, pattern=(2,), bias=True, **options),
    "pyramid": lambda **options: PyConv2d(8, [4, 4], [3, 5], [1, 2], 1, True, [(1,), (1, 2)], **options),
}


@pytest.fixture(params=MAKERS)
def make(request):
    torch.manual_seed(0)
    return MAKERS[request.param]


@pytest.fixture
def x():
    torch.manual_seed(1)
    return torch.randn(2, 8, 7, 6)


def test_an_image_without_batch(make, x):
    conv = make()
    torch.testing.assert_close(conv(x[0]), conv(x)[0])


def test_an_empty_batch(make, x):
    assert make()(x[:0]).shape == (0, *make()(x).shape[1:])


def test_memory_format_of_the_input_is_that_of_the_output(make, x):
    conv = make()
    out = conv(x.to(memory_format=torch.channels_last))
    assert conv(x).is_contiguous()
    assert out.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(out, conv(x))
    moved = conv.to(memory_format=torch.channels_last)
    assert moved(x).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_dtype(make, x, dtype):
    conv = make(dtype=dtype)
    assert {p.dtype for p in conv.parameters()} == {conv(x.to(dtype)).dtype} == {dtype}
    half = make().half()
    assert {p.dtype for p in half.parameters()} == {torch.float16}


def test_autocast(make, x):
    conv = make()
    with torch.autocast("cpu", torch.bfloat16):
        out = conv(x)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), conv(x), atol=0.05, rtol=0.05)
    out.float().sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in conv.parameters())


def test_meta_device_and_back(make, x):
    conv, on_meta = make(), make(device="meta")
    assert on_meta(x.to("meta")).shape == conv(x).shape
    restored = on_meta.to_empty(device="cpu")
    restored.load_state_dict(conv.state_dict())
    assert torch.equal(restored(x), conv(x))


def test_copies_compute_the_same(make, x):
    conv, file = make(), io.BytesIO()
    torch.save(conv, file)
    file.seek(0)
    for twin in (copy.deepcopy(conv), pickle.loads(pickle.dumps(conv)), torch.load(file, weights_only=False)):
        assert torch.equal(twin(x), conv(x))
        assert next(twin.parameters()) is not next(conv.parameters())


def test_compiles_as_one_graph(make, x):
    conv = make()
    torch._dynamo.reset()
    compiled = torch.compile(conv, fullgraph=True, backend="aot_eager")
    leaf = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(conv(leaf).square().sum(), leaf)
    (found,) = torch.autograd.grad(compiled(leaf).square().sum(), leaf)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_exports_with_a_free_batch_size_and_image_size(make, x):
    conv = make().eval()
    batch, height, width = (
        torch.export.Dim("batch"),
        torch.export.Dim("height", min=2),
        torch.export.Dim("width", min=2),
    )
    program = torch.export.export(conv, (x,), dynamic_shapes=({0: batch, 2: height, 3: width},))
    other = torch.randn(3, 8, 5, 9)
    torch.testing.assert_close(program.module()(other), conv(other))


def test_first_and_second_derivatives(make, x):
    conv = make(dtype=torch.float64)
    inputs = (x[:1, :, :3, :3].double().requires_grad_(),)
    assert torch.autograd.gradcheck(conv, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(conv, inputs, fast_mode=True)


def test_function_transforms(make, x):
    conv = make()
    torch.testing.assert_close(torch.func.vmap(conv)(x.unsqueeze(1)).squeeze(1), conv(x))


def test_a_gradient_reaches_every_parameter(make, x):
    conv = make()
    conv(x).square().sum().backward()
    for name, parameter in conv.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.flatten(1 if parameter.dim() > 1 else 0).abs().amax(-1).gt(0).all(), name


@pytest.mark.parametrize("shape", [(2, 5, 7, 6), (8, 7), (1, 2, 8, 7, 6)])
def test_an_input_that_does_not_fit_is_told(make, shape):
    with pytest.raises(UserError, match=r"input must have 8 channels.*but got a tensor of shape"):
        make()(torch.randn(shape))


def test_repr_and_attributes_say_what_it_is():
    conv = PSConv2d(8, 12, 5, 2, groups=4, bias=False, axes="input")
    assert repr(conv) == (
        "PSConv2d(8, 12, kernel_size=(5, 5), stride=(2, 2), groups=4, bias=False, pattern=(1, 2, 1, 4), axes='input')"
    )
    assert (conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride) == (8, 12, (5, 5), (2, 2))
    assert (conv.groups, conv.pattern, conv.axes, conv.bias) == (4, (1, 2, 1, 4), "input", None)
    pyramid = PyConv2d(8, [4, 8], [3, 5], [1, 4], 2, pattern=[(1,), (1, 2)])
    assert (pyramid.in_channels, pyramid.out_channels, pyramid.stride) == (8, 12, (2, 2))
    assert (pyramid.kernel_size, pyramid.groups) == (((3, 3), (5, 5)), (1, 4))
    assert "8, 12, stride=(2, 2)" in repr(pyramid)
    assert "pattern=(1, 2)" in repr(pyramid)
    assert list(pyramid.state_dict()) == ["levels.0.weight", "levels.1.weight"]


def test_oblong_kernels_and_strides():
    conv, x = PSConv2d(8, 8, (1, 3), (1, 2), dtype=torch.float64), torch.randn(1, 8, 5, 9, dtype=torch.float64)
    square = PSConv2d(8, 8, 3, (1, 2), dtype=torch.float64)
    with torch.no_grad():
        square.weight.zero_()[:, :, 1:2] = conv.weight
        square.bias.copy_(conv.bias)
    torch.testing.assert_close(conv(x), square(x))
