"""Time against multiply-adds for every plan of the operators, as an SVG: what each way executes, and how fast.

A plan that is called *sorted* is that of a PSConv whose channels are in the order that they have in a network; the
others are those of a lone module, and so are masked ones, which do the same in either order. On a diagonal every
multiply-add takes equally long. One goes through the standard convolution of the same width, one is the rate of the
machine's roofline. What lies below the first gets more done in its time than the standard convolution.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from matplotlib.transforms import Bbox
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.plain import plain
from pyconv_search.arch.plans.operators import Operator, named
from pyconv_search.ops import build_conv
from pyconv_search.ops.bench import STANDARD, Place, call, candidate, compared, forcible
from pyconv_search.ops.psconv import PSConv2d
from pyconv_search.ops.roofline import Roofline, measure_roofline
from pyconv_search.report.figures import BLUE, GREY, STYLE, VERMILION
from pyconv_search.report.svg import INK, embeddable

PANELS = (("psconv-64", "pyconv4-64"), ("psconv-128", "pyconv3-128"), ("psconv-256", "pyconv2-256"), ("psconv-512",))
QUIET = "#5a6270"
RELEASED = "released code"
KINDS = {"psconv": ("PSConv", BLUE, "o"), "pyconv": ("PyConv", VERMILION, "s")}
# Where a label goes around its point, best place first: offset in points, horizontal and vertical anchor.
SPOTS = (
    (6, 0, "left", "center"),
    (-6, 0, "right", "center"),
    (0, 6, "center", "bottom"),
    (0, -6, "center", "top"),
    *((x, y, "left" if x > 0 else "right", "bottom" if y > 0 else "top") for x in (5, -5) for y in (3, -3)),
    *((x, y, "left" if x > 0 else "right", "center") for x in (12, -12) for y in (9, -9, 17, -17, 26, -26)),
    *((x, y, "left" if x > 0 else "right", "center") for x in (24, -24) for y in (-20, 20, -32, 32, -44, 44)),
)


@dataclass(frozen=True, slots=True)
class Point:
    """One plan: multiply-adds and seconds of one image."""

    name: str
    macs: float
    seconds: float
    kind: str = ""
    chosen: bool = False


def draw(file: Path, place: Place) -> None:
    """Measure every plan in this place, forward, and write the picture."""
    roofline = measure_roofline(place.device, place.dtype, min(3.0, 3 * place.seconds))
    panels = []
    for names in PANELS:
        points: list[Point] = []
        for operator in named(names):
            print(f"{operator.name}", file=sys.stderr)
            points += measured(operator, place, with_standard=not points)
        panels.append((operator, points))
    file.write_text(picture(panels, roofline, place), encoding="utf-8")
    print(f"wrote {file}", file=sys.stderr)


def measured(operator: Operator, place: Place, with_standard: bool) -> list[Point]:
    """The points of an operator: its plans, the released structure, and on demand the standard convolution."""
    own = operator.operation
    x = place.images(own.in_channels, operator.height, operator.width)
    modules = {
        STANDARD: nn.Conv2d(own.in_channels, own.conv.width, 3, own.stride, 1, bias=False),
        RELEASED: plain(own.in_channels, own.conv, own.stride),
    }
    actions = {name: call("forward", place.module(module), x) for name, module in modules.items()}
    macs = {name: counted(action) for name, action in actions.items()}
    chosen = set()
    for order, (one, module) in orders(operator, place).items():
        best = candidate(one, "forward", module, x, "").what
        for label, plan in plans_of(one, place, best).items():
            if order and "masked" in plan and plan != best:
                continue
            name = f"{label}{order}"
            actions[name] = call("forward", module, x, plan)
            macs[name] = candidate(one, "forward", module, x, plan).works[0].macs
            chosen |= {name} if plan == best else set()
    times = compared(actions, STANDARD, place.device, place.seconds)
    return [
        Point(
            name,
            macs[name] / place.batch,
            # The ratios hold where other work slows some rounds down.
            times[name].ratio.median * times[STANDARD].seconds.median / place.batch,
            "" if name == STANDARD else operator.name[:6],
            name in chosen,
        )
        for name in actions
        if name != STANDARD or with_standard
    ]


def orders(operator: Operator, place: Place) -> dict[str, tuple[Operator, nn.Module]]:
    """The operator with its module, and where it can be, with its channels sorted on both sides as in a network."""
    own = operator.operation
    module = place.module(build_conv(own.conv, own.in_channels, own.stride))
    found = {"": (operator, module)}
    if isinstance(module, PSConv2d):
        turned = deepcopy(module)
        turned.sorted_in = turned.sorted_out = True
        found[" sorted"] = (replace(operator, operation=replace(own, sorted_in=True, sorted_out=True)), turned)
    return found


def plans_of(operator: Operator, place: Place, chosen: str) -> dict[str, str]:
    """The plans to draw by label, each once; the forward passes of ``swapped`` plans are those of others."""
    found: dict[str, str] = {}
    for way, plan in forcible(operator.operation, place).items():
        if "swapped" not in way and plan not in found.values():
            found[plan if ":" not in plan else "own groups" if way == "plain" else way] = plan
    return found if chosen in found.values() else {**found, "mixed": chosen}


def counted(action: Callable[[], object]) -> int:
    """Multiply-adds by PyTorch's own counter."""
    with FlopCounterMode(display=False) as counter:
        action()
    return counter.get_total_flops() // 2


