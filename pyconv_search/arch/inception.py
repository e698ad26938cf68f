"""Inception-ResNet-v2 (Szegedy, Ioffe, Vanhoucke, Alemi 2016), with any of its stages made of bottleneck blocks.

Layers and widths are those of the released network, on which Table 5 of PyConv's supplement was counted: stem,
reductions and the last pooling unpadded, so that 299×299 pixels become 35×35, 17×17 and 8×8. Its ``mixed_5b``,
``mixed_6a`` and ``mixed_7a`` are the transitions before the three stages, ``conv2d_7b`` is what stands behind them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import NamedTuple

from pyconv_search.arch import blocks
from pyconv_search.arch.blocks import Block, Place, Use, squeeze_excite
from pyconv_search.arch.spec import Architecture, Stage, Stem, pointwise
from pyconv_search.arch.trace import Tensor, Trace
from pyconv_search.fields import Path, Problems

LEAST_SIDE = 75  # leaves one position for the last unpadded reduction
STRIDE = 32


class Step(NamedTuple):
    """A convolution without bias, its normalisation and its rectifier."""

    width: int
    kernel: int | tuple[int, int] = 1
    stride: int = 1
    padded: bool = True


class Pool(NamedTuple):
    """A 3×3 pooling, of a kind as :meth:`pyconv_search.arch.trace.Trace.pool` names them."""

    kind: str
    stride: int
    padded: bool


Branch = tuple[Step | Pool, ...]
Branches = tuple[Branch, ...]

FIRST = Stem(3, 32, 2)
STEM: Branch = (
    Step(32, 3, 2, padded=False),
    Step(32, 3, padded=False),
    Step(64, 3),
    Pool("max-pool", 2, padded=False),
    Step(80),
    Step(192, 3, padded=False),
    Pool("max-pool", 2, padded=False),
)
STEM_WIDTH = 192
FINAL_WIDTH = 1536
FINAL: Branch = (Step(FINAL_WIDTH),)
TRANSITIONS: tuple[Branches, ...] = (
    (
        (Step(96),),
        (Step(48), Step(64, 5)),
        (Step(64), Step(96, 3), Step(96, 3)),
        (Pool("avg-pool", 1, padded=True), Step(64)),
    ),
    (
        (Step(384, 3, 2, padded=False),),
        (Step(256), Step(256, 3), Step(384, 3, 2, padded=False)),
        (Pool("max-pool", 2, padded=False),),
    ),
    (
        (Step(256), Step(384, 3, 2, padded=False)),
        (Step(256), Step(288, 3, 2, padded=False)),
        (Step(256), Step(288, 3), Step(320, 3, 2, padded=False)),
        (Pool("max-pool", 2, padded=False),),
    ),
)
# What the up-convolution of a block of each stage reads: block35, block17 and block8 of the released network.
BRANCHES: dict[str, Branches] = {
    "inception-a": ((Step(32),), (Step(32), Step(32, 3)), (Step(32), Step(48, 3), Step(64, 3))),
    "inception-b": ((Step(192),), (Step(128), Step(160, (1, 7)), Step(192, (7, 1)))),
    "inception-c": ((Step(192),), (Step(192), Step(224, (1, 3)), Step(256, (3, 1)))),
}
KINDS = tuple(BRANCHES)


def width_of(branches: Branches, in_width: int = 0) -> int:
    """The channels of the branches' outputs together; a branch that only pools has the ``in_width`` of its input."""
    return sum(steps[-1].width if isinstance(steps[-1], Step) else in_width for steps in branches)


def _up(stage: Stage, in_width: int, stride: int, time: int) -> tuple[Use, ...]:
    return (Use(stage.conv, width_of(BRANCHES[stage.block]), own=True),)


BLOCKS = {
    **{kind: Block(_up, layers=4, expansion=1, widens=True) for kind in KINDS},
    "bottleneck": blocks.BLOCKS["bottleneck"],
}


