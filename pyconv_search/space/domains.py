"""The domains of parameters. Every domain is a finite list of values with an index, which is all that samplers need.

A new kind of domain is one reader function and one line in ``READERS``.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pyconv_search.fields import Fields, Path, integer, kind_of, shown

MOST_VALUES = 100_000


@dataclass(frozen=True)
class Domain:
    """``values`` in their order; ``ordered`` says whether neighbours are alike (a sampler may then interpolate)."""

    kind: str
    values: Sequence[Any]
    ordered: bool
    _index: dict[str, int] = field(default_factory=dict, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.values)

    def index(self, value: Any) -> int | None:
        """The position of ``value``, or None if it is not in the domain."""
        if not self._index:
            self._index.update({_key(v): i for i, v in enumerate(self.values)})
        return self._index.get(_key(value))

    def __str__(self) -> str:
        if isinstance(self.values, range):
            step = f" in steps of {self.values.step}" if self.values.step != 1 else ""
            return f"integers {self.values[0]} … {self.values[-1]}{step}"
        words = [value if isinstance(value, str) else json.dumps(value) for value in self.values[:12]]
        return ", ".join(words) + (f", … ({len(self)} values)" if len(self) > 12 else "")

    def place(self, value: Any) -> Path:
        """Where ``value`` is written, inside the parameter: ``(choice, 2)``; of numbers in a range, the range."""
        index = self.index(value)
        return (self.kind, index) if self.kind in ("choice", "ordered") and index is not None else (self.kind,)


def _key(value: Any) -> str:
    """Distinguishes 1 from true, but not 1 from 1.0."""

    def whole(v: Any) -> Any:
        return [whole(item) for item in v] if isinstance(v, list) else int(v) if _is_whole(v) else v

    return json.dumps(whole(value), sort_keys=True)


def _is_whole(value: Any) -> bool:
    return isinstance(value, float) and value.is_integer()


def read_domain(fields: Fields) -> Domain | None:
    """The domain that a parameter's mapping describes; mistakes go to ``fields.problems``."""
    given = [kind for kind in READERS if kind in fields]
    for kind in READERS:
        if kind not in given:
            fields.take(kind, None)
    if len(given) != 1:
        for key in (*given, "step", "powers_of", "steps", "log"):
            fields.take(key, None)
        if given or not fields.strangers():  # else an unknown key says it
            got = ", ".join(given or fields.names()) or "none"
            text = f"must have exactly one of the keys {', '.join(READERS)}, but got {got}"
            fields.problems.add(fields.path, text)
        return None
    domain = READERS[given[0]](fields)
    if domain is not None and len(domain) > MOST_VALUES:
        fields.add(given[0], f"has {len(domain):,} values; at most {MOST_VALUES:,}", own=True)
        return None
    return domain if fields.sound(*given) else None


def _listed(fields: Fields, kind: str) -> Domain | None:
    values = fields.items(kind)
    if not values:
        fields.add(kind, "must list at least one value, but got none", own=True)
        return None
    seen: dict[str, int] = {}
    for i, value in enumerate(values[: MOST_VALUES + 1]):
        if value is None:
            fields.problems.add((*fields.path, kind, i), "must be a value, but got nothing", own=True)
        first = seen.setdefault(_key(value), i)
        if first != i:
            text = f"{shown(value)} is listed twice (first as value {first})"
            fields.problems.add((*fields.path, kind, i), text, own=True)
    return Domain(kind, tuple(values), ordered=kind == "ordered")


def _choice(fields: Fields) -> Domain | None:
    return _listed(fields, "choice")


def _ordered(fields: Fields) -> Domain | None:
    return _listed(fields, "ordered")


