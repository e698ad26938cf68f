"""From a human's short description of an Inception-ResNet to the Architecture, and the two networks with a name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyconv_search.arch import heads, inception
from pyconv_search.arch.heads.head import Backbone
from pyconv_search.arch.pyramid import CONV_KEYS, StageKeys, conv
from pyconv_search.arch.spec import FORMS, Architecture, Stage, pointwise
from pyconv_search.fields import Fields, Problems, integers

FAMILY = "inception-resnet"
BLOCKS = ("inception", "bottleneck")
COUNTS = (10, 20, 10)
EXPANSION = 4
# Keys of residual networks that have no place here, each with the reason.
_NOT_HERE = {
    "num_stages": "an inception-resnet network has three; leave it out",
    "depth": "give blocks, the number of blocks in each of the three stages",
    "stem": "the stem of an inception-resnet network is fixed; leave it out",
    "shortcut": "the shortcuts of an inception-resnet network keep the shape; leave it out",
    "dilate": "there is no stride that dilation could replace; leave it out",
    "output_stride": f"an inception-resnet network always reduces each side {inception.STRIDE} times; leave it out",
}

INCEPTION_RESNET_V2: dict[str, Any] = {"family": FAMILY, "input": [3, 299, 299], "blocks": [10, 20, 10]}

# Ours: PyConv's supplement prints the size of its PyConvInception (Table 5: 43.48 M parameters, 11.92 G operations) and
# not what it is made of. Of the designs with its blocks in all three stages, the released groups and splits, never more
# levels in a later stage, and widths that grow by multiples of 16, this one is closest: 43.50 M and 11.92 G.
PYCONV_INCEPTION: dict[str, Any] = {
    **INCEPTION_RESNET_V2,
    "block": "bottleneck",
    "levels": [3, 3, 2],
    "stages": [{"width": 160}, {"width": 176}, {"width": 272}],
}


def read(settings: Mapping[str, Any], input: tuple[int, ...], classes: int) -> Architecture:
    """The architecture that ``settings`` describes, for images of ``input`` = (channels, height, width).

    ``blocks`` counts those of the three stages, [10, 20, 10] by default. ``block``, for all stages or in an entry of
    ``stages``, is ``inception`` (the default), which leaves nothing open, or ``bottleneck`` with ``width``, ``out`` and
    the convolution keys of :mod:`pyconv_search.arch.pyramid`. ``head`` is as in residual networks.

    Raises:
        SpecError: with every mistake and its key path inside ``settings``.
    """
    problems = Problems()
    fields = Fields(settings, (), problems)
    for key in ("input", "classes", "family", *CONV_KEYS):
        fields.take(key, None)
    for key, reason in _NOT_HERE.items():
        if fields.take(key, None) is not None:
            fields.add(key, reason)
    form = fields.text("form", "post", FORMS)
    stages = _stages(fields)
    backbone = Backbone(inception.FINAL_WIDTH, inception.STRIDE)
    head = heads.read(fields.take("head", None), (*fields.path, "head"), problems, backbone)
    fields.close()
    problems.check()
    return Architecture(inception.FIRST, stages, classes, input, FAMILY, form, head)


def _stages(fields: Fields) -> tuple[Stage, ...]:
    most = len(COUNTS)
    counts = integers(fields.take("blocks", COUNTS), (*fields.path, "blocks"), fields.problems)
    written = fields.items("stages", None) or [{}] * most
    levels = fields.take("levels", None)
    for key, values in (("blocks", counts), ("stages", written), ("levels", levels)):
        if isinstance(values, (list, tuple)) and len(values) != most:
            fields.add(key, f"must have one entry for each of the {most} stages, but got {len(values)}")
    block = fields.text("block", BLOCKS[0], BLOCKS)
    stages: list[Stage] = []
    for i, (values, count) in enumerate(zip(written[:most], counts, strict=False)):
        own = Fields(values, (*fields.path, "stages", i), fields.problems)
        in_width = inception.into(stages[-1].out if stages else inception.FIRST.width, i)
        if own.text("block", block, BLOCKS) == "bottleneck":
            stages.append(_bottleneck(own, fields, i, in_width, count))
        else:
            _leaves_out(own, ("width", "out", *CONV_KEYS))
            stages.append(Stage(inception.KINDS[i], own.integer("blocks", count), pointwise(in_width), in_width, 1))
        own.close()
    if all(stage.block != "bottleneck" for stage in stages):
        _leaves_out(fields, CONV_KEYS)
    return tuple(stages)


def _bottleneck(own: Fields, common: Fields, index: int, in_width: int, count: int) -> Stage:
    out = own.integer("out", in_width)
    inner = own.integer("width", max(out // EXPANSION, 1))
    wide = conv(StageKeys(own, common, index), inner, {inner})
    return Stage("bottleneck", own.integer("blocks", count), wide, out, 1)


def _leaves_out(fields: Fields, keys: tuple[str, ...]) -> None:
    """An inception block has its own widths and kernels; what is written beside it would have no effect."""
    for key in keys:
        if fields.take(key, None) is not None:
            fields.add(key, "is for bottleneck blocks; add block: bottleneck, or leave it out")
