"""Holding rows out: pure, repeatable, and never the same row on both sides."""

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studio.data.example import Example, Message, ToolCall
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


ASKED = (Message("user", "a"),)
ONE, OTHER = (Message("assistant", "b"),), (Message("assistant", "c"),)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (Example(messages=ASKED + ONE), Example(messages=ASKED + ONE, tools='[{"name": "f"}]')),
        (
            Example(messages=(*ASKED, Message("assistant", "", (ToolCall("f"),)))),
            Example(messages=(*ASKED, Message("assistant", "", (ToolCall("g"),)))),
        ),
        (
            Example(messages=(*ASKED, Message("assistant", "", (ToolCall("f"),)))),
            Example(messages=(*ASKED, Message("assistant", "", (ToolCall("f"), ToolCall("f"))))),
        ),
        (
            Example(messages=ASKED, chosen=ONE, rejected=OTHER, kind="preference"),
            Example(messages=ASKED, chosen=OTHER, rejected=ONE, kind="preference"),
        ),
        (
            Example(messages=ASKED, chosen=ONE, label=True, kind="unpaired"),
            Example(messages=ASKED, chosen=ONE, label=False, kind="unpaired"),
        ),
        (Example(text="a", label="x", kind="classification"), Example(text="a", label="y", kind="classification")),
        (Example(text="a", label="1", kind="classification"), Example(text="a", label=True, kind="classification")),
        (Example(text="a", kind="text"), Example(text="a", label="None", kind="classification")),
        (Example(messages=ASKED, kind="prompt"), Example(messages=ASKED)),
    ],
)
def test_keys_cover_every_part_of_every_kind(first, second):
    assert key(first) != key(second)
    assert key(first) == key(Example(**{name: getattr(first, name) for name in first.__slots__}))


# --- rows that belong together, by their content, by their group, or over other rows

NAMES = st.sampled_from("abcdefgh")
ROWS = st.lists(st.tuples(NAMES, st.none() | NAMES), min_size=2, max_size=14)


def tied(rows):
    """Sets of rows that may not be parted, by the plainest means: merge until nothing changes."""
    sets = [{index} for index in range(len(rows))]
    for one, other in combinations(range(len(rows)), 2):
        (first, group), (second, same) = rows[one], rows[other]
        if first == second or (group is not None and group == same):
            mine = next(each for each in sets if one in each)
            theirs = next(each for each in sets if other in each)
            if mine is not theirs:
                mine |= theirs
                sets.remove(theirs)
    return sets


@settings(max_examples=300)
@given(rows=ROWS, share=st.floats(0.01, 0.5), seed=st.integers(0, 5))
def test_neither_content_nor_group_is_parted_and_the_share_is_as_close_as_that_allows(rows, share, seed):
    keys, groups = zip(*rows, strict=True)
    sets = tied(rows)
    if len(sets) < 2:
        with pytest.raises(DataError, match="different content and group"):
            split(keys, share, seed, groups)
        return
    train, held = split(keys, share, seed, groups)
    assert sorted(train + held) == list(range(len(rows))) and train == sorted(train) and held == sorted(held)
    assert all(not each & set(held) or each <= set(held) for each in sets)
    sizes = [len(each) for each in sets]
    wanted = max(1, round(len(rows) * share))
    reachable = {sum(some) for count in range(1, len(sets)) for some in combinations(sizes, count)}
    assert len(held) == max((size for size in reachable if size <= wanted), default=min(sizes))
    assert (train, held) == split(keys, share, seed, groups)


def test_a_gap_that_the_first_rows_leave_is_closed_by_others():
    keys = ["a"] * 3 + ["b"] * 3 + ["c"] * 4 + ["d"] * 30
    for seed in range(10):
        assert split(keys, 0.1, seed)[1] == [6, 7, 8, 9]


def test_rows_without_a_group_stand_alone():
    assert sum(map(len, split(range(10), 0.5, 1, [None] * 10))) == 10
    assert split(range(10), 0.3, 7, [None] * 10) == split(range(10), 0.3, 7)


def test_large_sets_that_leave_a_gap_are_searched_in_no_time():
    keys = [number // (7 + number % 3) for number in range(60_000)]
    train, held = split(keys, 0.1, 3)
    assert len(held) == 6000 and len(train) == 54_000
