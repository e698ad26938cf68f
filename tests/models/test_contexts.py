"""What the segmentation heads compute, written out as in the papers' figures."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from pyconv_search.arch.resnet import resnet
from pyconv_search.models import build

SETTINGS = {"blocks": [1, 1], "block": "bottleneck", "width": 8, "stem": {"width": 8}}


def resized(x, size):
    return interpolate(x, size, mode="bilinear", align_corners=True)


def conv3x3(head, x):
    return head.out(x)


def aspp(head, x):
    """Chen et al. 2017, figure 5: 1×1, three dilations, the image's average, concatenated and fused."""
    image = resized(head.image(x.mean((2, 3), keepdim=True)), x.shape[2:])
    return head.out(torch.cat([head.pointwise(x), *(unit(x) for unit in head.atrous), image], 1))


def ppm(head, x):
    """Zhao et al. 2017, figure 3: the features and their averages over 1, 2, 3 and 6 bins."""
    sides = (1, 2, 3, 6)
    averages = [unit(adaptive_avg_pool2d(x, n)) for n, unit in zip(sides, head.branches, strict=True)]
    return head.out(torch.cat([x, *(resized(y, x.shape[2:]) for y in averages)], 1))


def pyconvph(head, x):
    """PyConv, figures 5 and 6: the local pyramid on the features, the global one on 9×9 averages, merged."""
    y = head.global_branch.fuse(head.global_branch.pyramid(head.global_branch.reduce(adaptive_avg_pool2d(x, 9))))
    local = head.local_branch.fuse(head.local_branch.pyramid(head.local_branch.reduce(x)))
    return head.out(torch.cat([local, resized(y, x.shape[2:])], 1))


@pytest.mark.parametrize("context", [conv3x3, aspp, ppm, pyconvph], ids=lambda f: f.__name__)
def test_logits(context):
    torch.manual_seed(0)
    network = build(resnet({**SETTINGS, "head": context.__name__}, (3, 81, 97), 5)).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.bias.data, module.running_mean, module.running_var):
                tensor.uniform_(0.5, 1.5)
    x = torch.randn(2, 3, 81, 97)
    with torch.no_grad():
        low = network.head.classify(context(network.head.context, network.features(x)[-1]))
        logits = network(x)
        torch.testing.assert_close(logits, resized(low, (81, 97)))
        first, auxiliary = network.train()(x)
        assert first.shape == auxiliary.shape == logits.shape
    torch.testing.assert_close(logits[:, :, 0, 0], low[:, :, 0, 0])
    torch.testing.assert_close(logits[:, :, -1, -1], low[:, :, -1, -1])
