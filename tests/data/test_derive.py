"""New datasets out of one: what each remedy removes, what it keeps, and what it refuses."""

import json
from collections import Counter
from itertools import combinations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from studio.data import registry
from studio.data.derive import AUDITED, REMEDIES, derive, split_into
from studio.data.example import BadRow, Example
from studio.data.intake import Stopped, Watch
from studio.errors import DataError, StudioError
from studio.home import home
from tests.data.conftest import asks

LONG = " ".join(f"word{number}" for number in range(40))
ROWS = [
    asks("Capital?", "Paris."),
    asks("Capital?", "Paris."),
    '{"broken',
    asks("Capital?", "Lyon."),
    asks("Tell.", LONG),
    asks("Tell.", LONG + " more"),
    asks("Tell.", LONG + " more"),
    asks("Asks much " * 60, "no"),
]


def answers(dataset):
    return [each.answer for _, each in registry.outcomes(dataset) if isinstance(each, Example)]


def numbers(dataset):
    return [row.number for row in registry.read(dataset)]


@pytest.mark.parametrize(
    ("remedy", "kept"),
    [
        ("drop_faulty", [1, 2, 4, 5, 6, 7, 8]),
        ("drop_duplicates", [1, 3, 4, 5, 6, 8]),
        ("drop_near_duplicates", [1, 3, 4, 5, 8]),
        ("drop_conflicts", [1, 2, 3, 5, 8]),
        ("drop_leaks", [3, 5, 6, 7, 8]),
        ("drop_truncated", [1, 2, 3, 4]),
        ("drop_unsupervised", [1, 2, 3, 4, 5, 6, 7]),
    ],
)
def test_a_remedy_removes_what_it_names_and_rows_keep_their_numbers(add, audited, byte_tokenizer, remedy, kept):
    add("exam", [asks("capital?", "?")])
    dataset = add("mine", ROWS, format="alpaca")
    found = audited(dataset, tokenizer=byte_tokenizer, model="tiny", max_length=100, against="exam")
    made = derive("mine", remedy, "mine-2", findings=found.findings)
    assert numbers(made) == kept
    assert (made.origin["from"], made.origin["remedy"], made.origin["removed"]) == ("mine", remedy, 8 - len(kept))
    assert made.origin["sha256"] == dataset.sha256 and registry.get("mine") == dataset
    assert numbers(dataset) == list(range(1, 9))


def test_rows_keep_their_file_their_values_and_the_way_they_are_read(add):
    rows = [{"q": f"q{number}", "a": "yes", "instruction": "never read", "input": "nor this"} for number in range(6)]
    how = {"format": "alpaca", "columns": {"prompt": "q", "response": "a", "query": ""}}
    dataset = add("mine", [*rows, rows[0]], **how)
    made = derive("mine", "drop_duplicates", "less")
    assert (made.format, made.columns, made.tags) == (dataset.format, dataset.columns, dataset.tags)
    assert [row.values for row in registry.read(made)] == rows
    assert {row.file for row in registry.read(made)} == {"mine.jsonl"}
    assert next(each for _, each in registry.outcomes(made)).messages[0].content == "q0"


def test_the_words_of_a_format_stay_those_of_the_source(add):
    turns = [{"who": "asker", "said": "Hi"}, {"who": "teller", "said": "Hello"}]
    tags = {"role_tag": "who", "content_tag": "said", "user_tag": "asker", "assistant_tag": "teller"}
    dataset = add("mine", [{"conversations": turns}] * 2, format="sharegpt", tags=tags)
    made = derive("mine", "drop_duplicates", "less")
    assert made.tags == dataset.tags and answers(made) == ["Hello"]


def test_contradicting_labels_all_go_because_none_is_known_to_be_right(add):
    rows = [{"text": "a", "label": "x"}, {"text": "a", "label": "y"}, {"text": "b", "label": "x"}]
    add("mine", rows, format="classification")
    assert numbers(derive("mine", "drop_conflicts", "less")) == [3]


def test_balance_brings_every_class_to_the_size_of_the_smallest_and_the_seed_decides_which_rows(add):
    rows = [{"text": f"text {number}", "label": "xyyzzz"[number % 6]} for number in range(60)]
    add("mine", ['{"torn', *rows], format="classification")
    made = derive("mine", "balance", "even")
    assert Counter(answers(made)) == {"x": 10, "y": 10, "z": 10} and made.rows == made.valid == 30
    assert numbers(made) == sorted(numbers(made)) == numbers(derive("mine", "balance", "again", seed=42))
    assert numbers(made) != numbers(derive("mine", "balance", "other", seed=1))


def test_a_sample_has_the_wanted_number_of_rows(add):
    add("mine", [asks(f"q{number}", "a") for number in range(20)])
    made = derive("mine", "sample", "few", rows=7)
    assert made.rows == 7 and made.origin["seed"] == 42
    for rows in (None, 0, 20):
        with pytest.raises(DataError, match="between 1 and 19 rows"):
            derive("mine", "sample", "none", rows=rows)


@pytest.mark.parametrize("remedy", AUDITED)
def test_a_remedy_that_needs_an_audit_of_these_rows_says_so(add, audited, remedy):
    dataset = add("mine", [asks("a", "b"), asks("c", "d")])
    with pytest.raises(DataError, match="needs an audit of 'mine' first"):
        derive("mine", remedy, "less")
    found = audited(dataset)
    add("other", [asks("e", "f")])
    with pytest.raises(DataError, match="not about the present rows of 'other'"):
        derive("other", remedy, "less", findings=found.findings)


