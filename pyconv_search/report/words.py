"""Numbers and names as the page and the figures write them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from pyconv_search.report.stats import Summary
from pyconv_search.results.row import Row
from pyconv_search.results.tables import compact
from pyconv_search.space.space import assignment_text
from pyconv_search.units import MINUS, NONE, number

REASONS = {
    "": "",
    "scheduler": "stopped by the scheduler",
    "nan": "the loss became NaN or infinite",
    "oom": "out of memory",
    "lost": "the worker process died",
    "error": "an error",
}


def fixed(value: float | None, digits: int = 2) -> str:
    """A number with ``digits`` decimals and a real minus sign; a dash for none."""
    if value is None or not math.isfinite(value):
        return NONE
    return f"{value:.{digits}f}".replace("-", MINUS)


def with_interval(summary: Summary | None, digits: int = 2) -> str:
    """``12.34 ± 0.56``; for one value, which has no interval, the value alone."""
    if summary is None:
        return NONE
    if summary.half_width is None:
        return fixed(summary.mean, digits)
    return f"{fixed(summary.mean, digits)} ± {fixed(summary.half_width, digits)}"


def seeds(n: int) -> str:
    """``5 seeds``; ``1 seed, no interval``."""
    return "1 seed, no interval" if n == 1 else f"{n} seeds"


def count(n: int, noun: str) -> str:
    """``1 trial``, ``2,000 trials``."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}{'es' if noun.endswith(('s', 'x')) else 's'}"


def p_value(p: float | None) -> str:
    """``p = 0.012``, ``p < 0.001``, ``no p``."""
    if p is None:
        return "no p"
    return "p < 0.001" if p < 0.001 else f"p = {number(p)}"


def parameters(values: dict[str, Any]) -> str:
    """``levels = [4,3,2,1], split = equal``."""
    return ", ".join(f"{name} = {compact(value)}" for name, value in values.items())


def labels(rows: Sequence[Row]) -> dict[str, str]:
    """What to call each configuration, by its ``config``; no two are called the same.

    Its name, where the study gave it one of its own; otherwise, and beside a name that others have too, those of its
    parameters that differ between the rows; where that is not enough, the head of its id.
    """
    first = {row.config: row for row in reversed(rows)}
    varying = _varying(list(first.values()))
    names = {}
    for key, row in first.items():
        names[key] = "" if row.name == assignment_text(row.parameters) else row.name.strip()
    differing = {k: parameters({n: v for n, v in row.parameters.items() if n in varying}) for k, row in first.items()}
    names = _told_apart(names, {k: differing[k] or parameters(row.parameters) for k, row in first.items()})
    return _told_apart(names, {key: key[:10] for key in first})


def _told_apart(names: dict[str, str], more: dict[str, str]) -> dict[str, str]:
    seen = Counter(names.values())
    return {k: ": ".join(filter(None, (n, more[k]))) if not n or seen[n] > 1 else n for k, n in names.items()}


def left_out(counts: Mapping[str, int]) -> str:
    """``3 trials left out: 2 of networks that the space no longer holds and 1 of seeds that …``; empty for none."""
    if not counts:
        return ""
    return f"{count(sum(counts.values()), 'trial')} left out: {listed([f'{n:,} {why}' for why, n in counts.items()])}"


def listed(words: Sequence[str]) -> str:
    """``a, b and c``."""
    return f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else "".join(words)


def _varying(rows: Sequence[Row]) -> set[str]:
    seen: dict[str, set[str]] = {}
    for row in rows:
        for name, value in row.parameters.items():
            seen.setdefault(name, set()).add(compact(value))
    present = Counter(name for row in rows for name in row.parameters)
    return {name for name, values in seen.items() if len(values) > 1 or present[name] < len(rows)}


def clipped(text: str, length: int) -> str:
    """The text on one line, cut with an ellipsis when longer than ``length``."""
    text = " ".join(text.split())
    return text if len(text) <= length else text[: length - 1] + "…"
