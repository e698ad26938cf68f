"""Domains against brute force."""

from __future__ import annotations

import itertools
from typing import Any

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
        ({"sequence": {"of": [1, 2], "length": 3, "order": "increasing"}}, "there is no increasing sequence of 3"),
        ({"sequence": {"of": list(range(10)), "length": 9}}, "more than 100,000 sequences"),
        ({"sequence": {"of": [1], "length": 2, "order": "nonincresing"}}, "did you mean nonincreasing?"),
        ({"choise": [1]}, "unknown key; did you mean choice?"),
    ],
)
def test_mistakes(values: dict[str, Any], words: str) -> None:
    problems = Problems()
    fields = Fields(values, ("p",), problems)
    read_domain(fields)
    fields.close()
    assert words in "\n".join(map(str, problems.found))
