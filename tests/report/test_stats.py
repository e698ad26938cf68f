"""Statistics against scipy, brute force and values worked out by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as reference

from pyconv_search.report.stats import Difference, front, holm, paired_difference, seeds_needed, summarize

VALUES = st.lists(st.floats(0, 100), min_size=2, max_size=12)


def test_summary_by_hand():
    # mean 12, s = 1, t(0.975, 2) = 4.302653, so that the half-width is 4.302653 / sqrt(3).
    found = summarize([11.0, 12.0, 13.0])
    assert (found.n, found.mean, found.sd) == (3, 12.0, 1.0)
    assert found.half_width == pytest.approx(2.484138, abs=1e-6)


@given(VALUES)
def test_summary_is_scipys_interval(values):
    found = summarize(values)
    sd = float(np.std(values, ddof=1))
    low, high = reference.t.interval(
        0.95, len(values) - 1, loc=np.mean(values), scale=max(sd, 1e-300) / math.sqrt(found.n)
    )
    assert found.mean - found.half_width == pytest.approx(low, abs=1e-9)
    assert found.mean + found.half_width == pytest.approx(high, abs=1e-9)


def test_one_seed_has_no_interval():
    found = summarize([7.0])
    assert (found.n, found.mean, found.sd, found.half_width) == (1, 7.0, None, None)
    with pytest.raises(ValueError, match="at least one"):
        summarize([])


def test_the_interval_covers_as_often_as_it_says():
    # 4,000 samples of n = 3: a right interval falls outside 0.95 ± 0.014 less than once in 10,000 seeds of this test.
    samples = np.random.default_rng(0).normal(10, 2, (4000, 3))
    found = [summarize(list(map(float, sample))) for sample in samples]
    assert np.mean([abs(s.mean - 10) <= s.half_width for s in found]) == pytest.approx(0.95, abs=0.014)


def test_paired_difference_is_scipys_paired_t_test():
    rng = np.random.default_rng(1)
    a = {seed: float(rng.normal(20, 1)) for seed in range(6)}
    b = {seed: a[seed] + float(rng.normal(0.5, 0.3)) for seed in range(2, 9) if seed in a} | {9: 3.0}
    shared = sorted(a.keys() & b.keys())
    expected = reference.ttest_rel([a[s] for s in shared], [b[s] for s in shared])
    found = paired_difference(a, b)
    low, high = expected.confidence_interval(0.95)
    assert found.n == len(shared) == 4
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.mean - found.half_width, found.mean + found.half_width) == pytest.approx((low, high))
    assert found.statement == ("differs" if expected.pvalue < 0.05 else "not resolved")


def test_pairs_without_a_test():
    assert paired_difference({0: 1.0}, {1: 1.0}) is None
    one = paired_difference({0: 1.0, 1: 5.0}, {0: 3.0})
    assert (one.n, one.mean, one.half_width, one.p, one.statement) == (1, -2.0, None, None, "not resolved")
    equal = paired_difference({0: 0.3, 1: 0.5}, {0: 0.1, 1: 0.3})
    assert (equal.p, equal.statement) == (None, "not resolved")


def test_seeds_needed():
    # t(0.975, 6) · 1 / sqrt(7) = 0.9248 is the first half-width below 1.
    assert seeds_needed(Difference(2, -1.0, 1.0, 9.0, 0.4)) == 7
    assert seeds_needed(Difference(2, 0.001, 1.0, 9.0, 0.9)) is None
    assert seeds_needed(Difference(1, 1.0, None, None, None)) is None


def test_holm_by_hand():
    # Ordered .01 .03 .04 of three: 3 × .01, then 2 × .03, then the largest so far, since 1 × .04 is smaller.
    assert holm([0.04, None, 0.01, 0.03]) == [pytest.approx(0.06), None, pytest.approx(0.03), pytest.approx(0.06)]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holm_is_the_closed_test_of_bonferroni(values):
    # Rejected is what Bonferroni rejects in every intersection that holds it: the corrected p is their maximum.
    indices = range(len(values))
    for i, found in zip(indices, holm(values), strict=True):
        sets = [s for n in range(1, len(values) + 1) for s in itertools.combinations(indices, n) if i in s]
        assert found == pytest.approx(max(min(1.0, len(s) * min(values[j] for j in s)) for s in sets))


POINTS = st.integers(2, 3).flatmap(lambda n: st.lists(st.tuples(*[st.integers(0, 6).map(float)] * n), max_size=25))


@given(POINTS)
def test_front_is_what_nothing_dominates(points):
    def dominated(p):
        return any(all(x <= y for x, y in zip(q, p, strict=True)) and q != p for q in points)

    assert front(points) == [i for i, p in enumerate(points) if not dominated(p)]


def test_front_keeps_copies_and_drops_ties_that_cost_more():
    assert front([(5.0, 1.0), (5.0, 1.0), (5.0, 2.0), (4.0, 2.0), (4.0, 3.0)]) == [0, 1, 3]
