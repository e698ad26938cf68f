from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyconv_search.errors import UserError
from pyconv_search.study import datasets
from pyconv_search.training.data import load
from pyconv_search.training.data.holdout import draw, quotas, validation_count


@given(st.lists(st.integers(0, 50), min_size=1, max_size=12), st.floats(0, 1))
def test_quotas_are_the_exact_shares_rounded(sizes, part):
    count = int(sum(sizes) * part)
    share = quotas(sizes, count)
    assert sum(share.values()) == count
    for label, size in enumerate(sizes):
        assert 0 <= share[label] <= size
        assert abs(share[label] - count * size / max(sum(sizes), 1)) < 1


def test_quotas_by_hand():
    assert quotas([6, 3, 1], 5) == {0: 3, 1: 2, 2: 0}  # 3, 1.5, 0.5: equal remainders, the lower label first
    assert quotas([10, 10, 10], 4) == {0: 2, 1: 1, 2: 1}


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.floats(0, 1))
def test_draw_is_by_rank_within_each_class(labels, part):
    array, count = np.array(labels, dtype=np.int64), int(len(labels) * part)
    drawn = draw(array, count, "salt").tolist()
    assert drawn == sorted(set(drawn))
    assert len(drawn) == count
    rank = [hashlib.sha256(f"salt:{index}".encode()).digest() for index in range(len(labels))]
    for label in set(labels):
        inside = [rank[i] for i in drawn if labels[i] == label]
        outside = [rank[i] for i in range(len(labels)) if labels[i] == label and i not in drawn]
        assert not inside or not outside or max(inside) < min(outside)


def test_draw_is_fixed_for_ever():
    fixed = [9, 12, 16, 19, 25, 26, 34, 39]
    assert draw(np.arange(40) % 4, 8, "pyconv-search validation 0").tolist() == fixed
    assert draw(np.arange(40) % 4, 8, "another").tolist() != fixed


@pytest.mark.parametrize("validation", [10, 13, 25, 40])
def test_validation_can_be_asked_for(tiny, make, validation):
    whole = load("fashion-mnist", make.fashion(tiny), validation=0)
    data = load("fashion-mnist", tiny, validation=validation)
    assert (len(data.train), len(data.validation)) == (50 - validation, validation)
    assert (data.info.train, data.info.validation, data.info.test) == (50 - validation, validation, 20)
    counts = np.bincount(data.validation.labels, minlength=10)
    assert counts.max() - counts.min() <= 1
    parts = [image.tobytes() for split in (data.train, data.validation) for image in split.images]
    assert sorted(parts) == sorted(image.tobytes() for image in whole.train.images)
    np.testing.assert_array_equal(data.test.images, whole.test.images)


def test_none_held_out(tiny, make):
    data = load("fashion-mnist", make.fashion(tiny), validation=0)
    assert data.validation.images.shape == (0, 1, 28, 28)
    assert data.train.labels.tolist() == make.labels(50, 10, 0)


@pytest.mark.parametrize("validation", [-1, 1, 9, 49_991 + 10_000, 70_000, True, 5000.0, "5000"])
def test_counts_that_cannot_be(validation):
    with pytest.raises(UserError) as caught:
        validation_count(datasets.get("fashion-mnist"), validation)
    assert str(caught.value) == (
        f"fashion-mnist: validation is {validation!r}, but must be a whole number from 10 to 59,990 "
        "(of 60,000 training images), or 0 to train on all of them"
    )


def test_a_wrong_count_is_told_before_any_file_is_looked_for(tiny):
    with pytest.raises(UserError, match="validation is 9999, but must be a whole number from 100 to 100"):
        load("cifar100", tiny, validation=9999)
