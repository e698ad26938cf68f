"""The parts of a network as cards: input, stem, stages, what stands behind them, head."""

from __future__ import annotations

from pyconv_search.arch.cost import Cost, Part
from pyconv_search.arch.inception import FINAL, STEM
from pyconv_search.arch.network import parts
from pyconv_search.arch.spec import Architecture, Conv, Level
from pyconv_search.arch.trace import Layer
from pyconv_search.report.drawing.anatomy import (
    blocks,
    is_inception,
    marks,
    order,
    reads,
    shortcut_text,
    stride_words,
    used,
)
from pyconv_search.report.drawing.block import around, block, chain
from pyconv_search.report.drawing.flow import box, column
from pyconv_search.report.drawing.head import head_facts, head_layers
from pyconv_search.report.drawing.lattice import lattices, letters
from pyconv_search.report.drawing.pen import kernel_face
from pyconv_search.report.drawing.row import Card
from pyconv_search.report.drawing.slab import Scale, convolution

TAP, MOST_FACE = 4.6, 48.0


def cards(arch: Architecture, found: Cost) -> list[Card]:
    """All parts of ``arch``, which costs ``found``, from the input to the head."""
    costs = {part.name: part for part in found.parts}
    scale = _scale(arch)
    marked = _marked(arch, "final" in costs)
    made = [Card("Input", (_size(arch.input),), None), _stem(arch, costs["stem"], scale)]
    for i, traced in enumerate(blocks(arch)):
        made.append(_stage(arch, i, costs[f"stage{i + 1}"], marked.get(f"stage{i + 1}", ""), scale, traced[0][1]))
    if "final" in costs:
        part = costs["final"]
        layers = chain(FINAL) if arch.family == "inception-resnet" else box("BN, ReLU")
        made.append(Card("Final", (_size(part.size),), layers, (part.params, part.macs), read=marked.get("final", "")))
    part = costs["head"]
    return [*made, Card("Head", head_facts(arch), head_layers(arch, scale), (part.params, part.macs))]


def _scale(arch: Architecture) -> Scale:
    kernels = [arch.stem.kernel, *(level.kernel for use in used(arch) for level in use.conv.levels)]
    widest = max(max(kernel_face(kernel)) for kernel in kernels)
    return Scale(min(TAP, MOST_FACE / widest), letters(lattices(arch)), arch.dimensions)


def _marked(arch: Architecture, final: bool) -> dict[str, str]:
    """The parts that the head reads, and how; none for a classifier, which reads what comes last."""
    if arch.head is None:
        return {}
    always, training = reads(arch)
    found = {f"stage{i}": "→ head" for i in always} | {f"stage{i}": "→ head, in training" for i in training}
    last = f"stage{len(arch.stages)}"
    return {"final" if final and name == last else name: words for name, words in found.items()}


def _stem(arch: Architecture, part: Part, scale: Scale) -> Card:
    stem, numbers = arch.stem, (part.params, part.macs)
    if arch.family == "inception-resnet":
        return Card("Stem", (_size(part.size),), chain(STEM), numbers)
    traced = next(parts(arch)).units[0].layers
    behind = marks(order(traced))[-1]
    conv = convolution(Conv((Level(stem.kernel, stem.width),)), arch.input[0], scale)
    pool = "3×3 max pool, /2" if arch.dimensions == 2 else "1×3×3 max pool, /1×2×2"
    layers = column([conv, box(pool)], [behind]) if stem.pool == "max" else column([conv], end=behind)
    facts = (_size(part.size), stride_words(stem.stride, stem.time_stride, arch.dimensions))
    return Card("Stem", facts, layers, numbers)


def _stage(arch: Architecture, index: int, part: Part, read: str, scale: Scale, traced: tuple[Layer, ...]) -> Card:
    stage, in_width = list(arch.walk())[index]
    stride = "" if is_inception(stage) else f", {stride_words(stage.stride, stage.time_stride, arch.dimensions)}"
    facts = (_size(part.size), stage.block + stride, f"shortcut: {shortcut_text(stage, in_width)}")
    layers = around(arch, index, block(arch, stage, in_width, traced, scale))
    return Card(f"Stage {index + 1}", facts, layers, (part.params, part.macs), stage.blocks, read)


def _size(size: tuple[int, ...]) -> str:
    return " × ".join(map(str, size))
