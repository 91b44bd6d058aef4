"""Mixing by weight: exact shares, no row twice unless that is asked for, and the same order each time."""

from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studio.data.mixing import amounts, mixed

WEIGHT = st.floats(0.01, 100) | st.integers(1, 9)
SETS = st.lists(st.tuples(st.integers(1, 40), WEIGHT), min_size=1, max_size=5)


def of_each(order, sizes):
    """How often each row of each set is in an order."""
    seen, begin, found = Counter(order.tolist()), 0, []
    for size in sizes:
        found.append([seen[row] for row in range(begin, begin + size)])
        begin += size
    assert sum(map(sum, found)) == len(order), "a row that is in no set"
    return found


@settings(max_examples=150)
@given(sets=SETS, repeat=st.booleans(), seed=st.none() | st.integers(0, 9))
def test_shares_are_met_within_one_row_and_rows_repeat_only_where_asked(sets, repeat, seed):
    sizes, weights = zip(*sets, strict=True)
    order = mixed(sizes, weights, repeat=repeat, seed=seed)
    times = of_each(order, sizes)
    whole = sum(map(Fraction, weights))
    for each, weight in zip(times, weights, strict=True):
        assert abs(sum(each) - len(order) * Fraction(weight) / whole) < 1
        assert max(each) - min(each) <= 1, "a row comes again only after the whole set"
        assert min(each) >= 1 if repeat else max(each) <= 1
    if repeat:
        assert any(set(each) == {1} for each in times), "the longest-lasting set is used exactly once"
    else:
        assert any(min(each) == 1 for each in times), "the mix ends when a set is used up, not before"
    assert order.tolist() == mixed(sizes, weights, repeat=repeat, seed=seed).tolist()


@settings(max_examples=60)
@given(sizes=st.tuples(st.integers(1, 60), st.integers(1, 60)), weights=st.tuples(WEIGHT, WEIGHT))
def test_two_sets_keep_their_shares_all_along(sizes, weights):
    order = mixed(sizes, weights, repeat=True, seed=1)
    first = order < sizes[0]
    counts = np.arange(1, len(order) + 1)
    assert (abs(first.cumsum() - counts * first.mean()) <= 1 + 1e-9).all()


def test_without_a_seed_rows_keep_their_order_within_their_set():
    assert mixed([2, 6], [1, 2], repeat=False, seed=None).tolist() == [2, 0, 3, 4, 1, 5]
    assert mixed([1, 3], [1, 1], repeat=True, seed=None).tolist() == [0, 1, 0, 2, 0, 3]


def test_the_seed_draws_the_rows_of_the_larger_set():
    drawn = [frozenset(mixed([5, 1000], [1, 1], repeat=False, seed=seed).tolist()) for seed in (1, 2)]
    assert drawn[0] != drawn[1] and all(len(rows) == 10 for rows in drawn)


def test_a_set_without_rows_leaves_nothing_unless_the_others_may_repeat():
    assert amounts([0, 5], [1, 1], repeat=False) == [0, 0]
    assert amounts([0, 5, 5], [1, 1, 1], repeat=True) == [0, 5, 5]
    assert len(mixed([0, 0], [1, 1], repeat=True, seed=1)) == 0


@pytest.mark.parametrize("weights", [(1, 1, 1), (0.1, 0.2, 0.7), (1 / 3, 1 / 3, 1 / 3)])
def test_equal_multiples_of_the_weights_make_the_same_mix(weights):
    tenfold = [weight * 8 for weight in weights]
    assert amounts([70, 80, 90], weights, repeat=True) == amounts([70, 80, 90], tenfold, repeat=True)