def _bounds(fields: Fields, key: str, whole: bool = True) -> tuple[Any, Any] | None:
    value, path = fields.take(key), (*fields.path, key)
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        fields.add(key, f"must be [low, high], both included, but got {kind_of(value)}", own=True)
        return None
    low, high = (_bound(v, (*path, i), fields, whole) for i, v in enumerate(value))
    if not fields.sound(key):
        return None
    if low > high:
        fields.add(key, f"low <= high must hold, but got [{low}, {high}]", own=True)
        return None
    return low, high


def _bound(value: Any, path: Path, fields: Fields, whole: bool) -> float:
    if whole:
        return integer(value, path, fields.problems, None, None)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        fields.problems.add(path, f"must be a number, but got {kind_of(value)}", own=True)
        return 0.0
    return float(value)


def _int(fields: Fields) -> Domain | None:
    bounds = _bounds(fields, "int")
    step, base = fields.integer("step", None), fields.integer("powers_of", None, low=2)
    if bounds is None or not fields.sound("step", "powers_of"):
        return None
    low, high = bounds
    if base is None:
        return Domain("int", range(low, high + 1, step or 1), ordered=True)
    if step is not None:
        fields.add("step", "step and powers_of cannot go together; give one of the two")
    powers = tuple(itertools.takewhile(lambda p: p <= high, (base**n for n in range(64))))
    values = tuple(p for p in powers if p >= low)
    if low < 1 or not values:
        fields.add("int", f"holds no power of {base}; the nearest range is [{max(powers, default=1)}, {base * high}]")
        return None
    return Domain("int", values, ordered=True)


def _float(fields: Fields) -> Domain | None:
    """``steps`` numbers from low to high, at equal distances or (``log``) in equal ratios, to four digits.

    Four digits, because powers differ in the last place from machine to machine and a value is known by its digits.
    """
    bounds = _bounds(fields, "float", whole=False)
    steps, log = fields.integer("steps", low=2, high=MOST_VALUES), fields.flag("log", False)
    if bounds is None or not fields.sound("steps", "log"):
        return None
    low, high = bounds
    if log and low <= 0:
        fields.add("float", f"low must be above 0 where log is true, but got {low}")
        return None
    parts = [i / (steps - 1) for i in range(1, steps - 1)]
    inside = [low * (high / low) ** part if log else low + (high - low) * part for part in parts]
    values = (low, *(float(f"{value:.4g}") for value in inside), high)
    if any(a >= b for a, b in itertools.pairwise(values)):
        fields.add("steps", f"{steps} numbers from {low} to {high} are not all different in four digits; take fewer")
        return None
    return Domain("float", values, ordered=True)


ORDERS: dict[str, Callable[[Sequence[Any], int], Any]] = {
    "any": lambda values, n: itertools.product(values, repeat=n),
    "nonincreasing": lambda values, n: itertools.combinations_with_replacement(values[::-1], n),
    "nondecreasing": lambda values, n: itertools.combinations_with_replacement(values, n),
    "decreasing": lambda values, n: itertools.combinations(values[::-1], n),
    "increasing": lambda values, n: itertools.combinations(values, n),
}


def _sequence(fields: Fields) -> Domain | None:
    """All sequences of a length over values that are written in ascending order, in lexicographic order."""
    own = fields.section("sequence")
    values, length = own.items("of"), own.integer("length", low=1, high=64)
    order = own.text("order", "any", tuple(ORDERS))
    own.close()
    if not own.sound("of", "length", "order"):
        return None
    if not values:
        own.add("of", "must list at least one value, but got none", own=True)
        return None
    found = [list(s) for s in itertools.islice(ORDERS[order](values, length), MOST_VALUES + 1)]
    if not found:
        own.add(
            "length", f"there is no {order} sequence of {length} out of {len(values)} values; at most {len(values)}"
        )
        return None
    if len(found) > MOST_VALUES:
        own.add("length", f"gives more than {MOST_VALUES:,} sequences; use one parameter for each place instead")
        return None
    return Domain("sequence", tuple(found), ordered=True)


READERS = {"choice": _choice, "ordered": _ordered, "int": _int, "float": _float, "sequence": _sequence}
