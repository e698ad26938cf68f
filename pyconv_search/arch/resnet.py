"""From a human's short description of a residual network to the Architecture: every default and rounding rule.

The keys are those of a space's ``network`` section (spaces/*.yaml explain each by example). All choices are settled
here; nothing after it decides a number again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyconv_search.arch.blocks import BLOCKS
from pyconv_search.arch.pyramid import CONV_KEYS, StageKeys, conv
from pyconv_search.arch.spec import POOLS, SHORTCUTS, Architecture, Stage, Stem
from pyconv_search.fields import Fields, Problems, integers, nearest

IMAGENET_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
LAYERS_OF_BLOCK = {"basic": 2, "bottleneck": 3}
EXPANSION = {"basic": 1, "bottleneck": 4}


def resnet(settings: Mapping[str, Any], input: tuple[int, int, int], classes: int) -> Architecture:
    """The architecture that ``settings`` describes, for images of ``input`` = (channels, height, width).

    Raises:
        SpecError: with every mistake and its key path inside ``settings``.
    """
    problems = Problems()
    fields = Fields(settings, (), problems)
    for key in ("input", "classes", "family", *CONV_KEYS):
        fields.take(key, None)
    stem = _stem(fields.section("stem", None))
    block, blocks = _blocks(fields)
    stages = _stages(fields, stem, block, blocks)
    fields.close()
    problems.check()
    return Architecture(stem, stages, classes, input)


def _stem(fields: Fields) -> Stem:
    """The stem; without one, that of ResNet on ImageNet (7×7, 64, stride 2, max pooling)."""
    stem = Stem(
        fields.integer("kernel", 7),
        fields.integer("width", 64),
        fields.integer("stride", 2),
        fields.text("pool", "max", POOLS),
    )
    fields.close()
    return stem


def _blocks(fields: Fields) -> tuple[str, tuple[int, ...]]:
    """The kind of block and the number of blocks in each stage, from ``depth`` or ``blocks``."""
    depth, explicit = fields.integer("depth", None, low=8, high=10_000), fields.take("blocks", None)
    written = len(fields.items("stages", None))
    stages = written or (4 if depth in IMAGENET_BLOCKS else 3)
    bottleneck = stages == 4 and (depth or 0) >= 50
    block = fields.text("block", "bottleneck" if bottleneck else "basic", tuple(BLOCKS))
    if (depth is None) == (explicit is None):
        fields.add("depth", "give either depth or blocks (the number of blocks in each stage), one of the two")
        return block, (1,) * stages
    if depth is None:
        return block, integers(explicit, (*fields.path, "blocks"), fields.problems)
    if stages == 4 and depth in IMAGENET_BLOCKS:
        return block, IMAGENET_BLOCKS[depth]
    unit = LAYERS_OF_BLOCK[block] * stages
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


def _stages(fields: Fields, stem: Stem, block: str, blocks: tuple[int, ...]) -> tuple[Stage, ...]:
    written = fields.items("stages", None) or [{}] * len(blocks)
    if len(written) != len(blocks):
        fields.add("stages", f"must have one entry for each of the {len(blocks)} stages, but got {len(written)}")
    levels = fields.take("levels", None)
    if isinstance(levels, (list, tuple)) and len(levels) != len(blocks):
        fields.add("levels", f"must be one number, or one for each of the {len(blocks)} stages, but got {levels}")
    width, shortcut = fields.integer("width", stem.width), fields.text("shortcut", "conv", SHORTCUTS)
    expansion = fields.integer("expansion", EXPANSION[block])
    pooled = stem.pool == "max" or stem.stride == 1
    stages, in_width = [], stem.width
    for i, (values, count) in enumerate(zip(written, blocks, strict=False)):
        own = Fields(values, (*fields.path, "stages", i), fields.problems)
        inner = own.integer("width", width * 2**i)
        out = own.integer("out", inner * expansion)
        fed = {inner} if block == "bottleneck" else {in_width, out}
        stages.append(
            Stage(
                block,
                own.integer("blocks", count),
                conv(StageKeys(own, fields, i), inner, fed),
                out,
                own.integer("stride", 1 if i == 0 and pooled else 2),
                own.text("shortcut", shortcut, SHORTCUTS),
            )
        )
        own.close()
        in_width = out
    return tuple(stages)
