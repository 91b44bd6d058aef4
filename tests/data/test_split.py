"""Holding rows out: pure, repeatable, and never the same row on both sides."""

import pytest

from studio.data.example import Example, Message
from studio.data.split import key, split
from studio.errors import DataError


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
def test_every_row_lands_on_exactly_one_side(share):
    train, held = split(range(101), share, 3)
    assert sorted(train + held) == list(range(101))
    assert len(held) == max(1, round(101 * share))


def test_the_same_seed_gives_the_same_split_and_another_seed_another():
    assert split(range(50), 0.2, 1) == split(range(50), 0.2, 1)
    assert split(range(50), 0.2, 1) != split(range(50), 0.2, 2)


def test_without_a_share_all_rows_are_trained_on():
    assert split(["a"] * 3, 0, 1) == ([0, 1, 2], [])


@pytest.mark.parametrize("seed", range(20))
def test_equal_rows_land_on_the_same_side(seed):
    keys = ["a", "b", "a", "c", "d", "a", "b", "e"]
    train, held = split(keys, 0.3, seed)
    assert not {keys[index] for index in train} & {keys[index] for index in held}
    assert train and held


def test_many_copies_of_one_row_are_trained_on_rather_than_held_out():
    for seed in range(10):
        train, held = split(["same"] * 98 + ["a", "b"], 0.05, seed)
        assert (len(train), len(held)) == (98, 2)
        assert split(["a", "a", "a", "b", "b"], 0.01, seed) == ([0, 1, 2], [3, 4])


def test_rows_that_are_all_the_same_cannot_be_split():
    with pytest.raises(DataError, match=r"data\.validation_share to 0"):
        split(["a", "a", "a"], 0.5, 1)


def test_keys_tell_examples_apart_by_what_they_say():
    one = Example(messages=(Message("user", "ab"), Message("assistant", "c")))
    other = Example(messages=(Message("user", "a"), Message("assistant", "bc")))
    assert key(one) == key(Example(messages=one.messages))
    assert len({key(one), key(other), key(Example(text="ab")), key(Example(text="a"))}) == 4
