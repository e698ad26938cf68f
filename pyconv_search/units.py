"""Quantities in text: SI prefixes, bytes, seconds. Whatever prints a number with a unit takes it from here.

Prefixes are decimal for everything, bytes included: 1 kB is 1,000 bytes, 1 GB is 10⁹. The prefix is the one that leaves
a number from 1 to 999.9 after rounding. Things that are counted one by one (images, trials, images a second) are
written out with thousands separators instead.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from decimal import Decimal
from numbers import Integral
from typing import TypeGuard

MINUS = "\N{MINUS SIGN}"
NONE = "\N{EN DASH}"
LARGE = ("", "k", "M", "G", "T", "P", "E")
SMALL = ("", "m", "µ", "n")
_MINUTE, _HOUR = 60, 3600


def number(value: float | None, digits: int = 3) -> str:
    """A number with ``digits`` significant digits and no exponent, no digit before the point left out.

    ``3.88``, ``0.0413``, ``12,346``; a dash for None, NaN and infinities.
    """
    return _shown(value, 0, digits) if _is_number(value) else NONE


def quantity(value: float | None, unit: str = "", digits: int = 3) -> str:
    """A value in its largest fitting unit: ``2.87 MMACs``, ``25.6 M``, ``928``; whole numbers below 1,000 are exact."""
    if not _is_number(value):
        return NONE
    thousands = _thousands(value, digits)
    exact = not thousands and value == int(value)
    shown = f"{int(value)}".replace("-", MINUS) if exact else _shown(value, thousands, digits)
    return f"{shown} {LARGE[thousands]}{unit}".rstrip()


def size_text(count: float, digits: int = 3) -> str:
    """Bytes: ``928 bytes``, ``1.36 GB``."""
    return quantity(count, "bytes" if not _thousands(count, digits) else "B", digits)


def sides(size: Iterable[int]) -> str:
    """The sides of an image, a map or a kernel: ``3×32×32``."""
    return "×".join(map(str, size))


def prefix_of(values: Iterable[float], digits: int = 3) -> tuple[str, float]:
    """The prefix that an axis or a column of ``values`` has in common, by the largest, and its factor: M, 10⁶."""
    thousands = max((_thousands(value, digits) for value in values if _is_number(value)), default=0)
    return LARGE[thousands], 10.0 ** (3 * thousands)


def duration(seconds: float, digits: int = 3) -> str:
    """A time that passes: ``12.3 ms``, ``12.3 s``, ``3 min 20 s``, ``1 h 05 min``, ``120 h``.

    ``digits`` are those of times below a minute.
    """
    if seconds < _MINUTE and _rounded(seconds, digits) < _MINUTE:
        below = max(-(_exponent(seconds, digits) // 3), 0) if seconds else 0
        below = min(below, len(SMALL) - 1)
        return f"{_shown(seconds, -below, digits)} {SMALL[below]}s"
    whole = round(seconds)
    if whole < _HOUR:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    if minutes < 100 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{round(seconds / _HOUR):,} h"


def device_time(seconds: float, device: str, digits: int = 3) -> str:
    """Time that devices are taken, summed over them: ``5.59 core-seconds``, ``12.3 GPU-hours``."""
    lengths = {"seconds": 1, "minutes": _MINUTE, "hours": _HOUR}
    name = next((name for name, n in lengths.items() if _rounded(seconds / n, digits) <= _MINUTE), "hours")
    return f"{number(seconds / lengths[name], digits)} {device}-{name}"


def _is_number(value: float | None) -> TypeGuard[float]:
    return isinstance(value, Integral) or (value is not None and math.isfinite(value))


def _exact(value: float) -> Decimal:
    return Decimal(int(value) if isinstance(value, Integral) else float(value))


def _rounded(value: float, digits: int) -> Decimal:
    return Decimal(f"{_exact(value):.{digits - 1}e}")


def _exponent(value: float, digits: int) -> int:
    """The power of ten of the first digit after rounding."""
    return _rounded(value, digits).adjusted() if value else 0


def _thousands(value: float, digits: int) -> int:
    return min(max(_exponent(value, digits) // 3, 0), len(LARGE) - 1)


def _shown(value: float, thousands: int, digits: int) -> str:
    """The value over so many powers of a thousand."""
    if not value:
        return "0"
    decimals = max(digits - 1 - (_exponent(value, digits) - 3 * thousands), 0)
    return f"{_exact(value).scaleb(-3 * thousands):,.{decimals}f}".replace("-", MINUS)
