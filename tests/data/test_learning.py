"""What supervised fine-tuning sees of each kind of example."""

import pytest

from studio.data.example import Example, Message
from studio.data.learning import sft

ASKED = (Message("system", "Be brief."), Message("user", "Which?"))
GOOD, BAD = (Message("assistant", "This."),), (Message("assistant", "That."),)


@pytest.mark.parametrize("example", [Example(messages=ASKED + GOOD, tools="[]"), Example(text="Once", kind="text")])
def test_conversations_and_text_are_learned_as_they_are(example):
    assert sft(example) is example


def test_a_classified_text_is_asked_and_its_label_answers():
    seen = sft(Example(text="Win now!", label="spam", kind="classification"))
    assert seen == Example(messages=(Message("user", "Win now!"), Message("assistant", "spam")))


def test_the_better_of_two_answers_is_learned():
    seen = sft(Example(messages=ASKED, chosen=GOOD, rejected=BAD, kind="preference", tools='[{"name": "f"}]'))
    assert seen == Example(messages=ASKED + GOOD, tools='[{"name": "f"}]')


def test_an_answer_marked_good_is_learned_and_one_marked_bad_is_not():
    assert sft(Example(messages=ASKED, chosen=GOOD, label=True, kind="unpaired")) == Example(messages=ASKED + GOOD)
    assert sft(Example(messages=ASKED, chosen=BAD, label=False, kind="unpaired")) is None


def test_nothing_is_learned_from_a_prompt_alone():
    assert sft(Example(messages=ASKED, kind="prompt")) is None
