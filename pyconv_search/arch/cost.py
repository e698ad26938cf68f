"""What a network costs, in closed form: exact integers, folded over the Architecture, without building a model.

Conventions. ``params`` counts every trainable number: convolutions without bias, two per batch-normalised channel, the
linear layer with bias. ``macs`` counts multiply-adds of convolutions and of the linear layer for one image, zero-padded
positions included, and nothing else (the convention of the PSConv paper, Table 2, and of the PyConv paper, equation 1).
``activations`` counts the output elements of all convolutions and of the linear layer for one image (Radosavovic et al.
2020). ``receptive_field`` is the theoretical one of the last feature map, in input pixels along one side; where basic
blocks have groups narrower than their pattern it is an upper bound, since no channel meets every dilation on its way.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from pyconv_search.arch.dilation import dilations_used
from pyconv_search.arch.spec import (
    Architecture,
    Conv,
    Stage,
    Use,
    main_branch,
    pointwise,
    shortcut_pools,
    shortcut_projects,
)


@dataclass(frozen=True, slots=True)
class Part:
    """The cost of one named part; ``size`` is its output (channels, height, width)."""

    name: str
    params: int
    macs: int
    activations: int
    size: tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of a network, whole and by part (stem, stage1, …, head)."""

    params: int
    macs: int
    activations: int
    receptive_field: int
    parts: tuple[Part, ...]

    @property
    def gmacs(self) -> float:
        """Multiply-adds in units of 10⁹."""
        return self.macs / 1e9


def cost(arch: Architecture) -> Cost:
    """The cost of ``arch`` for one image of its input size."""
    channels, height, width = arch.input
    stem = arch.stem
    shape = (stem.width, shrunk(height, stem.stride), shrunk(width, stem.stride))
    weights = channels * stem.kernel**2 * stem.width
    positions = shape[1] * shape[2]
    parts = [Part("stem", weights + 2 * stem.width, weights * positions, stem.width * positions, shape)]
    field, jump = stem.kernel, stem.stride
    if stem.pool == "max":
        field, jump = field + 2 * jump, jump * 2
        shape = (stem.width, shrunk(shape[1], 2), shrunk(shape[2], 2))
        parts = [Part("stem", parts[0].params, parts[0].macs, parts[0].activations, shape)]
    for i, stage in enumerate(arch.stages, 1):
        (params, macs, activations, shape), distance = _stage(stage, shape)
        parts.append(Part(f"stage{i}", params, macs, activations, shape))
        field, jump = field + distance * jump, jump * stage.stride
    features = shape[0]
    parts.append(
        Part("head", (features + 1) * arch.classes, features * arch.classes, arch.classes, (arch.classes, 1, 1))
    )
    return Cost(
        params=sum(part.params for part in parts),
        macs=sum(part.macs for part in parts),
        activations=sum(part.activations for part in parts),
        receptive_field=field,
        parts=tuple(parts),
    )


def shrunk(side: int, stride: int) -> int:
    """The output side of an odd kernel with half-kernel padding."""
    return (side - 1) // stride + 1


def reach(conv: Conv, in_width: int) -> int:
    """How many pixels a convolution reaches beyond the one it is centred on, both sides together."""
    return max(
        (level.kernel - 1) * max(dilations_used(in_width, level.width, level.pattern, level.axes, level.groups))
        for level in conv.levels
    )


@lru_cache(maxsize=65536)
def _stage(stage: Stage, shape: tuple[int, int, int]) -> tuple[tuple[int, int, int, tuple[int, int, int]], int]:
    """(params, macs, activations, output shape) of a stage and its reach in pixels of its own input."""
    in_width, height, width = shape
    after = (shrunk(height, stage.stride), shrunk(width, stage.stride))
    first, reach_first = _branch(main_branch(stage, in_width, True), (height, width))
    if shortcut_projects(stage, in_width):
        projection, _ = _branch((Use(pointwise(stage.out), in_width, stage.stride),), (height, width))
        first = _plus(first, projection)
    if shortcut_pools(stage):
        reach_first = max(reach_first, 2)
    rest, reach_rest = _branch(main_branch(stage, in_width, False), after)
    more = stage.blocks - 1
    params, macs, activations = _plus(first, tuple(more * n for n in rest))
    return (params, macs, activations, (stage.out, *after)), reach_first + more * reach_rest * stage.stride


def _branch(uses: tuple[Use, ...], size: tuple[int, int]) -> tuple[tuple[int, ...], int]:
    """(params, macs, activations) of convolutions in a row, each with its batch normalisation, and their reach."""
    params = macs = activations = distance = 0
    jump = 1
    for use in uses:
        size = (shrunk(size[0], use.stride), shrunk(size[1], use.stride))
        positions = size[0] * size[1]
        weights = sum(use.in_width // v.groups * v.kernel**2 * v.width for v in use.conv.levels)
        params += weights + 2 * use.conv.width
        macs += weights * positions
        activations += use.conv.width * positions
        distance += reach(use.conv, use.in_width) * jump
        jump *= use.stride
    return (params, macs, activations), distance


def _plus(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(x + y for x, y in zip(a, b, strict=True))
