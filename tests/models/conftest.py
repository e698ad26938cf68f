"""Small networks that between them use every choice an Architecture has."""

from __future__ import annotations

import pytest

from pyconv_search.arch.resnet import resnet

POOLED = {"stem": {"kernel": 3, "width": 8, "stride": 2, "pool": "max"}}
PLAIN = {"stem": {"kernel": 3, "width": 8, "stride": 1, "pool": "none"}}
SETTINGS = {
    "basic": {"blocks": [1, 1], **PLAIN},
    "basic stem pool": {"blocks": [2, 1], **POOLED},
    "bottleneck": {"blocks": [1, 2], "block": "bottleneck", **PLAIN},
    "wide kernels": {"blocks": [1, 1], "kernels": 5, **PLAIN},
    "pyramid": {"blocks": [2, 1], "block": "bottleneck", "levels": [3, 2], **PLAIN},
    "pyramid basic": {"blocks": [1, 2], "levels": 2, "groups": 2, "shortcut": "max+conv", **PLAIN},
    "poly-scale": {"blocks": [1, 2], "block": "bottleneck", "pattern": [1, 2, 1, 4], **PLAIN},
    "poly-scale basic": {"blocks": [2, 1], "pattern": [1, 3], "axes": "output", **PLAIN},
    "poly-scale input": {"blocks": [1, 1], "block": "bottleneck", "pattern": [1, 2, 3], "axes": "input", **PLAIN},
    "dilated": {"blocks": [1, 1], "pattern": 2, **PLAIN},
    "depthwise": {"blocks": [1, 1], "block": "bottleneck", "stages": [{"groups": 8, "pattern": [1, 4]}, {}], **PLAIN},
    "pooled shortcut": {"blocks": [1, 1], "block": "bottleneck", "kernels": 1, "shortcut": "max+conv", **PLAIN},
    "pooled no projection": {
        "blocks": [2, 1],
        "shortcut": "max+conv",
        "stages": [{"width": 8, "stride": 2}, {"width": 8, "stride": 2}],
        **PLAIN,
    },
    "stride without width": {"blocks": [1, 1], "stages": [{"width": 8, "stride": 2}, {"width": 8}], **PLAIN},
    "pre-activation": {"blocks": [2, 1], "block": "bottleneck", "form": "pre", "pattern": [1, 2], **POOLED},
    "pre-activation basic": {"blocks": [1, 2], "form": "pre", "shortcut": "max+conv", **PLAIN},
    "improved": {"blocks": [2, 3], "block": "bottleneck", "form": "ires", "shortcut": "max+conv", **PLAIN},
    "improved long": {"blocks": [5, 2], "block": "bottleneck", "form": "ires", "levels": [2, 1], **PLAIN},
    "basic-pointwise": {"blocks": [1, 2], "block": "basic-pointwise", "levels": 2, "shortcut": "max+conv", **PLAIN},
    "squeeze-excitation": {"blocks": [1, 2], "block": "bottleneck", "se": 4, **PLAIN},
    "squeeze-excitation, biased": {"blocks": [2, 1], "se": {"reduction": 2, "bias": True}, "form": "pre", **PLAIN},
    "non-local": {"blocks": [1, 1], "block": "bottleneck", "stages": [{}, {"non_local": True}], **PLAIN},
    "output stride": {"blocks": [1, 2, 1], "block": "bottleneck", "output_stride": 2, "pattern": [1, 2], **PLAIN},
    "fewer stages": {"blocks": [1, 1, 1], "num_stages": 2, "output_stride": 1, "dilate": False, **PLAIN},
    "levels with patterns": {"blocks": [1, 1], "block": "bottleneck", "levels": 2, "pattern": [[1], [1, 2]], **POOLED},
}


@pytest.fixture(scope="session")
def variants():
    """All of them as architectures for images of one size."""
    return lambda image: [resnet(settings, image, 5) for settings in SETTINGS.values()]


@pytest.fixture(params=SETTINGS)
def small(request):
    """One of them, for 3×32×32 images and five classes."""
    return resnet(SETTINGS[request.param], (3, 32, 32), 5)
