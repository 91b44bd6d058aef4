"""Columns as paths within a row, and what is said where they hold something else."""

import pytest

from studio.data.example import RowFault
from studio.data.fields import at, needed_text, optional_text, shown

ROW = {
    "answer": "plain",
    "meta": {"answer": "inner", "n": 3},
    "instances": [{"output": "first"}, {"output": "second"}],
    "lines": ["a", "b"],
    "answers": {"text": ["x", "y"]},
    "a.b": "dotted",
    "list[0]": "bracketed",
    "empty": [],
    "none": None,
}


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ("answer", "plain"),
        ("meta.answer", "inner"),
        ("instances[0].output", "first"),
        ("instances[1].output", "second"),
        ("instances[].output", "first\nsecond"),
        ("lines[]", "a\nb"),
        ("lines[1]", "b"),
        ("answers.text[]", "x\ny"),
        ("a.b", "dotted"),
        ("list[0]", "bracketed"),
        ("empty[]", ""),
        ("none", None),
        ("none[]", None),
        ("none.x", None),
        ("absent", None),
        ("absent[]", None),
        ("meta.absent", None),
        ("instances[7].output", None),
        ("answer.inner", None),
        ("lines[x]", None),
        ("lines[-1]", None),
        ("..", None),
        ("", None),
        ("lines" + "[]" * 2000, None),
    ],
)
def test_a_column_is_a_path_within_the_row(column, expected):
    assert at(ROW, column) == expected


def test_a_path_can_lead_to_more_than_text():
    assert at(ROW, "meta.n") == 3
    assert at(ROW, "instances[0]") == {"output": "first"}


@pytest.mark.parametrize(
    ("column", "found"), [("answer[]", "'plain'"), ("instances[]", "entry 1"), ("meta[]", "an object")]
)
def test_only_lists_of_texts_can_be_joined(column, found):
    with pytest.raises(RowFault) as caught:
        at(ROW, column)
    assert caught.value.field == column and found in caught.value.reason


def test_a_text_that_is_no_text_is_a_fault_that_names_the_path_and_the_type():
    with pytest.raises(RowFault, match=r"^meta\.n: must be text, but is a whole number: 3\.$"):
        optional_text(ROW, "meta.n")


def test_a_missing_text_is_told_from_an_empty_one():
    with pytest.raises(RowFault, match=r"^meta\.absent: is missing.*to the response \(columns .*: answer, a\.b"):
        needed_text(ROW, "meta.absent", "response")
    with pytest.raises(RowFault, match=r"^empty\[\]: is empty\."):
        needed_text(ROW, "empty[]", "response")


def test_what_is_nested_a_thousand_deep_is_shown_short():
    deep = []
    for _ in range(5000):
        deep = [deep]
    assert len(shown(deep)) <= 60 and len(shown("x" * 10_000)) <= 60
