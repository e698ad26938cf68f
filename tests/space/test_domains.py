"""Domains against brute force."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from pyconv_search.fields import Fields, Problems
from pyconv_search.space.domains import Domain, read_domain


def domain(values: dict[str, Any]) -> Domain:
    problems = Problems()
    fields = Fields(values, ("p",), problems)
    found = read_domain(fields)
    fields.close()
    problems.check()
    assert found is not None
    return found


ORDER_TESTS = {
    "any": lambda a, b: True,
    "nonincreasing": lambda a, b: a >= b,
    "nondecreasing": lambda a, b: a <= b,
    "decreasing": lambda a, b: a > b,
    "increasing": lambda a, b: a < b,
}


@pytest.mark.parametrize("order", ORDER_TESTS)
@pytest.mark.parametrize("length", [1, 2, 3, 4])
def test_sequences_are_exactly_those_of_the_order(order: str, length: int) -> None:
    found = domain({"sequence": {"of": [1, 2, 3, 5], "length": length, "order": order}})
    holds = ORDER_TESTS[order]
    expected = [
        list(s) for s in itertools.product([1, 2, 3, 5], repeat=length) if all(map(holds, s, s[1:]))
    ]  # fmt: skip
    assert sorted(found.values) == expected
    assert found.ordered
    assert [found.index(v) for v in found.values] == list(range(len(expected)))


def test_integers() -> None:
    assert list(domain({"int": [3, 11], "step": 4}).values) == [3, 7, 11]
    assert list(domain({"int": [3, 70], "powers_of": 2}).values) == [4, 8, 16, 32, 64]
    assert list(domain({"int": [0, 3]}).values) == [0, 1, 2, 3]
    assert len(domain({"int": [1, 100_000]})) == 100_000


@pytest.mark.parametrize(("low", "high"), [(0.01, 1.0), (1e-5, 3e-2), (0.05, 0.8), (3, 700)])
@pytest.mark.parametrize("steps", [2, 3, 9, 30])
@pytest.mark.parametrize("log", [True, False])
def test_floats_are_those_of_numpy_to_four_digits(low: float, high: float, steps: int, log: bool) -> None:
    found = domain({"float": [low, high], "steps": steps, "log": log})
    expected = (np.geomspace if log else np.linspace)(low, high, steps)
    assert np.allclose(found.values, expected, rtol=5.1e-4, atol=0)
    assert (found.values[0], found.values[-1]) == (low, high)
    assert all(repr(v) == repr(float(f"{v:.4g}")) for v in found.values)
    assert found.ordered
    assert [found.index(v) for v in found.values] == list(range(steps))


def test_choices_keep_their_order_and_tell_true_from_one() -> None:
    found = domain({"choice": ["b", "a", [1, 2], 1, True, 0.5]})
    assert found.values == ("b", "a", [1, 2], 1, True, 0.5)
    assert [found.index(v) for v in ("a", [1, 2], 1, 1.0, True, 2)] == [1, 2, 3, 3, 4, None]
    assert not found.ordered
    assert domain({"ordered": ["small", "large"]}).ordered


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, "exactly one of the keys"),
        ({"choice": [1], "int": [1, 2]}, "exactly one of the keys"),
        ({"choice": []}, "at least one value"),
        ({"choice": 3}, "must be a list, but got an integer (3)"),
        ({"choice": [1, 2, 1]}, "listed twice (first as value 0)"),
        ({"choice": [[1, 2], [1.0, 2]]}, "p.choice[1]: [1.0, 2] is listed twice"),
        ({"choice": [1, None]}, "p.choice[1]: must be a value"),
        ({"int": [5, 2]}, "low <= high must hold, but got [5, 2]"),
        ({"int": [1, 2, 3]}, "must be [low, high]"),
        ({"int": [1, "x"]}, "p.int[1]: must be an integer"),
        ({"int": [5, 7], "powers_of": 2}, "holds no power of 2"),
        ({"int": [1, 8], "powers_of": 2, "step": 2}, "cannot go together"),
        ({"int": [1, 8], "step": 0}, "p.step: must be an integer of 1 or more, but got 0; nearest: 1"),
        ({"int": [1, 10**9]}, "at most 100,000"),
        ({"float": [0.1, 1.0]}, "p.steps: is required, but missing"),
        ({"float": [0.1, 1.0], "steps": 1}, "p.steps: must be an integer between 2 and 100000, but got 1; nearest: 2"),
        ({"float": [1.0, 0.1], "steps": 3}, "p.float: low <= high must hold, but got [1.0, 0.1]"),
        ({"float": 0.1, "steps": 3}, "p.float: must be [low, high], both included, but got a number (0.1)"),
        ({"float": [0.1, "1"], "steps": 3}, "p.float[1]: must be a number, but got a text ('1')"),
        ({"float": [0, 1], "steps": 3, "log": True}, "p.float: low must be above 0 where log is true, but got 0"),
        ({"float": [0, 1], "steps": 3, "log": 2}, "p.log: must be true or false, but got an integer (2)"),
        ({"float": [1.0, 1.01], "steps": 30}, "p.steps: 30 numbers from 1.0 to 1.01 are not all different in four digits"),
        ({"float": [0, 1], "steps": 3, "step": 0.1}, "p.step: unknown key; did you mean steps?"),
        ({"sequence": {"of": [1, 2], "length": 3, "order": "increasing"}}, "there is no increasing sequence of 3"),
        ({"sequence": {"of": list(range(10)), "length": 9}}, "more than 100,000 sequences"),
        ({"sequence": {"of": [1], "length": 2, "order": "nonincresing"}}, "did you mean nonincreasing?"),
        ({"choise": [1]}, "unknown key; did you mean choice?"),
    ],
)  # fmt: skip
def test_mistakes(values: dict[str, Any], words: str) -> None:
    problems = Problems()
    fields = Fields(values, ("p",), problems)
    read_domain(fields)
    fields.close()
    assert words in "\n".join(map(str, problems.found))
