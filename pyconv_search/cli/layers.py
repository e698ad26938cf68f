"""What ``networks NAME`` prints: one network from its stem to its head, drawn with characters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pyconv_search.arch.cost import Cost, Part
from pyconv_search.arch.inception import BRANCHES, FINAL, STEM, TRANSITIONS
from pyconv_search.arch.spec import Architecture, Conv, Level, Stage
from pyconv_search.cli.columns import table
from pyconv_search.report.drawing.anatomy import (
    branches_words,
    form_words,
    head_words,
    is_inception,
    kernel_text,
    se_words,
    shortcut_text,
    size_words,
    step_words,
    stride_words,
)
from pyconv_search.report.drawing.anatomy_head import head_lines
from pyconv_search.units import quantity

EIGHTHS = " ▏▎▍▌▋▊▉"
DEPTH = 16  # characters of the bar of a kernel that sees every channel

# What is printed of a part below its heading: words, or a level and the channels of which its groups share.
Told = list[str | tuple[Level, int]]


def network_text(name: str, arch: Architecture, found: Cost) -> str:
    """One network from the stem to the head: of every part its layers, its pyramids of levels and its cost.

    A level's line shows the kernel to scale, its output channels, its groups, and the depth of its kernels (channels
    of one group; the bar is its share of all) to scale: the two pyramids that face opposite ways (PyConv, figure 2).
    """
    parts = {part.name: _told(arch, part.name) for part in found.parts}
    levels = iter(_levels([line for _, told in parts.values() for line in told if not isinstance(line, str)], arch))
    wide = max(len(words) for words, _ in parts.values())
    form = form_words(arch)
    top = f"{name}   input {size_words(arch.input)}   {_cost_words(found.params, found.macs).strip()}"
    lines = [f"{top}   {form}" if form else top, ""]
    for part in found.parts:
        words, told = parts[part.name]
        lines.append(_heading(part, words, wide))
        lines += [f"  {line if isinstance(line, str) else next(levels)}" for line in told]
    return "\n".join([*lines, "", f"receptive field {found.receptive_field} px; arch_id {arch.arch_id[:16]}"])


def _heading(part: Part, words: str, wide: int) -> str:
    return f"{part.name:<8} {size_words(part.size):<13} {words:<{wide}} {_cost_words(part.params, part.macs):>31}"


def _cost_words(params: int, macs: int) -> str:
    return f"{quantity(params, digits=4):>7} params {quantity(macs, 'MACs', 4):>11}"


def _told(arch: Architecture, name: str) -> tuple[str, Told]:
    """The words beside a part's name, and the lines below."""
    if name == "stem":
        return _stem(arch)
    if name == "final":
        return ("BN, ReLU" if arch.form == "pre" else ", ".join(map(step_words, FINAL))), []
    if name != "head":
        return _stage(arch, int(name.removeprefix("stage")) - 1)
    below: Told = []
    for line in head_lines(arch):
        below.append(line.words)
        below += _of(line.conv, line.in_width) if line.conv else []
    return head_words(arch), below


def _stem(arch: Architecture) -> tuple[str, Told]:
    stem = arch.stem
    if arch.family == "inception-resnet":
        return "/2: stride 2; V: no padding", [" → ".join(map(step_words, STEM))]
    pool = f", then {'3×3' if arch.dimensions == 2 else '1×3×3'} max pooling" if stem.pool == "max" else ""
    stride = stride_words(stem.stride, stem.time_stride, arch.dimensions)
    return f"{kernel_text(stem.kernel, arch.dimensions)} convolution, {stride}{pool}", []


def _stage(arch: Architecture, index: int) -> tuple[str, Told]:
    """``3 × bottleneck, stride 2, shortcut 1×1 conv``, and whatever else the stage has; its levels, top first."""
    stage, in_width = list(arch.walk())[index]
    below: Told = []
    if arch.family == "inception-resnet":
        below += [f"transition: {'; '.join(branches_words(TRANSITIONS[index]))}"]
    words = f"{stage.blocks} × {stage.block}"
    if is_inception(stage):
        below += [f"block: {'; '.join(branches_words(BRANCHES[stage.block]))}; concatenated, 1×1 to {stage.out}"]
    else:
        stride = stride_words(stage.stride, stage.time_stride, arch.dimensions)
        words += "" if arch.family == "inception-resnet" else f", {stride}, shortcut {shortcut_text(stage, in_width)}"
        below += _of(stage.conv, stage.conv.width)
    return ", ".join([words, *_more(stage)]), below


def _more(stage: Stage) -> Iterator[str]:
    if stage.se:
        yield se_words(stage.se)
    if stage.non_local:
        yield "then non-local"


def _of(conv: Conv, in_width: int) -> Told:
    return [(level, in_width) for level in conv.levels[::-1]]


def _levels(found: Sequence[tuple[Level, int]], arch: Architecture) -> list[str]:
    """One line for every level, all in aligned columns."""
    widest = max((_side(level) for level, _ in found), default=0)
    rows = []
    for level, in_width in found:
        channels, groups = f"{level.width} channels", f"{level.groups} group{'s' if level.groups > 1 else ' '}"
        picture, depth = ("█" * _side(level)).center(widest), f"depth {in_width // level.groups}"
        size, bar = kernel_text(level.kernel, arch.dimensions), _bar(1 / level.groups)
        rows.append((size, picture, channels, groups, depth, bar, _dilations(level)))
    return table(rows, (0, 2, 3, 4)).splitlines() if rows else []


def _dilations(level: Level) -> str:
    """``dilation 2``; of a pattern ``dilations {1,2,1,4}, axes both``."""
    if len(level.pattern) == 1:
        return "" if level.pattern == (1,) else f"dilation {level.pattern[0]}"
    return f"dilations {{{','.join(map(str, level.pattern))}}}, axes {level.axes}"


def _bar(share: float) -> str:
    """A bar of this share of the full length, in eighths of a character, at least one of them."""
    whole, eighths = divmod(max(1, round(8 * DEPTH * share)), 8)
    return "█" * whole + (EIGHTHS[eighths] if eighths else "")


def _side(level: Level) -> int:
    kernel = level.kernel
    return kernel[-1] if isinstance(kernel, tuple) else kernel
