"""Which rows say the same, and which contradict each other."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studio.data.audit.content import Content, asked, said
from studio.data.example import Example, Message


def talk(*contents, system=None, **more):
    turns = [Message("system", system)] if system else []
    turns += [Message("user" if place % 2 == 0 else "assistant", text) for place, text in enumerate(contents)]
    return Example(messages=tuple(turns), **more)


def labelled(text, label):
    return Example(text=text, kind="classification", label=label)


def preferring(question, chosen, rejected):
    sides = {"chosen": (Message("assistant", chosen),), "rejected": (Message("assistant", rejected),)}
    return Example(messages=(Message("user", question),), kind="preference", **sides)


def judged(question, answer, good):
    return Example(
        messages=(Message("user", question),), kind="unpaired", chosen=(Message("assistant", answer),), label=good
    )


def content_of(*examples):
    content = Content()
    for position, example in enumerate(examples):
        if example is not None:
            content.add(position, example)
    return content


def duplicates(*examples):
    return content_of(*examples).duplicates().tolist()


def conflicts(*examples):
    return content_of(*examples).conflicts().tolist()


def test_a_duplicate_is_told_with_the_first_of_its_kind_and_positions_count_faulty_rows():
    one, other = talk("a", "b"), talk("a", "c")
    assert duplicates(one, None, other, one, one) == [[3, 0], [4, 0]]


def test_case_and_space_make_rows_different():
    assert duplicates(talk("a", "b"), talk("A", "b"), talk("a ", "b")) == []


def test_the_same_text_of_another_kind_is_no_duplicate():
    assert duplicates(Example(text="a", kind="text"), labelled("a", "x")) == []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (talk("a", "b"), talk("a", "c")),
        (talk("a", "b", "c", "d"), talk("a", "b", "c", "e")),
        (labelled("a", "x"), labelled("a", "y")),
        (preferring("a", "b", "c"), preferring("a", "c", "b")),
        (judged("a", "b", True), judged("a", "b", False)),
    ],
)
def test_two_answers_to_one_question_contradict_each_other(one, other):
    assert conflicts(one, other) == [[0, 1], [1, 0]]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (talk("a", "b"), talk("a", "x", "c", "d")),  # one begins as the other does
        (talk("a", "b"), talk("a", "c", system="Be brief.")),
        (preferring("a", "b", "c"), preferring("a", "b", "d")),
        (judged("a", "b", True), judged("a", "c", False)),
        (Example(text="a", kind="text"), Example(text="b", kind="text")),
        (Example(messages=(Message("assistant", "a"),)), Example(messages=(Message("assistant", "b"),))),
        (talk("a", kind="prompt"), talk("a", kind="prompt", tools="[]")),
    ],
)
def test_what_may_stand_beside_each_other_is_no_conflict(one, other):
    assert conflicts(one, other) == []


def test_plain_texts_are_no_answers_to_one_another():
    texts = [Example(text=text, kind="text") for text in "abca"]
    assert conflicts(*texts) == [] and duplicates(*texts) == [[3, 0]]
    assert conflicts(*texts, talk("a", "b"), talk("a", "c")) == [[4, 5], [5, 4]]


def test_each_row_of_a_conflict_names_the_first_row_that_contradicts_it():
    rows = [talk("a", "b"), talk("a", "b"), talk("a", "c"), talk("x", "y"), talk("a", "d"), talk("a", "c")]
    assert conflicts(*rows) == [[0, 2], [1, 2], [2, 0], [4, 0], [5, 0]]


@settings(max_examples=100)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xyz")), max_size=12))
def test_findings_are_those_of_comparing_every_pair(pairs):
    rows = [talk(question, answer) for question, answer in pairs]
    again = [[place, pairs.index(pair)] for place, pair in enumerate(pairs) if pairs.index(pair) < place]
    contradicted = [
        [place, next(other for other, (asks, says) in enumerate(pairs) if asks == question and says != answer)]
        for place, (question, answer) in enumerate(pairs)
        if any(asks == question and says != answer for asks, says in pairs)
    ]
    assert duplicates(*rows) == again and conflicts(*rows) == contradicted


def test_what_is_asked_ends_before_the_answer_and_leaves_the_system_out():
    assert asked(talk("a", "b", "c", "d", system="s")) == "a\nb\nc"
    assert asked(preferring("a", "b", "c")) == "a" and asked(labelled("a", "x")) == "a"


def test_what_is_said_holds_every_turn_but_the_systems():
    assert said(talk("a", "b", system="s")) == "a\nb"
    assert said(preferring("a", "b", "c")) == "a\nb\nc"