def check(arch: Architecture, problems: Problems) -> None:
    """What the family leaves open: the number of blocks, and what bottleneck blocks hold."""
    for f in fields(Stem):
        own, right = getattr(arch.stem, f.name), getattr(FIRST, f.name)
        if own != right:
            problems.add(("stem", f.name), f"is {right} in every inception-resnet network, but got {own}")
    if arch.form != "post":
        problems.add(("form",), f"must be post in an inception-resnet network, but got {arch.form!r}")
    if arch.dimensions != 2:
        problems.add(("input",), "an inception-resnet network is for images: channels×height×width")
    height, width = arch.input[-2:]
    if min(height, width) < LEAST_SIDE:
        problems.add(
            ("input",),
            f"{height}×{width} pixels are too few for the unpadded convolutions of an inception-resnet network; "
            f"at least {LEAST_SIDE}×{LEAST_SIDE}",
        )
    if len(arch.stages) != len(KINDS):
        problems.add(("stages",), f"an inception-resnet network has {len(KINDS)}, but got {len(arch.stages)}")
    for i, (stage, in_width) in enumerate(arch.walk()):
        _check_stage(stage, i, in_width, ("stages", i), problems)


def _check_stage(stage: Stage, index: int, in_width: int, path: Path, problems: Problems) -> None:
    if stage.stride != 1:
        problems.add((*path, "stride"), f"must be 1: the transition before it reduces, but got {stage.stride}")
    if stage.shortcut != "conv":
        problems.add((*path, "shortcut"), f"must be conv: the blocks keep the resolution, but got {stage.shortcut}")
    if stage.block not in KINDS:
        return
    if index < len(KINDS) and stage.block != KINDS[index]:
        problems.add((*path, "block"), f"must be {KINDS[index]} or bottleneck here, but got {stage.block}")
    if stage.out != in_width:
        problems.add((*path, "out"), f"the block adds to the {in_width} channels that reach it, but got {stage.out}")
    if stage.conv != pointwise(stage.out):
        problems.add((*path, "conv"), f"must be the 1×1 convolution to {stage.out} channels that ends the block")


def stride(arch: Architecture) -> int:
    """The same in all of them; unpadded borders come on top."""
    return STRIDE


def stem(t: Trace, x: Tensor, stem: Stem, form: str) -> Tensor:
    """Up to the second max pooling, 192 channels."""
    return _run(t, x, STEM)


def into(width: int, index: int) -> int:
    """The channels of the concatenated branches."""
    return width_of(TRANSITIONS[index], width) if index < len(TRANSITIONS) else width


def transition(t: Trace, x: Tensor, index: int) -> Tensor:
    """Parallel branches, concatenated."""
    return _parallel(t, x, TRANSITIONS[index])


def alike(form: str) -> bool:
    """The last block of the network is not like the others."""
    return False


def block(t: Trace, x: Tensor, stage: Stage, form: str, place: Place) -> Tensor:
    """Branches, concatenated, whose biased up-convolution is scaled and added to ``x``; or a bottleneck block."""
    if stage.block not in KINDS:
        return blocks.block(t, x, stage, form, place)
    y = t.conv("up", _parallel(t.within("branches"), x, BRANCHES[stage.block]), stage.out, 1, bias=True)
    y = squeeze_excite(t.within("se"), y, stage.se) if stage.se else y
    y = t.add(x, y)
    return y if linear(stage, place) else t.relu("act", y)


def linear(stage: Stage, place: Place) -> bool:
    """Whether the block is the network's last, which neither scales its branches nor rectifies its sum."""
    return stage.block == KINDS[-1] and place.last


def final(t: Trace, x: Tensor, form: str) -> Tensor:
    """A last 1×1 convolution."""
    return _run(t, x, FINAL)


def _run(t: Trace, x: Tensor, steps: Branch) -> Tensor:
    for i, step in enumerate(steps):
        if isinstance(step, Pool):
            x = t.pool(str(i), x, step.kind, 3, step.stride, step.padded)
        else:
            inner = t.within(str(i))
            x = inner.conv("conv", x, step.width, step.kernel, step.stride, padded=step.padded)
            x = inner.relu("act", inner.norm("norm", x))
    return x


def _parallel(t: Trace, x: Tensor, branches: Sequence[Branch]) -> Tensor:
    return t.cat([_run(t.within(str(i)), x, steps) for i, steps in enumerate(branches)])
