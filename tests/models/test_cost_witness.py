"""What built modules hold and do, layer by layer, against the closed forms of arch.cost."""

from __future__ import annotations

import math
from pathlib import Path
from unittest import mock

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from pyconv_search.arch import network as traced
from pyconv_search.arch.cost import cost
from pyconv_search.arch.presets import PRESETS, preset
from pyconv_search.arch.published.networks import network_rows
from pyconv_search.models import build
from pyconv_search.ops import execute, packing
from pyconv_search.ops.psconv import PSConv2d
from pyconv_search.space.sampling import draw
from pyconv_search.space.space import load_space

SPACES = sorted((Path(__file__).parents[2] / "spaces").glob("*.yaml"))


def thop(module, x, y):
    """The operations that thop counted in 2019 for one call of a leaf module."""
    if isinstance(module, (nn.Conv2d, nn.Conv3d)):
        taps = math.prod(module.kernel_size) + (module.bias is not None)
        return y.numel() * (module.in_channels // module.groups) * taps
    if isinstance(module, nn.Linear):
        return y.numel() * (2 * module.in_features - 1)
    if isinstance(module, (nn.BatchNorm2d, nn.BatchNorm3d)):
        return 4 * x.numel()
    if isinstance(module, nn.ReLU):
        return x.numel()
    size = getattr(module, "kernel_size", None)
    window = size if isinstance(size, int) else math.prod(size or ())
    if isinstance(module, (nn.MaxPool2d, nn.MaxPool3d)):
        return window * y.numel()
    if isinstance(module, nn.AvgPool2d):
        return (window + 1) * y.numel()
    if isinstance(module, (nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)):
        return (math.prod(a // b for a, b in zip(x.shape[2:], y.shape[2:], strict=True)) + 1) * y.numel()
    return 0


class Witness:
    """The network of ``arch`` on the meta device, after one image went through it."""

    def __init__(self, arch):
        self.arch, self.shapes, self.thop, self.activations = arch, {}, {}, 0
        with torch.device("meta"):
            self.network, image = build(arch).eval(), torch.empty(1, *arch.input)
        for name, module in self.network.named_modules():
            leaf = not any(True for _ in module.children())
            if leaf and not isinstance(module, nn.Identity):
                module.register_forward_hook(lambda module, x, y, name=name: self._called(name, module, x[0], y))
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            self.out = self.network(image)
        self.executed = counter.get_total_flops() // 2
        self.params = sum(parameter.numel() for parameter in self.network.parameters())

    def _called(self, name, module, x, y):
        self.shapes[name] = tuple(y.shape[1:])
        self.thop[name] = thop(module, x, y)
        self.activations += y.numel() if isinstance(module, (nn.Conv2d, nn.Conv3d, nn.Linear)) else 0

    def whole(self):
        return self.params, self.executed, self.activations, self.operations()

    def operations(self):
        """Those of thop, which counted the network as it is trained: with its auxiliary head."""
        if self.arch.head is not None:
            with torch.no_grad():
                self.network.train()(torch.empty(2, *self.arch.input, device="meta"))
            return sum(self.thop.values()) // 2
        return sum(self.thop.values())


def whole(closed):
    return closed.params, closed.executed, closed.activations, closed.thop


NETWORKS = dict.fromkeys([*PRESETS, *(row.network for row in network_rows()), "ps-resnet-50+fpn", "iresnet-50+aspp"])


@pytest.mark.parametrize("name", NETWORKS)
def test_closed_forms_equal_the_module(name):
    closed = cost(preset(name))
    assert Witness(preset(name)).whole() == whole(closed)
    for part in ("params", "macs", "thop", "executed", "activations"):
        assert sum(getattr(p, part) for p in closed.parts) == getattr(closed, part)


@pytest.mark.parametrize("name", ["pyconvresnet-50", "iresnet-50", "nl-resnet-50", "se-resnet-50", "pyconvresnet3d-50"])
def test_layer_by_layer(name):
    witness = Witness(preset(name))
    layers = {layer.name: layer for layer in traced.layers(preset(name)) if layer.name}
    assert layers.keys() == witness.shapes.keys()
    for path, layer in layers.items():
        module = witness.network.get_submodule(path)
        assert layer.output.shape == witness.shapes[path], path
        assert layer.params == sum(p.numel() for p in module.parameters()), path


@pytest.mark.parametrize("side", [33, 47, 100])
def test_odd_image_sizes(side, variants):
    for arch in variants((3, side, side + 6)):
        closed = cost(arch)
        witness = Witness(arch)
        assert witness.whole() == whole(closed)
        assert tuple(witness.network.features(torch.empty(1, *arch.input, device="meta"))[-1].shape[1:]) == (
            closed.parts[-2].size
        )


class Calls(TorchDispatchMode):
    """Every operator that runs, with the memories that it reads and those that it puts out."""

    def __init__(self):
        super().__init__()
        self.calls, self.tensors = [], []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        ends = [[x for x in tree_leaves(side) if isinstance(x, torch.Tensor) and x.dim() > 1] for side in (args, out)]
        self.tensors += ends  # so that no memory is given out twice
        self.calls.append(
            [{x.untyped_storage()._cdata: x.untyped_storage().nbytes() // 4 for x in end} for end in ends]
        )
        return out

    def peak(self, images):
        """The most elements alive if every memory but the weights' were freed after its last reader."""
        ours = {images.untyped_storage()._cdata: images.numel()}
        for _, out in self.calls:
            ours |= {key: size for key, size in out.items() if key not in ours}
        last = {key: i for i, (read, out) in enumerate(self.calls) for key in (*read, *out)}
        alive, peak = {images.untyped_storage()._cdata}, 0
        for i, (_, out) in enumerate(self.calls):
            alive |= out.keys() & ours.keys()
            peak = max(peak, sum(ours[key] for key in alive))
            alive = {key for key in alive if last[key] > i}
        return peak


def test_inference_peak_is_that_of_the_operators_that_run(small):
    with torch.device("meta"):
        network, images = build(small).eval(), torch.empty(1, *small.input)
    if any(isinstance(module, PSConv2d) for module in network.modules()):
        pytest.skip("a poly-scale convolution puts out the parts that it adds")
    with Calls() as calls, torch.no_grad():
        network(images)
    assert calls.peak(images) == cost(small).inference_peak


@pytest.mark.parametrize("number", [4, pytest.param(500, marks=pytest.mark.slow)])
@pytest.mark.parametrize("file", SPACES, ids=lambda file: file.stem)
def test_random_architectures_of_every_space(file, number):
    space = load_space(file)
    for i in range(number):
        arch = space.architecture(draw(space, 7, i))
        assert Witness(arch).whole() == whole(cost(arch))


def kept_for_backward(network, images):
    """Elements (and pooling positions) of one image that autograd keeps, each memory once; without weights."""
    kept, positions, packed = {}, {}, []

    def noted(*arguments):
        packed.extend(found := packing.pack(*arguments))  # held, so that no other tensor gets their memory
        return found

    def pack(x):
        memory = x.untyped_storage()
        known = weights | {weight.untyped_storage().data_ptr() for weight in packed}
        if x.dim() > 1 and memory.data_ptr() not in known:
            store = positions if x.dtype == torch.int64 else kept
            store[memory.data_ptr()] = memory.nbytes() // x.element_size()
        return x

    weights = {p.untyped_storage().data_ptr() for p in network.parameters()}
    with mock.patch.object(execute, "pack", noted), torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        out = network(images)
    assert out.requires_grad
    return sum(kept.values()), sum(positions.values())


def test_memory_kept_for_training_is_that_of_autograd(small):
    network = build(small).train()
    closed = cost(small)
    assert kept_for_backward(network, torch.randn(2, *small.input)) == (
        2 * closed.training_peak,
        2 * closed.pool_indices,
    )