def picture(panels: Sequence[tuple[Operator, list[Point]]], roofline: Roofline, place: Place) -> str:
    """The panels as one SVG on white: the first, which has most points, above the others."""
    layout = "channels_last" if place.channels_last else "contiguous"
    where = f"{roofline}".partition(":")[0] + f", {layout}, batch {place.batch}, forward; torch {torch.__version__}"
    with matplotlib.rc_context({**STYLE, "font.size": 8.5}):
        figure = Figure(figsize=(9.4, 8.0), facecolor="white")
        FigureCanvasAgg(figure)
        grid = figure.add_gridspec(
            2, 3, height_ratios=(1.35, 1), width_ratios=(1.5, 1.1, 0.8), wspace=0.16, hspace=0.17
        )
        figure.subplots_adjust(0.06, 0.085, 0.99, 0.895)
        for part, (operator, points) in zip((grid[0, :], *(grid[1, i] for i in range(3))), panels, strict=True):
            _panel(figure.add_subplot(part), operator, points, roofline)
        figure.axes[0].set_ylabel("time for an image (ms)")
        figure.axes[1].set_ylabel("time for an image (ms)")
        figure.text(0.525, 0.035, "multiply-adds executed for an image (millions)", ha="center")
        figure.text(0.525, 0.012, where, ha="center", fontsize=7.5, color=QUIET)
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="upper center", ncols=3, frameon=False, fontsize=8.5, columnspacing=2.5)
        for axes, (_, points) in zip(figure.axes, panels, strict=True):
            _labels(axes, points)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None}, facecolor="white")
    said = [
        f"{operator.operation.conv.width} channels: "
        + ", ".join(f"{p.kind} {p.name} {p.macs / 1e6:.4g} M {p.seconds * 1e3:.3g} ms".strip() for p in points)
        for operator, points in panels
    ]
    title = f"Time against multiply-adds of every plan: {where}"
    return embeddable(buffer.getvalue().decode("utf-8"), "plans", title, ". ".join(said))


def _panel(axes: Axes, operator: Operator, points: Sequence[Point], roofline: Roofline) -> None:
    axes.set(xscale="log", yscale="log")
    xs, ys = [p.macs / 1e6 for p in points], [p.seconds * 1e3 for p in points]
    axes.set(xlim=(min(xs) / 1.4, max(xs) * 1.4), ylim=(min(ys) / 1.4, max(ys) * 1.4))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 3.0, 5.0)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())
    axes.grid(True, which="major", color=GREY, linewidth=0.4, alpha=0.35)
    axes.set_axisbelow(True)
    axes.set_title(f"{operator.operation.conv.width} channels, {operator.height}×{operator.width}", fontsize=9.5)
    (standard,) = (p for p in points if not p.kind)
    ends = axes.get_xlim()
    for per_mac, dash, label in (
        (standard.seconds / standard.macs, "-", "as fast as nn.Conv2d 3×3"),
        (1 / roofline.rate, (0, (1, 2)), "limit: the machine's rate of multiply-adds"),
    ):
        axes.plot(ends, [x * 1e6 * per_mac * 1e3 for x in ends], color=INK, lw=0.9, ls=dash, label=label, zorder=1.2)
    axes.plot([standard.macs / 1e6], [standard.seconds * 1e3], ls="", marker="D", ms=6, color=INK, label=STANDARD)
    for kind, (name, colour, marker) in KINDS.items():
        for chosen, look in ((False, {"mfc": "white", "ms": 5}), (True, {"mfc": colour, "ms": 7})):
            own = [p for p in points if p.kind == kind and p.chosen == chosen and p.name != RELEASED]
            label = f"{name}, {'chosen' if chosen else 'other plans'}"
            axes.plot([p.macs / 1e6 for p in own], [p.seconds * 1e3 for p in own], ls="", marker=marker, color=colour,
                      label=label, **look)  # fmt: skip
        own = [p for p in points if p.kind == kind and p.name == RELEASED]
        axes.plot([p.macs / 1e6 for p in own], [p.seconds * 1e3 for p in own], ls="", marker="x", ms=6, mew=1.5,
                  color=colour, label=f"{name}, {RELEASED}")  # fmt: skip


def _labels(axes: Axes, points: Sequence[Point]) -> None:
    """The names of the ways beside their points, each where it meets no mark and no other name."""
    taken = []
    for point in points:
        x, y = axes.transData.transform((point.macs / 1e6, point.seconds * 1e3))
        taken.append(Bbox.from_extents(x - 3.5, y - 3.5, x + 3.5, y + 3.5))
    inside = axes.get_window_extent()
    for point in sorted(points, key=lambda p: (not p.chosen, p.name != RELEASED)):
        if point.kind and point.name != RELEASED:
            _place(axes, point, taken, inside)


def _place(axes: Axes, point: Point, taken: list[Bbox], inside: Bbox) -> None:
    for dx, dy, horizontal, vertical in SPOTS:
        far = abs(dy) > 6
        text = axes.annotate(
            point.name,
            (point.macs / 1e6, point.seconds * 1e3),
            (dx, dy),
            textcoords="offset points",
            fontsize=7.5,
            ha=horizontal,
            va=vertical,
            color=KINDS[point.kind][1],
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 0.4},
            arrowprops={"arrowstyle": "-", "lw": 0.4, "color": GREY, "shrinkA": 0, "shrinkB": 3} if far else None,
        )
        text.get_window_extent()
        box = Text.get_window_extent(text)
        within = inside.x0 <= box.x0 and box.x1 <= inside.x1 and inside.y0 <= box.y0 and box.y1 <= inside.y1
        if within and not any(box.overlaps(other) for other in taken):
            taken.append(box)
            return
        text.remove()
