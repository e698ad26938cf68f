"""Networks with a name, as the settings that :func:`pyconv_search.arch.readers.read` reads.

A name is a backbone's, or a backbone's and a head's with a plus between them: ``ps-resnet-50+fpn``. Hyphens and
capitals do not matter.
"""

from __future__ import annotations

import re
from typing import Any

from pyconv_search.arch.inception_settings import INCEPTION_RESNET_V2, PYCONV_INCEPTION
from pyconv_search.arch.readers import read
from pyconv_search.arch.resnet import IMAGENET_BLOCKS
from pyconv_search.arch.spec import Architecture
from pyconv_search.errors import UserError
from pyconv_search.fields import Problem, SpecError, suggestion

Settings = dict[str, Any]

_DEEP = (50, 101, 152)
_NO_POOL: Settings = {"stem": {"pool": "none"}, "shortcut": "max+conv"}
_PYRAMID: Settings = {"levels": [4, 3, 2, 1]}
_POLY: Settings = {"pattern": [1, 2, 1, 4]}
_RESNEXT: Settings = {"width": 128, "expansion": 2, "groups": 32}
_SE_BIASED: Settings = {"se": {"reduction": 16, "bias": True}}
_CIFAR: Settings = {
    "stem": {"kernel": 3, "width": 16, "stride": 1, "pool": "none"},
    "input": [3, 32, 32],
    "classes": 10,
}
_VIDEO: Settings = {"depth": 50, "input": [3, 16, 224, 224], "classes": 400}


def _depths(name: str, depths: tuple[int, ...], settings: Settings) -> dict[str, Settings]:
    return {name.format(depth): {"depth": depth, **settings} for depth in depths}


def _resnext_29(groups: int) -> Settings:
    """ResNeXt-29 of CIFAR (Xie et al. 2017, section 5.2): three bottleneck stages, 64 channels a group and up."""
    return {
        "depth": 29,
        "block": "bottleneck",
        "input": [3, 32, 32],
        "classes": 100,
        "stem": {"kernel": 3, "width": 64, "stride": 1, "pool": "none"},
        "groups": groups,
        "stages": [{"width": groups * 64 * 2**i, "out": 256 * 2**i} for i in range(3)],
    }


_HG: Settings = {
    "width": 128,
    "expansion": 2,
    "stages": [{"groups": groups} for groups in ([32, 32, 32, 32], [32, 64, 64], [32, 64], [32])],
}

PRESETS: dict[str, Settings] = {
    **_depths("resnet-{}", tuple(IMAGENET_BLOCKS), {}),
    **_depths("resnet-{}-cifar", (20, 32, 44, 56, 110), _CIFAR),
    **_depths("preact-resnet-{}", _DEEP, {"form": "pre"}),
    **_depths("iresnet-{}", _DEEP, {"form": "ires", **_NO_POOL}),
    **_depths("nl-resnet-{}", _DEEP, {"non_local": True}),
    **_depths("se-resnet-{}", _DEEP, {"se": 16}),
    **_depths("se-resnet-{}-biased", _DEEP[:2], _SE_BIASED),
    **_depths("resnext-{}-32x4d", _DEEP, _RESNEXT),
    **_depths("pyconvresnet-{}", tuple(IMAGENET_BLOCKS), {**_PYRAMID, **_NO_POOL}),
    **_depths("pyconvresnet-{}-pointwise", (18, 34), {"block": "basic-pointwise", **_PYRAMID, **_NO_POOL}),
    **_depths("pyconvhgresnet-{}", _DEEP, {**_PYRAMID, **_HG, **_NO_POOL}),
    "pyconvresnet-50-2221": {"depth": 50, "levels": [2, 2, 2, 1]},
    "pyconvresnet-50-3321": {"depth": 50, "levels": [3, 3, 2, 1]},
    "pyconvresnet-50-4321": {"depth": 50, **_PYRAMID},
    "pyconvresnet-50-top4321": {
        "depth": 50,
        "stages": [{"kernels": k, "groups": g} for k, g in ((9, 16), (7, 8), (5, 4), (3, 1))],
    },
    "pyconvresnet-50-5432": {"depth": 50, "levels": [5, 4, 3, 2]},
    "pyconvresnet-50-4321-max": {
        "depth": 50,
        **_PYRAMID,
        "stem": {"pool": "none"},
        "stages": [{"shortcut": "max+conv"}, {}, {}, {}],
    },
    **_depths("ps-resnet-{}", _DEEP[:2], _POLY),
    **_depths("ps-se-resnet-{}", _DEEP[:2], {**_POLY, **_SE_BIASED}),
    **_depths("ps-resnext-{}-32x4d", _DEEP[:2], {**_POLY, **_RESNEXT}),
    "drn-a-50": {"depth": 50, "output_stride": 8},
    **{f"resnext-29-{g}x64d": _resnext_29(g) for g in (8, 16)},
    **{f"ps-resnext-29-{g}x64d": {**_resnext_29(g), **_POLY} for g in (8, 16)},
    "inception-resnet-v2": INCEPTION_RESNET_V2,
    "pyconvinception": PYCONV_INCEPTION,
    "resnet3d-50": _VIDEO,
    "pyconvresnet3d-50": {**_VIDEO, **_PYRAMID, **_NO_POOL},
}