@pytest.mark.parametrize("remedy", ["drop_faulty", "drop_duplicates", "drop_conflicts"])
def test_a_remedy_with_nothing_to_do_makes_no_dataset(add, remedy):
    add("mine", [asks("a", "b"), asks("c", "d")])
    with pytest.raises(DataError, match=f"{remedy} would remove no row of 'mine'"):
        derive("mine", remedy, "less")


def test_leaks_between_the_sides_of_a_split_are_not_remedied_by_leaving_rows_out(add, audited):
    rows = [asks(f"{LONG} {number // 2} " * 2 + "x" * (number % 2), "a") for number in range(40)]
    found = audited(add("mine", rows), validation_share=0.5)
    assert found.report.leaked
    with pytest.raises(DataError, match="the split is another one. Use drop_near_duplicates"):
        derive("mine", "drop_leaks", "less", findings=found.findings)


def test_what_cannot_be_done_is_refused_by_name(add):
    add("mine", [asks("a", "b"), asks("a", "b")])
    with pytest.raises(DataError, match="Unknown remedy 'drop_duplicate'. Did you mean 'drop_duplicates'"):
        derive("mine", "drop_duplicate", "less")
    with pytest.raises(DataError, match="has no classes to balance: it is read as alpaca"):
        derive("mine", "balance", "less")
    with pytest.raises(StudioError, match="cannot be a dataset name"):
        derive("mine", "drop_duplicates", "../less")
    with pytest.raises(DataError, match="'mine' already, with other rows"):
        derive("mine", "drop_duplicates", "mine")


def test_a_stopped_remedy_leaves_nothing_behind(add):
    add("mine", [asks("a", "b"), asks("a", "b")])
    before = sorted(home().uploads.iterdir())
    asked = iter([False, True])
    with pytest.raises(Stopped):
        derive("mine", "drop_duplicates", "less", watch=Watch(stopping=lambda: next(asked)))
    assert sorted(home().uploads.iterdir()) == before and "less" not in [each.name for each in registry.every()]


def test_progress_rises_over_both_passes(add):
    add("mine", [asks("a", "b"), asks("a", "b")])
    told = []
    derive("mine", "drop_duplicates", "less", watch=Watch(tell=told.append))
    assert [each.done * 2 // each.total for each in told] == [0, 1]


def test_a_set_is_cut_by_shares_and_every_valid_row_is_in_one_part(add):
    dataset = add("mine", ['{"torn', *(asks(f"q{number}", "a") for number in range(100))])
    made = split_into(dataset, [0.1, 0.8, 0.1], ["test", "train", "valid"])
    assert [(each.name, each.rows) for each in made] == [("test", 10), ("train", 80), ("valid", 10)]
    assert sorted(number for each in made for number in numbers(each)) == list(range(2, 102))
    assert made[0].origin["remedy"] == "split" and made[0].origin["share"] == 0.1


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 6)), min_size=20, max_size=60), st.integers(0, 99))
def test_no_content_and_no_group_is_in_two_parts(tmp_path_factory, pairs, seed):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("home")
        patch.setenv("STUDIO_HOME", str(folder))
        path = folder / "mine.jsonl"
        path.write_text("\n".join(json.dumps(asks(f"q{question}", "a", by=f"u{by}")) for question, by in pairs))
        dataset = registry.add(path, "mine")
        try:
            made = split_into(dataset, [0.5, 0.3, 0.2], ["a", "b", "c"], seed=seed, group="by")
        except DataError as error:
            assert "too few different rows or groups" in str(error)
            return
        rows = [[row.values for row in registry.read(each)] for each in made]
        assert sum(map(len, rows)) == len(pairs)
        for one, other in combinations(rows, 2):
            for column in ("instruction", "by"):
                assert not {row[column] for row in one} & {row[column] for row in other}


def test_either_all_parts_are_made_or_none(add):
    dataset = add("mine", [asks(f"q{number}", "a") for number in range(10)])
    add("taken", [asks("x", "y")])
    before = sorted(home().uploads.iterdir())
    with pytest.raises(DataError, match="'taken' already"):
        split_into(dataset, [0.5, 0.5], ["new", "taken"])
    assert sorted(home().uploads.iterdir()) == before and "new" not in [each.name for each in registry.every()]


@pytest.mark.parametrize(
    ("shares", "names", "said"),
    [
        ([0.5, 0.5], ["a"], "2 shares for 1 names"),
        ([1.0], ["a"], "Give two or more"),
        ([0.5, 0.6], ["a", "b"], "must all be above 0 and make 1"),
        ([1.5, -0.5], ["a", "b"], "must all be above 0 and make 1"),
        ([0.5, 0.5], ["a", "A"], "a name is there twice"),
        ([0.5, 0.5], ["a", "con"], "cannot be a dataset name"),
        ([0.4, 0.3, 0.3], ["a", "b", "c"], "too few different rows for 3 sets"),
    ],
)
def test_parts_that_do_not_fit_are_refused(add, shares, names, said):
    dataset = add("mine", [asks("a", "b"), asks("c", "d"), asks("c", "d")])
    with pytest.raises(StudioError, match=said):
        split_into(dataset, shares, names)


def test_a_derived_set_is_derived_from_in_turn(add):
    add("mine", ROWS, format="alpaca")
    derive("mine", "drop_faulty", "one")
    made = derive("one", "drop_duplicates", "two")
    assert made.origin["from"] == "one" and numbers(made) == [1, 4, 5, 6, 8]
    assert not any(isinstance(each, BadRow) for _, each in registry.outcomes(made))


def test_every_remedy_is_named_in_lower_case_words():
    assert all(name.replace("_", "").islower() for name in REMEDIES)
