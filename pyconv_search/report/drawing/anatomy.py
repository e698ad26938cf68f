"""What the parts of a network are made of, in words and in order, for its drawing and for its description in text.

The order of normalisation and activation is read from the traced layers, which the costs are counted on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pyconv_search.arch.blocks import Place, main_branch, shortcut_pools, shortcut_projects
from pyconv_search.arch.families import FAMILIES
from pyconv_search.arch.heads.classifier import Classifier
from pyconv_search.arch.heads.segmentation import SegmentationHead
from pyconv_search.arch.heads.ssd import SSD
from pyconv_search.arch.inception import BRANCHES, Branches, Pool, Step
from pyconv_search.arch.network import CLASSIFIER, parts, places, taps
from pyconv_search.arch.spec import Architecture, Conv, SqueezeExcite, Stage
from pyconv_search.arch.trace import Layer

FORMS = {"post": "", "pre": "pre-activation", "ires": "improved residual blocks"}
KINDS = {"conv3x3": "3×3 convolution", "aspp": "ASPP", "ppm": "PPM", "pyconvph": "PyConvPH", "ssd": "SSD", "fpn": "FPN"}
MARKS = {"norm": "BN", "relu": "ReLU"}


@dataclass(frozen=True, slots=True)
class Used:
    """A convolution of the specification, the channels that reach it, and where: ``stage 1``, ``head``."""

    where: str
    conv: Conv
    in_width: int


def is_inception(stage: Stage) -> bool:
    """Whether its blocks are those of Inception-ResNet, with parallel branches."""
    return stage.block in BRANCHES


def used(arch: Architecture) -> Iterator[Used]:
    """Every convolution in the first block of each stage, then those of the head."""
    for i, (stage, in_width) in enumerate(arch.walk(), 1):
        for use in main_branch(stage, in_width, True, FAMILIES[arch.family].BLOCKS):
            yield Used(f"stage {i}", use.conv, use.in_width)
    head = arch.head
    if isinstance(head, SegmentationHead):
        pyramids = (conv for conv in (head.local_pyramid, head.global_pyramid) if conv is not None)
        yield from (Used("head", conv, head.branch or 0) for conv in pyramids)
    elif isinstance(head, SSD):
        yield from (Used("head", conv, inner) for conv, inner in zip(head.convs, head.inner, strict=True))


def order(layers: Sequence[Layer]) -> tuple[str, ...]:
    """The main branch of a traced block as ``conv``, ``BN``, ``ReLU``, ``SE`` and ``+``; a pyramid is one ``conv``."""
    found: list[str] = []
    for layer in layers:
        if layer.name.startswith("shortcut."):
            continue
        if layer.name.startswith("se.") or layer.kind == "mul":
            found += ["SE"] if found[-1] != "SE" else []
        elif layer.kind == "conv" and layer.level <= 1:
            found.append("conv")
        elif layer.kind == "add":
            found.append("+")
        elif layer.kind in MARKS:
            found.append(MARKS[layer.kind])
    return tuple(found)


def marks(found: Sequence[str]) -> list[str]:
    """What stands before the first, between all and behind the last of the ``conv``, ``SE`` and ``+`` of an order."""
    gaps: list[list[str]] = [[]]
    for word in found:
        if word in MARKS.values():
            gaps[-1].append(word)
        else:
            gaps.append([])
    return [", ".join(gap) for gap in gaps]


def blocks(arch: Architecture) -> list[list[tuple[Place, tuple[Layer, ...]]]]:
    """The traced blocks of every stage, one of each kind."""
    traced = {name: unit for part in parts(arch) for unit in part.units for name in unit.names}
    alike = FAMILIES[arch.family].alike(arch.form)
    return [
        [(place, traced[f"stages.{i}.{numbers[0]}"].layers) for place, numbers in places(stage.blocks, alike)]
        for i, stage in enumerate(arch.stages)
    ]


def shortcut_words(stage: Stage, in_width: int) -> tuple[str, ...]:
    """``max pool``, ``1×1 conv``: the layers of the first block's shortcut; none where it is the identity."""
    return ("max pool",) * shortcut_pools(stage) + ("1×1 conv",) * shortcut_projects(stage, in_width)


def shortcut_text(stage: Stage, in_width: int) -> str:
    """``identity``; ``1×1 conv``; ``max pool, 1×1 conv``."""
    return ", ".join(shortcut_words(stage, in_width)) or "identity"


def stride_words(stride: int, time_stride: int, dimensions: int) -> str:
    """``stride 2``; for video, along time, height and width, ``stride 1×2×2``."""
    return f"stride {stride}" if dimensions == 2 else f"stride {time_stride}×{stride}×{stride}"


def se_words(se: SqueezeExcite) -> str:
    """``SE, r = 16``: squeeze-excitation and its reduction, with biases or without."""
    return f"SE, r = {se.reduction}" + (", biased" if se.bias else "")


def kernel_text(kernel: int | tuple[int, ...], dimensions: int = 2) -> str:
    """``3×3``; in a network for video (3 ``dimensions``) ``3×3×3``; for a (time, height, width) kernel ``3×7×7``."""
    return "×".join(map(str, (kernel,) * dimensions if isinstance(kernel, int) else kernel))


def step_words(layer: Step | Pool) -> str:
    """``3×3, 384, /2 V``: kernel, channels, stride, V for no padding, as in Szegedy et al. 2016."""
    if isinstance(layer, Step):
        what = f"{kernel_text(layer.kernel)}, {layer.width}"
    else:
        what = "3×3 max pool" if layer.kind == "max-pool" else "3×3 average pool"
    more = " ".join(word for word, holds in ((f"/{layer.stride}", layer.stride > 1), ("V", not layer.padded)) if holds)
    return f"{what}, {more}" if more else what


def branches_words(branches: Branches) -> list[str]:
    """``1×1, 48 → 5×5, 64`` for every branch."""
    return [" → ".join(map(step_words, branch)) for branch in branches]


def stages_text(stages: Sequence[int]) -> str:
    """``stage 1``, ``stages 1–4``, ``stages 1, 3``."""
    if len(stages) == 1:
        return f"stage {stages[0]}"
    whole = list(stages) == list(range(stages[0], stages[-1] + 1)) and len(stages) > 2
    return f"stages {stages[0]}–{stages[-1]}" if whole else f"stages {', '.join(map(str, stages))}"


def reads(arch: Architecture) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The stages, counted from 1, whose features the head reads always, and those that it reads in training only."""
    always, ever = taps(arch, training=False), taps(arch)
    return tuple(i + 1 for i in always), tuple(i + 1 for i in ever if i not in always)


def head_words(arch: Architecture) -> str:
    """``PyConvPH, reads stage 4, in training stage 3 too``; of a classifier, its layers."""
    head = arch.head or CLASSIFIER
    if isinstance(head, Classifier):
        return f"global average pool, linear to {arch.classes}"
    always, training = reads(arch)
    more = f", in training {stages_text(training)} too" if training else ""
    return f"{KINDS[head.kind]}, reads {stages_text(always)}{more}"


def form_words(arch: Architecture) -> str:
    """``pre-activation``; nothing for the usual order of layers."""
    return FORMS[arch.form]


def size_words(size: Sequence[int]) -> str:
    """``256×56×56``."""
    return "×".join(map(str, size))
