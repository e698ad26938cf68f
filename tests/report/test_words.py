"""Numbers and names as a reader meets them."""

from __future__ import annotations

from pyconv_search.report import words
from pyconv_search.report.stats import Summary


def test_fixed():
    assert [words.fixed(v) for v in (1.005, -0.4, None, float("nan"), float("inf"))] == ["1.00", "−0.40", "–", "–", "–"]


def test_with_interval():
    assert words.with_interval(Summary(3, 12.345, 0.5, 1.2421)) == "12.35 ± 1.24"
    assert words.with_interval(Summary(1, 12.345, None, None)) == "12.35"
    assert (words.seeds(1), words.seeds(2)) == ("1 seed, no interval", "2 seeds")


def test_p_values_keep_their_side_of_five_percent():
    assert [words.p_value(p) for p in (0.0496, 0.5, 0.0004, None)] == ["p = 0.0496", "p = 0.500", "p < 0.001", "no p"]


def test_labels_tell_architectures_apart(examples):
    rows = [examples.row(a, 0, name="", parameters={"a": a, "b": 7}) for a in range(2)]
    assert set(words.labels(rows).values()) == {"a = 0", "a = 1"}
    rows = [examples.row(a, 0, name=f"a {a}, b 7", parameters={"a": a, "b": 7}) for a in range(2)]
    assert set(words.labels(rows).values()) == {"a = 0", "a = 1"}
    assert set(words.labels(rows[:1]).values()) == {"a = 0, b = 7"}
    rows = [examples.row(a, 0, name="same", parameters={"a": [a]}) for a in range(2)]
    assert set(words.labels(rows).values()) == {"same: a = [0]", "same: a = [1]"}
    rows = [examples.row(a, 0, name="same", parameters={}) for a in range(2)]
    assert len(set(words.labels(rows).values())) == 2
    rows = [examples.row(0, seed, name="one") for seed in range(3)]
    assert list(words.labels(rows).values()) == ["one"]


def test_parameters_of_some_rows_only_are_told(examples):
    rows = [examples.row(0, 0, name="", parameters={"a": 1, "b": 2}), examples.row(1, 0, name="", parameters={"a": 1})]
    assert words.labels(rows)[rows[0].arch_id] == "b = 2"


def test_lists_and_cuts():
    assert (words.listed([]), words.listed(["a"]), words.listed(["a", "b", "c"])) == ("", "a", "a, b and c")
    assert words.clipped("a\nb  c" + "d" * 20, 8) == "a b cdd…"
