"""The report's figures as SVG text: accuracy against cost, and the learning curves of the selected configuration.

Drawn with matplotlib's object-oriented API, byte-stable for one matplotlib version. Marks differ in shape and fill as
well as in colour (Okabe and Ito's blue and vermilion), so that they stay apart in grey and to every eye.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pyconv_search.report.digest import Candidate, Digest
from pyconv_search.report.stats import front
from pyconv_search.report.svg import INK, embeddable, printable
from pyconv_search.report.words import clipped, count, with_interval
from pyconv_search.units import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox

BLUE, VERMILION, GREY = "#0072b2", "#d55e00", "#808080"
MOST_BARS = 200
MOST_LABELS = 12
LOG_SPAN = 3.0
ROOM = 0.12
WIDER = 0.08
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "pyconv-search",
    "font.family": "sans-serif",
    "font.size": 9,
    "text.parse_math": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.linewidth": 0.7,
    "figure.dpi": 72,
}
# Where a label goes around its point, best place first: offset in points, horizontal and vertical anchor. Below the
# front there are no points, so the farther places begin there; a thin line leads from them to the point.
PLACES = (
    (7, 4, "left", "bottom"),
    (7, -4, "left", "top"),
    (-7, 4, "right", "bottom"),
    (-7, -4, "right", "top"),
    (0, 9, "center", "bottom"),
    (0, -9, "center", "top"),
    *((-reach, -reach, "right", "top") for reach in (16, 28, 42)),
    *((0, -reach, "center", "top") for reach in (20, 32, 48, 64)),
    *((reach, reach, "left", "bottom") for reach in (16, 28, 42)),
    *((reach, -reach, "left", "top") for reach in (16, 28, 42)),
)
NEAR = 6


@dataclass(frozen=True, slots=True)
class Point:
    """One configuration: ``x`` its cost, ``mean`` ± ``half_width`` its error over ``seeds``, which are their errors."""

    name: str
    x: float
    mean: float
    half_width: float | None
    seeds: tuple[float, ...]
    kind: str


@dataclass(frozen=True, slots=True)
class Curve:
    """One seed's learning curve: top-1 errors in percent at ``epochs``, which count from 1."""

    seed: int
    epochs: tuple[int, ...]
    train: tuple[float, ...]
    val: tuple[float, ...]


KINDS = {"selected": "selected", "front": "Pareto front", "other": "not on the front", "short": "fewer seeds"}


def points(digest: Digest) -> list[Point]:
    """The configurations with a complete trial, best first; ``kind`` is one of KINDS."""
    return [_point(digest, c) for c in digest.candidates if c.values and digest.cost.of(c.first) is not None]


def curves(digest: Digest) -> list[Curve]:
    """The learning curves of the selected configuration's complete trials, by seed; none without a selection."""
    if digest.selected is None:
        return []
    found = []
    for row in sorted(digest.selected.rows, key=lambda row: row.seed):
        own = digest.store.curve(row.trial)
        if own and row.status == "complete":
            train, val = ([_plotted(getattr(e, k)) for e in own] for k in ("train_top1_error", "val_top1_error"))
            found.append(Curve(row.seed, tuple(e.epoch for e in own), tuple(train), tuple(val)))
    return found


def tradeoff(digest: Digest) -> str:
    """Mean error with 95 % t bars against cost, each seed a faint dot, the front a step line; as SVG."""
    shown = points(digest)
    with canvas(6.4, 4.3) as figure:
        axes = figure.add_axes((0.1, 0.13, 0.87, 0.77))
        _cost_axis(axes, digest, [point.x for point in shown])
        axes.set_ylabel(f"{digest.accuracy.title.capitalize()}, validation ({digest.accuracy.unit})")
        _marks(axes, shown)
        if digest.store.study["objectives"].get(digest.cost.key) != "max":
            _step(axes, [p for p in shown if p.kind != "short"])
        legend(axes)
        _labels(axes, _labelled(digest, shown))
        return embeddable(svg_text(figure), "tradeoff", *_tradeoff_words(digest, shown))


def learning(digest: Digest) -> str:
    """Train and validation top-1 error of the selected configuration by epoch, seeds faint and their mean; as SVG."""
    from matplotlib.ticker import MaxNLocator

    found = curves(digest)
    with canvas(5.0, 4.3) as figure:
        axes = figure.add_axes((0.125, 0.13, 0.845, 0.77))
        axes.set_xlabel("Epoch")
        axes.set_ylabel("Top-1 error (%)")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        for name, colour, dash in (("train", VERMILION, (0, (4, 2))), ("val", BLUE, "-")):
            _curve(axes, found, name, colour, dash)
        axes.set_ylim(bottom=max(0.0, axes.get_ylim()[0]))
        grid(axes)
        legend(axes)
        name = printable(digest.selected.name) if digest.selected else "none"
        title = f"Learning curves of {clipped(name, 60)}"
        words = f"Training and validation top-1 error in percent by epoch, {count(len(found), 'seed')}."
        return embeddable(svg_text(figure), "learning", title, words)


