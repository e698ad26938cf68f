"""From a human's short description of a residual network to the Architecture: every default and rounding rule.

The keys are those of a space's ``network`` section (spaces/*.yaml explain each by example). All choices are settled
here; nothing after it decides a number again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pyconv_search.arch import heads
from pyconv_search.arch.blocks import BLOCKS, fed
from pyconv_search.arch.check import MOST_STAGES
from pyconv_search.arch.heads.head import Backbone
from pyconv_search.arch.pyramid import CONV_KEYS, StageKeys, conv, kernel
from pyconv_search.arch.spec import FORMS, POOLS, SHORTCUTS, Architecture, SqueezeExcite, Stage, Stem, pointwise
from pyconv_search.arch.strides import with_output_stride
from pyconv_search.fields import MOST, Fields, Path, Problems, integer, integers, nearest, path_text

IMAGENET_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}

DOUBLINGS = 17  # of the width, beyond which every width is too large


def resnet(settings: Mapping[str, Any], input: tuple[int, ...], classes: int) -> Architecture:
    """The architecture that ``settings`` describes, for images (channels, height, width) or video (with time second).

    Raises:
        SpecError: with every mistake and its key path inside ``settings``.
    """
    problems = Problems()
    fields = Fields(settings, (), problems)
    for key in ("input", "classes", "family", *CONV_KEYS):
        fields.take(key, None)
    video = len(input) == 4
    form = fields.text("form", "post", FORMS)
    stem = _stem(fields.section("stem", None), video)
    block, blocks = _blocks(fields)
    stages = _stages(fields, stem, block, blocks, video)
    kept = fields.integer("num_stages", len(stages))
    if fields.sound("num_stages") and kept > len(stages):
        text = f"must be an integer between 1 and {len(stages)}, but got {kept}; nearest: {len(stages)}"
        fields.add("num_stages", text)
    stages = stages[:kept]
    if video and "output_stride" in fields:
        fields.add("output_stride", "is for images, since it dilates; for video leave it out")
        fields.drop("output_stride")
    stages = with_output_stride(stem, stages, fields)
    backbone = Backbone(stages[-1].out, stem.reduces * math.prod(stage.stride for stage in stages))
    head = heads.read(fields.take("head", None), (*fields.path, "head"), problems, backbone)
    fields.close()
    problems.check()
    return Architecture(stem, stages, classes, input, form=form, head=head)


def _stem(fields: Fields, video: bool) -> Stem:
    """The stem; without one, that of ResNet on ImageNet (7×7, 64, stride 2, max pooling), for video 5×7×7."""
    given = fields.take("kernel", None)
    default = (5, 7, 7) if video else 7
    stem = Stem(
        default if given is None else kernel(given, (*fields.path, "kernel"), fields.problems),
        fields.integer("width", 64),
        fields.integer("stride", 2),
        fields.text("pool", "max", POOLS),
        fields.integer("time_stride", 1),
    )
    fields.close()
    return stem


def _attention(own: Fields, common: Fields) -> tuple[SqueezeExcite | None, bool]:
    """What ``se`` (a reduction, a mapping of reduction and bias, or none) and ``non_local`` say for a stage."""
    shared, local = common.take("se", None), common.flag("non_local", False)
    mine, path = own.take("se", None), (*own.path, "se")
    if mine is None:
        mine, path = shared, (*common.path, "se")
    return _squeeze(mine, path, own.problems), own.flag("non_local", local)


def _squeeze(value: Any, path: Path, problems: Problems) -> SqueezeExcite | None:
    if value in (None, "none"):
        return None
    if not isinstance(value, Mapping):
        return SqueezeExcite(integer(value, path, problems))
    fields = Fields(value, path, problems)
    se = SqueezeExcite(fields.integer("reduction", 16), fields.flag("bias", False))
    fields.close()
    return se


def _blocks(fields: Fields) -> tuple[str, tuple[int, ...]]:
    """The kind of block and the number of blocks in each stage, from ``depth`` or ``blocks``."""
    depth, explicit = fields.integer("depth", None, low=8, high=10_000), fields.take("blocks", None)
    written = len(fields.items("stages", None))
    for key, listed in (("blocks", explicit), ("stages", fields.take("stages", None))):
        if isinstance(listed, (list, tuple)) and len(listed) > MOST_STAGES:
            fields.add(key, f"must be of at most {MOST_STAGES} stages, but got {len(listed):,}", own=True)
            return "basic", (1,)
    stages = written or (4 if depth in IMAGENET_BLOCKS else 3)
    bottleneck = stages == 4 and (depth or 0) >= 50
    block = fields.text("block", "bottleneck" if bottleneck else "basic", tuple(BLOCKS))
    if (depth is None) == (explicit is None):
        fields.add("depth", "give either depth or blocks (the number of blocks in each stage), one of the two")
        return block, (1,) * stages
    if depth is None:
        counts = integers(explicit, (*fields.path, "blocks"), fields.problems)
        if not counts:
            fields.add("blocks", "must have one entry for each stage, but got an empty list; nearest: [1]")
        return block, counts or (1,) * stages
    if stages == 4 and depth in IMAGENET_BLOCKS:
        return block, IMAGENET_BLOCKS[depth]
    unit = BLOCKS[block].layers * stages
    each, rest = divmod(depth - 2, unit)
    if rest or each < 1:
        legal = IMAGENET_BLOCKS if stages == 4 else [2 + unit * n for n in (max(each, 1), each + 1)]
        rule = f"{unit}·n + 2 for {stages} stages of {block} blocks"
        if not written:
            legal, rule = [*IMAGENET_BLOCKS, *legal], f"18, 34, 50, 101 or 152, or {rule}"
        elif stages == 4:
            rule = "18, 34, 50, 101 or 152 for four stages"
        fields.add("depth", f"must be {rule}, but got {depth}; nearest: {nearest(depth, legal)}")
    return block, (max(each, 1),) * stages


def _channels(own: Fields, key: str, default: int, blamed: Fields) -> int:
    """A number of channels; a default that is too large is a mistake of the width from which it follows."""
    found = int(own.integer(key, default))
    if found > MOST:
        text = (
            f"leads to {found:,} channels in {path_text(own.path)}, but there may be {MOST:,} at most; say {key} there"
        )
        own.problems.add((*blamed.path, "width"), text)
    return min(found, MOST)


def _stages(fields: Fields, stem: Stem, block: str, blocks: tuple[int, ...], video: bool) -> tuple[Stage, ...]:
    written = fields.items("stages", None) or [{}] * len(blocks)
    if len(written) != len(blocks):
        fields.add("stages", f"must have one entry for each of the {len(blocks)} stages, but got {len(written)}")
    levels = fields.take("levels", None)
    if isinstance(levels, (list, tuple)) and len(levels) != len(blocks):
        fields.add("levels", f"must be one number, or one for each of the {len(blocks)} stages, but got {levels}")
    width, shortcut = fields.integer("width", stem.width), fields.text("shortcut", "conv", SHORTCUTS)
    expansion = fields.integer("expansion", BLOCKS[block].expansion)
    pooled = stem.pool == "max" or stem.stride == 1
    stages, in_width = [], stem.width
    for i, (values, count) in enumerate(zip(written, blocks, strict=False)):
        own = Fields(values, (*fields.path, "stages", i), fields.problems)
        # Defaults have bounds, too: a list of many blocks would double the width without end.
        inner = _channels(own, "width", width * 2 ** min(i, DOUBLINGS), fields)
        out = _channels(own, "out", inner * expansion, own if "width" in own else fields)
        se, non_local = _attention(own, fields)
        stage = Stage(
            block,
            own.integer("blocks", count),
            pointwise(inner),
            out,
            own.integer("stride", 1 if i == 0 and pooled else 2),
            own.text("shortcut", shortcut, SHORTCUTS),
            own.integer("time_stride", 2 if video and i > 1 else 1),
            se,
            non_local,
        )
        stages.append(replace(stage, conv=conv(StageKeys(own, fields, i, video), inner, fed(stage, in_width))))
        own.close()
        in_width = out
    return tuple(stages)
