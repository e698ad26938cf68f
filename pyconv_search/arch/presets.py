"""Networks with a name, as the settings that :func:`pyconv_search.arch.resnet.resnet` reads."""

from __future__ import annotations

from typing import Any

from pyconv_search.arch.resnet import IMAGENET_BLOCKS, resnet
from pyconv_search.arch.spec import Architecture
from pyconv_search.errors import UserError
from pyconv_search.fields import suggestion

_NO_POOL = {"stem": {"pool": "none"}, "shortcut": "max+conv"}
_CIFAR = {"stem": {"kernel": 3, "width": 16, "stride": 1, "pool": "none"}, "input": [3, 32, 32], "classes": 10}
_RESNEXT_29 = {
    "depth": 29,
    "block": "bottleneck",
    "input": [3, 32, 32],
    "classes": 100,
    "stem": {"kernel": 3, "width": 64, "stride": 1, "pool": "none"},
}

PRESETS: dict[str, dict[str, Any]] = {
    **{f"resnet{depth}": {"depth": depth} for depth in IMAGENET_BLOCKS},
    **{f"resnet{depth}-cifar": {"depth": depth, **_CIFAR} for depth in (20, 32, 44, 56, 110)},
    **{f"pyconvresnet{depth}": {"depth": depth, "levels": [4, 3, 2, 1], **_NO_POOL} for depth in IMAGENET_BLOCKS},
    **{f"ps-resnet{depth}": {"depth": depth, "pattern": [1, 2, 1, 4]} for depth in (50, 101)},
    **{
        f"resnext{depth}-32x4d": {"depth": depth, "width": 128, "expansion": 2, "groups": 32}
        for depth in (50, 101, 152)
    },
    **{
        f"ps-resnext{depth}-32x4d": {
            "depth": depth,
            "width": 128,
            "expansion": 2,
            "groups": 32,
            "pattern": [1, 2, 1, 4],
        }
        for depth in (50, 101)
    },
    **{
        f"resnext29-{g}x64d": {
            **_RESNEXT_29,
            "groups": g,
            "stages": [{"width": g * 64 * 2**i, "out": 256 * 2**i} for i in range(3)],
        }
        for g in (8, 16)
    },
}


def preset(name: str) -> Architecture:
    """The named network at its published input size. Raises UserError with the nearest known name."""
    if name not in PRESETS:
        raise UserError(f"unknown network {name!r}{suggestion(name, PRESETS)}; known: {', '.join(PRESETS)}")
    settings = PRESETS[name]
    return resnet(settings, tuple(settings.get("input", (3, 224, 224))), settings.get("classes", 1000))
