"""The scale allocation of trained networks as a figure (PSConv, appendix D, Figure 6)."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pyconv_search.report.digest import Candidate, Digest
from pyconv_search.report.figures import canvas, svg_text
from pyconv_search.report.svg import INK, embeddable, printable
from pyconv_search.report.words import clipped, count

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST = 4
# Okabe and Ito's colours from light to dark, so that their order shows in grey, too.
SHADES = ("#f0e442", "#56b4e9", "#e69f00", "#009e73", "#d55e00", "#0072b2", "#000000")


@dataclass(frozen=True, slots=True)
class Allocation:
    """The share of each scale in each layer of one network, means over its complete seeds.

    ``layers`` in the order of the network; ``shares`` by scale (such as ``3×3, dilation 2``), one number a layer, 0
    where a layer has no such scale. ``starts`` are the layers that begin a stage.
    """

    candidate: Candidate
    layers: tuple[str, ...]
    shares: dict[str, tuple[float, ...]]
    starts: tuple[int, ...]


def allocations(d: Digest) -> list[Allocation]:
    """Those of the best networks that have layers of several scales, the selected one first; MOST at most."""
    ordered = [c for c in (d.selected, *d.candidates) if c is not None]
    found = [_allocation(c) for c in {c.config: c for c in ordered}.values()]
    return [allocation for allocation in found if allocation is not None][:MOST]


def _allocation(c: Candidate) -> Allocation | None:
    rows = [row for row in c.rows if row.status == "complete" and row.scales]
    if not rows:
        return None
    layers = tuple(rows[0].scales)
    scales = sorted({scale for row in rows for shares in row.scales.values() for scale in shares}, key=_order)
    shares = {
        scale: tuple(statistics.fmean(row.scales.get(layer, {}).get(scale, 0.0) for row in rows) for layer in layers)
        for scale in scales
    }
    stages = [layer.split(".")[1] if layer.startswith("stages.") else "" for layer in layers]
    starts = tuple(i for i, stage in enumerate(stages) if i == 0 or stage != stages[i - 1])
    return Allocation(c, layers, shares, starts)


def _order(scale: str) -> tuple[int, ...]:
    kernel, _, dilation = scale.partition(", dilation ")
    return (*(int(side) for side in kernel.split("×")), int(dilation or 1))


def allocation_figure(allocation: Allocation, number: int) -> str:
    """Stacked bars, one a layer, of the shares of its scales; as SVG."""
    with canvas(6.4, 2.6) as figure:
        axes = figure.add_axes((0.1, 0.2, 0.87, 0.62))
        _bars(axes, allocation)
        name = printable(allocation.candidate.name)
        words = (
            f"The share of each scale in the weights of {count(len(allocation.layers), 'layer')}, in the order of the "
            f"network: {', '.join(allocation.shares)}."
        )
        title = f"Scale allocation of {clipped(name, 60)}"
        return embeddable(svg_text(figure), f"scales-{number}", title, words)


def _bars(axes: Axes, allocation: Allocation) -> None:
    places = range(len(allocation.layers))
    bottom = [0.0] * len(places)
    for i, (scale, shares) in enumerate(allocation.shares.items()):
        style: dict[str, Any] = {"edgecolor": INK, "linewidth": 0.3, "hatch": "//" if i >= len(SHADES) else None}
        axes.bar(places, shares, 0.86, bottom, label=scale, color=SHADES[i % len(SHADES)], **style)
        bottom = [below + share for below, share in zip(bottom, shares, strict=True)]
    axes.set(xlim=(-0.6, len(places) - 0.4), ylim=(0, 1), ylabel="Share", xlabel="Layer, in the order of the network")
    axes.set_xticks(_ticks(len(places)), [str(i + 1) for i in _ticks(len(places))])
    axes.plot(
        allocation.starts, [-0.035] * len(allocation.starts), "s", ms=3.5, color=INK, clip_on=False, label="stage"
    )
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=4, frameon=False, fontsize=8, handlelength=1.2)


def _ticks(count: int) -> Sequence[int]:
    return range(0, count, max(count // 16, 1))