def _segmentation(kind: str, output_stride: int) -> Settings:
    return {"head": kind, "output_stride": output_stride, "input": [3, 473, 473], "classes": 150}


_SSD: Settings = {"num_stages": 3, "output_stride": 8, "dilate": False, "input": [3, 300, 300], "classes": 81}

# What a head asks of the backbone before it, and the sizes for which the papers print its costs.
HEADS: dict[str, Settings] = {
    **{kind: _segmentation(kind, 8) for kind in ("conv3x3", "aspp", "ppm", "pyconvph")},
    **{f"{kind}-os16": _segmentation(kind, 16) for kind in ("conv3x3", "aspp", "ppm", "pyconvph")},
    "ssd": {"head": "ssd", **_SSD},
    "pyconvssd": {"head": "pyconvssd", **_SSD},
    "fpn": {"head": "fpn", "input": [3, 800, 1344]},
}


def preset(name: str) -> Architecture:
    """The named network at its published input size.

    Raises:
        UserError: with the nearest known name; SpecError if the head asks what the backbone does not have.
    """
    try:
        return read(settings_of(name))
    except SpecError as error:
        backbone, _, head = name.partition("+")
        asked = ", ".join(f"{key} {value}" for key, value in _found(head, _HEADS, "head").items() if key != "head")
        why = f"{name}: {head} is published with {asked}, which {backbone} cannot have; a space may say otherwise"
        raise SpecError([Problem((), why), *error.problems]) from None


def is_preset(name: str) -> bool:
    """Whether :func:`preset` knows the name."""
    backbone, _, head = name.partition("+")
    return _plain(backbone) in _BACKBONES and ("+" not in name or _plain(head) in _HEADS)


def settings_of(name: str) -> Settings:
    """The settings of the named network."""
    backbone, plus, head = name.partition("+")
    found = dict(_found(backbone, _BACKBONES, "network"))
    if not plus:
        return found
    asked = _found(head, _HEADS, "head")
    if len(found.get("input", ())) == 4:
        raise UserError(f"{name}: the head {head} is for images, but {backbone} is for video; leave the head out")
    return {**found, **asked}


def _plain(name: str) -> str:
    return re.sub(r"[-_ ]", "", name).lower()


_BACKBONES = {_plain(name): (name, settings) for name, settings in PRESETS.items()}
_HEADS = {_plain(name): (name, settings) for name, settings in HEADS.items()}


def _found(name: str, known: dict[str, tuple[str, Settings]], what: str) -> Settings:
    if _plain(name) not in known:
        names = [own for own, _ in known.values()]
        hint = suggestion(name, names) or f"; known: {', '.join(names)}"
        raise UserError(f"unknown {what} {name!r}{hint}")
    return known[_plain(name)][1]
