"""Quantities as text: read again they are the value, within the digits that are shown."""

from __future__ import annotations

import math
import random
import re

import numpy as np
import pytest

from pyconv_search import units

FACTORS = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18, "m": 1e-3, "µ": 1e-6, "n": 1e-9}
LENGTHS = {"s": 1, "min": 60, "h": 3600, "seconds": 1, "minutes": 60, "hours": 3600}


def magnitudes(least: float, most: float, count: int = 2000) -> list[float]:
    """Values of every order of magnitude, and those around each power of ten and each whole length of time."""
    draw = random.Random(0)
    spread = [math.exp(draw.uniform(math.log(least), math.log(most))) for _ in range(count)]
    edges = [
        base * factor for base in (*(10.0**e for e in range(-9, 19)), 60.0, 3600.0, 360_000.0) for factor in AROUND
    ]
    return sorted(value for value in [*spread, *edges] if least <= value <= most)


AROUND = (0.99, 0.994, 0.9949, 0.995, 0.9994, 0.9995, 0.99949, 0.9996, 0.99999, 1.0, 1.00001, 1.004, 1.005, 1.01)


def digits_of(text: str) -> int:
    return len(re.sub(r"\D", "", text).lstrip("0"))


def read_quantity(text: str) -> float:
    number, _, rest = text.partition(" ")
    return float(number.replace(",", "").replace("−", "-")) * FACTORS[rest.removesuffix("MACs")]


@pytest.mark.parametrize("digits", [3, 4])
def test_quantities_read_again_are_the_value(digits):
    before = 0.0
    for value in magnitudes(1e-3, 9.9e20):
        text = units.quantity(value, "MACs", digits)
        number = text.partition(" ")[0]
        again = read_quantity(text)
        assert abs(again - value) <= 0.5000001 * 10 ** (1 - digits) * value, text
        assert digits_of(number) == digits or value == int(value) < 1000, text
        assert float(number) < 1000, text
        assert again >= before, text
        before = again


def test_whole_numbers_below_a_thousand_are_exact():
    assert [units.quantity(n) for n in range(1000)] == [str(n) for n in range(1000)]
    assert (units.quantity(-5), units.quantity(-2_870_000, "MACs")) == ("−5", "−2.87 MMACs")
    assert units.quantity(10**400).endswith(" E")
    assert (units.quantity(np.int64(2_870_000)), units.quantity(np.float32(0.5))) == ("2.87 M", "0.500")


@pytest.mark.parametrize(
    ("value", "text"),
    [(2_870_000, "2.87 M"), (999_499, "999 k"), (999_500, "1.00 M"), (0.5, "0.500"), (999.96, "1.00 k"), (None, "–")],
)
def test_quantities_by_hand(value, text):
    assert units.quantity(value) == text


def test_bytes_are_decimal():
    assert [units.size_text(n) for n in (0, 928, 1_000, 1_500_000, 999_900_000, 143_771_000_000)] == [
        "0 bytes",
        "928 bytes",
        "1.00 kB",
        "1.50 MB",
        "1.00 GB",
        "144 GB",
    ]


def read_duration(text: str) -> tuple[float, float]:
    """The seconds of a text, and how much its last unit leaves open."""
    words = text.split(" ")
    total = 0.0
    for number, unit in zip(words[::2], words[1::2], strict=True):
        known = LENGTHS.get(unit)
        length = known if known else FACTORS[unit.removesuffix("s")]
        total += float(number.replace(",", "")) * length
        places = len(number.partition(".")[2])
        open_ = 0.5000001 * length * 10.0**-places
    return total, open_


def test_durations_read_again_are_the_time():
    before = 0.0
    for seconds in magnitudes(1e-9, 1e9):
        text = units.duration(seconds)
        again, open_ = read_duration(text)
        assert abs(again - seconds) <= open_, text
        assert open_ <= 0.0051 * seconds or seconds > 59.9, text
        assert open_ <= 0.0085 * seconds, text
        assert again >= before - 1e-12, text
        before = again


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.0123, "12.3 ms"),
        (5.59, "5.59 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 00 s"),
        (200, "3 min 20 s"),
        (3599.6, "1 h 00 min"),
        (3900, "1 h 05 min"),
        (432_000, "120 h"),
        (4_442_400, "1,234 h"),
    ],
)
def test_durations_by_hand(seconds, text):
    assert units.duration(seconds) == text


def test_times_of_devices_read_again_are_the_time():
    before = 0.0
    for seconds in magnitudes(1e-3, 1e10):
        number, unit = units.device_time(seconds, "core").split(" ")
        kind, _, length = unit.partition("-")
        again = float(number.replace(",", "")) * LENGTHS[length]
        assert kind == "core"
        assert abs(again - seconds) <= 0.0050001 * seconds, number
        assert digits_of(number) >= 3, number
        assert float(number.replace(",", "")) <= (60 if length != "hours" else math.inf), number
        assert again >= before * (1 - 1e-12), number
        before = again
    assert units.device_time(5.592, "core") == "5.59 core-seconds"
    assert units.device_time(7200, "GPU") == "2.00 GPU-hours"
    assert units.device_time(60.06, "GPU") == "1.00 GPU-minutes"


def test_an_axis_has_the_prefix_of_its_largest_value():
    assert units.prefix_of([2.87e6, 3e3]) == ("M", 1e6)
    assert units.prefix_of([999_400]) == ("k", 1e3)
    assert units.prefix_of([999_600]) == ("M", 1e6)
    assert units.prefix_of([]) == units.prefix_of([0.0, math.nan]) == ("", 1.0)


def test_numbers():
    assert [units.number(v) for v in (3.877, 0.04129, 12345.6, 0, -1.5, None, math.inf, 0.9996)] == [
        "3.88",
        "0.0413",
        "12,346",
        "0",
        "−1.50",
        "–",
        "–",
        "1.00",
    ]