def _point(digest: Digest, c: Candidate) -> Point:
    if c.summary is None:
        raise ValueError(f"{c.config}: no complete trial to plot")
    kind = "short" if c.config not in digest.eligible else "front" if c.config in digest.front else "other"
    kind = "selected" if c is digest.selected else kind
    x = digest.cost.of(c.first) or 0.0
    return Point(printable(c.name), x, c.summary.mean, c.summary.half_width, tuple(c.values.values()), kind)


def _plotted(value: float) -> float:
    return value if math.isfinite(value) else math.nan


@contextmanager
def canvas(width: float, height: float) -> Iterator[Figure]:
    """An empty figure of so many inches, in the report's style."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # A name in a script that matplotlib's font lacks is still right: the reader's own fonts draw the text.
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")
        figure = Figure(figsize=(width, height), facecolor="none")
        FigureCanvasAgg(figure)
        yield figure


def svg_text(figure: Figure) -> str:
    """The figure as matplotlib writes it."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    return buffer.getvalue().decode("utf-8")


def _cost_axis(axes: Axes, digest: Digest, xs: Sequence[float]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xlabel(digest.cost.title + (f" ({digest.cost.unit})" if digest.cost.unit else ""))
    if xs and min(xs) > 0 and max(xs) / min(xs) > LOG_SPAN:
        axes.set_xscale("log")
        # Every decade is labelled at 1, 2 and 5 until there are too many decades for that.
        subs = (1.0, 2.0, 5.0) if max(xs) / min(xs) < 1000 else (1.0,)
        axes.xaxis.set_major_locator(LogLocator(subs=subs, numticks=12))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.margins(x=0.08, y=0.1)
    grid(axes)


def grid(axes: Axes) -> None:
    """Faint lines behind all else."""
    axes.grid(True, which="major", color=GREY, linewidth=0.4, alpha=0.35)
    axes.set_axisbelow(True)


def _marks(axes: Axes, shown: Sequence[Point]) -> None:
    dots = [(p.x, value) for p in shown if len(p.seeds) > 1 for value in p.seeds]
    if dots:
        axes.plot(*zip(*dots, strict=True), ls="", marker="_", ms=7, color=INK, alpha=0.45, label="one seed")
    size = 5.5 if len(shown) <= MOST_BARS else 3.0
    looks: dict[str, dict[str, Any]] = {
        "other": {"marker": "o", "ms": size, "mfc": "none", "color": GREY},
        "short": {"marker": "^", "ms": size, "mfc": "none", "color": GREY},
        "front": {"marker": "o", "ms": 6, "color": BLUE},
        "selected": {"marker": "*", "ms": 13, "color": VERMILION},
    }
    for kind, look in looks.items():
        chosen = [p for p in shown if p.kind == kind]
        if not chosen:
            continue
        barred = [p for p in chosen if p.half_width is not None]
        if barred and (len(shown) <= MOST_BARS or kind in ("front", "selected")):
            widths = [p.half_width or 0.0 for p in barred]
            axes.errorbar(
                [p.x for p in barred],
                [p.mean for p in barred],
                yerr=widths,
                fmt="none",
                ecolor=look["color"],
                elinewidth=1,
                capsize=2.5,
            )
        axes.plot([p.x for p in chosen], [p.mean for p in chosen], ls="", label=KINDS[kind], **look)


def _step(axes: Axes, eligible: Sequence[Point]) -> None:
    members = sorted((eligible[i].x, eligible[i].mean) for i in front([(p.mean, p.x) for p in eligible]))
    if len(members) > 1:
        axes.plot(*zip(*members, strict=True), drawstyle="steps-post", color=BLUE, lw=1, zorder=1.5)


def _curve(axes: Axes, found: Sequence[Curve], name: str, colour: str, dash: Any) -> None:
    for curve in found if len(found) > 1 else ():
        axes.plot(curve.epochs, getattr(curve, name), color=colour, lw=0.7, alpha=0.4)
    shared = sorted(set.intersection(*(set(c.epochs) for c in found))) if found else []
    values = [dict(zip(c.epochs, getattr(c, name), strict=True)) for c in found]
    mean = [sum(v[epoch] for v in values) / len(values) for epoch in shared]
    marker = "o" if len(shared) == 1 else None
    word = {"train": "training", "val": "validation"}[name] + (", mean of seeds" if len(found) > 1 else "")
    axes.plot(shared, mean, color=colour, lw=1.8, ls=dash, marker=marker, ms=5, label=word)


def legend(axes: Axes) -> None:
    """The names of what is drawn, in a line above the axes; nothing where nothing has a name."""
    if axes.get_legend_handles_labels()[0]:
        axes.legend(
            loc="lower left",
            bbox_to_anchor=(-0.02, 1.0),
            ncols=5,
            frameon=False,
            fontsize=8.5,
            handletextpad=0.4,
            columnspacing=1.4,
            handlelength=2.0,
        )


def _labelled(digest: Digest, shown: Sequence[Point]) -> list[Point]:
    """Those to label, the most telling first; all of them are obstacles to the labels of the others."""
    first = printable(digest.baseline.name) if digest.baseline else ""
    order = {"selected": 0, "front": 1, "other": 3, "short": 4}
    return sorted(shown, key=lambda p: 2 if p.name == first and order[p.kind] > 2 else order[p.kind])


def _labels(axes: Axes, ordered: Sequence[Point]) -> None:
    """Write up to twelve names beside their points, each where it meets no mark and no other name, or not at all."""
    # The limits are only worked out when asked for, and every place depends on them. Names need room below the front.
    low, high = axes.get_ylim()
    axes.set(xlim=axes.get_xlim(), ylim=(max(low - (high - low) * ROOM, min(low, 0.0)), high))
    taken = [box for point in ordered for box in _obstacles(axes, point, crowd=len(ordered) > MOST_BARS)]
    marks, inside = len(taken), axes.get_window_extent()
    named = [p for p in ordered if len(ordered) <= MOST_BARS or p.kind in ("selected", "front")]
    placed = 0
    for point in named[: 3 * MOST_LABELS]:
        if placed < MOST_LABELS and _place(axes, point, taken, marks, inside):
            placed += 1


def _obstacles(axes: Axes, point: Point, crowd: bool) -> list[Bbox]:
    """What a label may not cover: the mark and, unless there is a crowd of marks, its bar and its seeds."""
    half = point.half_width or 0.0
    (x, y), (_, low), (_, high) = (
        axes.transData.transform((point.x, value)) for value in (point.mean, point.mean - half, point.mean + half)
    )
    boxes = [_box(x, y, y, 4)]
    if not crowd:
        seeds = [float(axes.transData.transform((point.x, value))[1]) for value in point.seeds]
        boxes += [_box(x, low, high, 1), *(_box(x, value, value, 3) for value in seeds)]
    return boxes


def _place(axes: Axes, point: Point, taken: list[Bbox], marks: int, inside: Bbox) -> bool:
    """Whether a place was found; ``taken`` are the boxes of so many ``marks``, then those of names placed so far."""
    from matplotlib.path import Path
    from matplotlib.text import Text

    for dx, dy, horizontal, vertical in PLACES if point.kind in ("selected", "front") else PLACES[:NEAR]:
        far = (dx, dy, horizontal, vertical) not in PLACES[:NEAR]
        text = axes.annotate(
            clipped(point.name, 30),
            (point.x, point.mean),
            (dx, dy),
            textcoords="offset points",
            fontsize=8,
            ha=horizontal,
            va=vertical,
            arrowprops={"arrowstyle": "-", "lw": 0.5, "color": GREY, "shrinkA": 0, "shrinkB": 4} if far else None,
        )
        # The first call settles where the text stands, the second measures it without its line to the point.
        text.get_window_extent()
        box = _wider(Text.get_window_extent(text), horizontal)
        within = inside.x0 <= box.x0 and box.x1 <= inside.x1 and inside.y0 <= box.y0 and box.y1 <= inside.y1
        x, y = axes.transData.transform((point.x, point.mean))
        lead = Path([(float(x), float(y)), ((box.x0 + box.x1) / 2, box.y1)])
        crossed = far and any(lead.intersects_bbox(other) for other in taken[marks:])
        if within and not crossed and not any(box.overlaps(other) for other in taken):
            taken.append(box)
            return True
        text.remove()
    return False


def _wider(box: Bbox, anchor: str) -> Bbox:
    """The box of a text in a reader's own font, which may be a little wider; the text keeps its anchor."""
    from matplotlib.transforms import Bbox

    left = {"left": 0.0, "center": 0.5, "right": 1.0}[anchor] * WIDER * box.width
    return Bbox.from_extents(box.x0 - left, box.y0, box.x1 + WIDER * box.width - left, box.y1)


def _box(x: float, low: float, high: float, radius: float) -> Bbox:
    from matplotlib.transforms import Bbox

    return Bbox.from_extents(x - radius, low - radius, x + radius, high + radius)


def _tradeoff_words(digest: Digest, shown: Sequence[Point]) -> tuple[str, str]:
    measure, cost = digest.accuracy, digest.cost
    title = f"Validation {measure.title} against {cost.title}"
    parts = [f"Mean validation {measure.title} of {count(len(shown), digest.noun)} against {cost.title}."]
    if digest.selected is not None and digest.selected.summary is not None:
        x, mean = number(cost.of(digest.selected.first)), with_interval(digest.selected.summary, measure.digits)
        parts.append(f"Selected: {printable(digest.selected.name)}, {mean} {measure.unit} at {x} {cost.title}.")
        others = [p.name for p in shown if p.kind == "front"][:MOST_LABELS]
        parts.append(f"Also on the Pareto front: {'; '.join(others)}." if others else "")
    return title, " ".join(part for part in parts if part)
