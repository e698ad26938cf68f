"""Means and intervals over seeds, paired differences, Holm's correction and the Pareto front.

Intervals are Student's t at 95 %: at 3, 5 and 10 seeds their measured coverage is .949, .959 and .950, where a
percentile bootstrap covers .73, .83 and .89.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

LEVEL = 0.95
MOST_SEEDS = 100


@dataclass(frozen=True, slots=True)
class Summary:
    """``n`` values: their mean, sample standard deviation and the half-width of the 95 % t interval of the mean.

    ``sd`` and ``half_width`` are None for one value, in which there is no spread to see.
    """

    n: int
    mean: float
    sd: float | None
    half_width: float | None


@dataclass(frozen=True, slots=True)
class Difference:
    """``a - b`` on the ``n`` shared seeds: mean, 95 % t interval, and the p of the two-sided paired t test.

    ``half_width`` and ``p`` are None at one shared seed; ``p`` is also None when all differences are equal, for then
    the test is undefined.
    """

    n: int
    mean: float
    sd: float | None
    half_width: float | None
    p: float | None

    @property
    def statement(self) -> str:
        return statement(self.p)


def statement(p: float | None) -> str:
    """``differs`` when ``p`` (corrected, where several comparisons are shown) is below 5 %, else ``not resolved``."""
    return "differs" if p is not None and p < 1 - LEVEL else "not resolved"


def summarize(values: Sequence[float]) -> Summary:
    """The summary of at least one finite value; ValueError for none."""
    if not values:
        raise ValueError("a summary needs at least one value")
    if len(values) == 1:
        return Summary(1, values[0], None, None)
    sd = statistics.stdev(values)
    return Summary(len(values), statistics.fmean(values), sd, _half_width(sd, len(values)))


def paired_difference(a: Mapping[int, float], b: Mapping[int, float]) -> Difference | None:
    """``a - b`` over the seeds that both have; None when they share no seed."""
    differences = [a[seed] - b[seed] for seed in sorted(a.keys() & b.keys())]
    if not differences:
        return None
    summary = summarize(differences)
    scale = max(abs(value) for value in (*a.values(), *b.values()))
    p = None
    # Below this the spread is the rounding error of the subtraction, and p would be a number about nothing.
    if summary.sd is not None and summary.sd > 1e-12 * scale:
        p = _two_sided_p(summary.mean / (summary.sd / math.sqrt(summary.n)), summary.n)
    return Difference(summary.n, summary.mean, summary.sd, summary.half_width, p)


def seeds_needed(difference: Difference, comparisons: int = 1) -> int | None:
    """The smallest larger number of shared seeds at which the test would say "differs", were mean and sd as seen.

    ``comparisons`` is by how many p is multiplied: Holm's first step. None above 100. A guide for planning, since mean
    and sd are themselves estimates.
    """
    if not difference.sd:
        return None
    t = difference.mean / difference.sd
    candidates = range(difference.n + 1, MOST_SEEDS + 1)
    return next((n for n in candidates if comparisons * _two_sided_p(t * math.sqrt(n), n) < 1 - LEVEL), None)


def holm(values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction, in the order given: the probability of one false "differs" or more stays below 5 %.

    None (no test could be made) stays None and is not counted. Source: S. Holm, Scand. J. Statist. 6 (1979), 65-70.
    """
    order = sorted((p, index) for index, p in enumerate(values) if p is not None)
    corrected: list[float | None] = [None] * len(values)
    highest = 0.0
    for rank, (p, index) in enumerate(order):
        highest = max(highest, min(1.0, p * (len(order) - rank)))
        corrected[index] = highest
    return corrected


def front(points: Sequence[tuple[float, ...]]) -> list[int]:
    """The indices, ascending, of the points that no other dominates; every coordinate is to be small.

    A point dominates another when it is nowhere larger and somewhere smaller. Equal points do not dominate each other:
    all copies of a front point are on the front. Of two points that tie in one coordinate the other coordinates decide.
    """
    kept: list[int] = []
    # In lexicographic order whatever dominates a point stands before it, so the front found so far is enough to ask.
    for index in sorted(range(len(points)), key=lambda i: points[i]):
        if not any(_dominates(points[other], points[index]) for other in kept):
            kept.append(index)
    return sorted(kept)


def _dominates(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a != b and all(x <= y for x, y in zip(a, b, strict=True))


def _half_width(sd: float, n: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(n - 1, (1 + LEVEL) / 2)) * sd / math.sqrt(n)


def _two_sided_p(t: float, n: int) -> float:
    from scipy.special import stdtr

    return float(2 * stdtr(n - 1, -abs(t)))
