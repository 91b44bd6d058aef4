"""Questions that stand in two datasets, and near duplicates that a split parts."""

import numpy as np
import pytest

from studio.data import registry
from studio.data.audit import report
from studio.data.audit.leakage import Sides, between_sides
from studio.data.audit.near import Found
from studio.data.example import Example
from studio.data.selection import HELD, select
from studio.specs import AuditSpec, DataSpec, parse
from tests.data.conftest import asks

LONG = "A farmer has seventeen sheep and all but nine of them run away during the night, how many sheep are left then"


def test_a_question_of_the_other_set_leaks_whatever_its_answer_case_and_space(add, audited):
    add("exam", [asks("Other?", "x"), asks("What is  two plus TWO?", "4")])
    dataset = add("mine", [asks("New?", "y"), asks("what is two plus two?", "Four."), asks("More?", "z")])
    found = audited(dataset, against="exam", near_duplicates=False)
    assert found.report.leaked == 1 and report.positions(found.findings, "leak") == [1]
    assert report.partner(found.findings, "leak", 1) == 1


def test_a_nearly_equal_question_leaks_and_so_does_each_repetition_of_it(add, audited):
    add("exam", [{"prompt": "Other?"}, {"prompt": LONG}], format="prompt")
    near = asks(LONG + " exactly", "9")
    dataset = add("mine", [asks("New?", "y"), near, near])
    found = audited(dataset, against="exam")
    assert np.load(found.findings / "leak.npy").tolist() == [[1, 1], [2, 1]]
    assert audited(dataset, against="exam", near_duplicates=False).report.leaked == 0


def test_sets_of_different_kinds_are_compared_by_what_is_asked(add, audited):
    add("exam", [{"text": "Is this spam?", "label": "ham"}, {"text": "Hi", "label": "ham"}], format="classification")
    assert audited(add("mine", [asks("is this spam?", "no"), asks("b", "c")]), against="exam").report.leaked == 1


def pairs(count):
    """Rows of which each two that follow on each other are nearly the same."""
    texts = [" ".join(f"w{number // 2}x{place}" for place in range(40)) for number in range(count)]
    return [asks(text + " now" * (number % 2), "9", pair=number // 2) for number, text in enumerate(texts)]


def test_near_duplicates_on_the_two_sides_of_the_split_leak(add, audited):
    found = audited(add("mine", pairs(40)), validation_share=0.5)
    assert found.report.near_duplicates == 20 and 0 < found.report.leaked < 20
    for each in report.positions(found.findings, "leak"):
        assert report.partner(found.findings, "leak", each) == each ^ 1


def test_a_group_keeps_near_duplicates_on_one_side(add, audited):
    assert audited(add("mine", pairs(40)), validation_share=0.5, group="pair").report.leaked == 0


def test_a_leak_is_told_at_the_row_that_is_trained_on():
    near = Found(np.array([[3, 1], [5, 2], [7, 1], [9, 8]]), np.ones(4))
    assert between_sides(near, np.array([1, 5])).tolist() == [[2, 5], [3, 1], [7, 1]]


@pytest.mark.parametrize("group", [None, "by"])
def test_the_split_is_that_of_a_run(add, byte_tokenizer, group):
    rows = [asks(f"q{number // 3}", f"a{number % 2}", by=f"u{number // 7}") for number in range(120)]
    dataset = add("mine", ['{"torn', *rows])
    how = {"validation_share": 0.2, "seed": 7, "group": group}
    sides = Sides(parse(AuditSpec, {"dataset": "mine", **how}))
    learned = []
    for position, (row, outcome) in enumerate(registry.outcomes(dataset)):
        if isinstance(outcome, Example):
            sides.add(position, row, outcome)
            learned.append(position)
    (part,) = select(parse(DataSpec, {"datasets": "mine", "skip_faulty": True, **how}))
    assert sides.held_out().tolist() == [learned[place] for place, side in enumerate(part.sides) if side == HELD]


def test_a_split_that_a_run_would_refuse_is_a_warning(add, audited):
    found = audited(add("mine", [asks("a", "b"), asks("a", "b")]), validation_share=0.1)
    assert "No rows can be held out of 2" in found.report.warnings[0] and found.report.leaked is None
    found = audited(add("other", [asks("a", "b"), asks("c", "d")]), validation_share=0.1, group="user")
    assert "no row has the column 'user'" in found.report.warnings[0]
