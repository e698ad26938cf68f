"""The expression language against Python's own evaluation, and what it refuses."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyconv_search.space.constraints import ExpressionError, parse

NUMBERS = st.integers(0, 9).map(str) | st.sampled_from(["x", "y", "sum(v)", "max(v)", "len(v)", "v[0]", "v[-1]"])
ARITHMETIC = st.recursive(
    NUMBERS,
    lambda inner: st.tuples(inner, st.sampled_from("+-*"), inner).map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
    max_leaves=6,
)
COMPARISONS = st.tuples(ARITHMETIC, st.sampled_from(["<", "<=", "==", "!=", ">", ">="]), ARITHMETIC).map(" ".join)
LOGIC = st.recursive(
    COMPARISONS,
    lambda inner: (
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(lambda t: f"({t[0]} {t[1]} {t[2]})")
        | inner.map(lambda t: f"(not {t})")
    ),
    max_leaves=5,
)


@given(LOGIC, st.integers(0, 9), st.integers(0, 9), st.lists(st.integers(0, 9), min_size=1, max_size=4))
@settings(max_examples=300, deadline=None)
def test_agrees_with_python(source: str, x: int, y: int, v: list[int]) -> None:
    names = {"x": x, "y": y, "v": v}
    expected = eval(source, {"__builtins__": {"sum": sum, "max": max, "len": len}}, names)
    expression = parse(source)
    assert bool(expression(names)) == bool(expected)
    assert expression.names <= names.keys()


@pytest.mark.parametrize(
    ("source", "value"),
    [("26M", 26_000_000), ("4.2k", 4200), ("0.5G", 500_000_000), ("'26M'", "26M"), ("x26M", "name"), ("1 < 2 < 3", True),
     ("1 < 2 < 2", False), ("2 in [1, 2]", True), ("3 not in (1, 2)", True), ("[1, 2] == (1, 2)", True), ("7 // 2", 3),
     ("7 / 2", 3.5), ("-3 % 5", 2), ("abs(-2)", 2), ("min(3, 1, 2)", 1)],
)  # fmt: skip
def test_values(source: str, value: object) -> None:
    assert parse(source)({"x26M": "name"}) == value


@pytest.mark.parametrize(
    "source",
    ["__import__('os')", "x.__class__", "(lambda: 1)()", "[i for i in v]", "x ** 9", "f'{x}'", "x if y else 1", "{1: 2}",
     "x := 3", "open('a')", "v[0:1]", "1;2", "", "x <", "b'a'", "1 << 3", "len(v, *v)", "print(x)", "2j", "x is y",
     "~" * 490 + "1", "(" * 200, "not " * 100 + "x" * 200],
)  # fmt: skip
def test_refuses_everything_else(source: str) -> None:
    with pytest.raises(ExpressionError):
        parse(source)


@pytest.mark.parametrize(
    "source", ["v <= 3", "x + v", "'a' * 9", "v * 99999999", "x / 0", "m['b'] == 2", "v[9]", "x[0]", "len(x)"]
)
def test_values_that_do_not_go_together_are_a_clear_error(source: str) -> None:
    with pytest.raises(ExpressionError, match="cannot be evaluated"):
        parse(source)({"x": 1, "v": [1, 2], "m": {"a": 1}})
