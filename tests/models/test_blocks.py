"""What the blocks compute, against the papers' figures and formulas written out."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pyconv_search.arch.resnet import resnet
from pyconv_search.arch.spec import SqueezeExcite
from pyconv_search.models import build
from pyconv_search.models.attention import NonLocal, SqueezeExcitation

RELU = torch.relu


def stage(**settings):
    """The first stage of a network, in evaluation mode, with statistics of normalisation that are no identity."""
    torch.manual_seed(0)
    arch = resnet({"blocks": [4], "block": "bottleneck", "width": 8, "stem": {"width": 8}, **settings}, (3, 32, 32), 5)
    network = build(arch).double().eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.bias.data, module.running_mean, module.running_var):
                tensor.uniform_(0.5, 1.5)
    return network.stages[0], torch.randn(2, 8, 8, 8, dtype=torch.float64)


def test_pre_activation():
    """He et al. 2016b, figure 4e: BN, ReLU, weights, three times; the projection reads the raw input."""
    blocks, x = stage(form="pre")
    for block in blocks:
        y = block.conv1(RELU(block.norm1(x)))
        y = block.conv2(RELU(block.norm2(y)))
        y = block.conv3(RELU(block.norm3(y))) + block.shortcut(x)
        torch.testing.assert_close(block(x), y)
        x = y


def test_improved_residual_network():
    """Duta et al. 2020, figure 1: start, middle and end blocks; the first middle one does not normalise again."""
    blocks, x = stage(form="ires")
    start, first, middle, end = blocks

    def inner(block, y):
        return block.conv3(RELU(block.norm2(block.conv2(RELU(block.norm1(block.conv1(y)))))))

    y = start.norm3(inner(start, x)) + start.shortcut(x)
    torch.testing.assert_close(start(x), y)
    torch.testing.assert_close(first(y.clone()), inner(first, RELU(y)) + y)
    torch.testing.assert_close(middle(y.clone()), inner(middle, RELU(middle.norm0(y))) + y)
    expected = RELU(end.norm_out(inner(end, RELU(end.norm0(y))) + y))
    torch.testing.assert_close(end(y.clone()), expected)


def test_attention_stands_before_the_addition():
    """Hu, Shen, Sun 2018, figure 3."""
    blocks, x = stage(se=4)
    x = blocks[0](x)
    block = blocks[1]
    y = RELU(block.norm2(block.conv2(RELU(block.norm1(block.conv1(x))))))
    torch.testing.assert_close(block(x.clone()), RELU(block.se(block.norm3(block.conv3(y))) + x))


@pytest.mark.parametrize("size", [(6, 5), (3, 6, 5)])
def test_squeeze_and_excitation(size):
    module = SqueezeExcitation(8, SqueezeExcite(2, bias=True), len(size)).double()
    x = torch.randn(2, 8, *size, dtype=torch.float64)
    expected = []
    for image in x:
        means = torch.stack([channel.mean() for channel in image])
        hidden = RELU(module.reduce.weight @ means + module.reduce.bias)
        gates = 1 / (1 + torch.exp(-(module.expand.weight @ hidden + module.expand.bias)))
        expected.append(torch.stack([gate * channel for gate, channel in zip(gates, image, strict=True)]))
    torch.testing.assert_close(module(x), torch.stack(expected))


def test_non_local_attention():
    """Wang et al. 2018, equations 1 and 4: y_i = Σ_j softmax_j(θ(x_i)·φ(x_j)) g(x_j), j over the subsampled positions."""
    module = NonLocal(8, 2).double().eval()
    nn.init.uniform_(module.norm.weight)
    x = torch.randn(1, 8, 6, 4, dtype=torch.float64)
    few = nn.functional.max_pool2d(x, 2)

    def at(conv, image, i, j):
        return conv.weight[:, :, 0, 0] @ image[0, :, i, j] + conv.bias

    places = [(i, j) for i in range(3) for j in range(2)]
    values = torch.stack([at(module.value, few, *place) for place in places])
    seen = []
    for i, j in ((i, j) for i in range(6) for j in range(4)):
        query = at(module.query, x, i, j)
        likeness = torch.stack([query @ at(module.key, few, *place) for place in places])
        seen.append(likeness.exp() / likeness.exp().sum() @ values)
    y = torch.stack(seen, 1).reshape(1, 4, 6, 4)
    torch.testing.assert_close(module(x), x + module.norm(module.out(y)))
