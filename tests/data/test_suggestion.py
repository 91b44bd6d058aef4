"""Mappings for columns without usual names."""

import pytest

from studio.data import formats

WORDS = ("rain falls on the old roof", "a cat sleeps in the sun", "nobody reads the long report")


def rows(*columns, count=12):
    """Rows in which each column is (name, function of the row's number)."""
    return [{name: value(number) for name, value in columns} for number in range(count)]


def text(number):
    return f"{WORDS[number % 3]}, {number} times over again"


def suggested(*columns):
    found = formats.detect(rows(*columns))
    assert found.confidence < 0.5 and "suggestion" in found.reason
    return found.format, found.columns


def test_two_columns_of_text_ask_and_answer():
    assert suggested(("mr", text), ("ref", text)) == ("prompt_completion", {"prompt": "mr", "response": "ref"})


def test_an_exam_question_is_answered_by_its_answer_rather_than_its_analysis():
    columns = (("question", text), ("answer", lambda n: ["C"]), ("analysis", text), ("score", lambda n: 4))
    assert suggested(*columns) == ("prompt_completion", {"prompt": "question", "response": "answer[]"})


def test_a_nested_task_is_an_instruction():
    task = ("instances", lambda n: [{"input": text(n), "output": text(n)}])
    expected = {"prompt": "instruction", "query": "instances[0].input", "response": "instances[0].output"}
    assert suggested(("id", str), ("instruction", text), task) == ("alpaca", expected)


def test_answers_of_a_reading_test_are_found_below_their_question():
    columns = (("title", text), ("question", text), ("answers", lambda n: {"text": [text(n)] * 3, "start": [3] * 3}))
    found = {"prompt": "question", "response": "answers.text[0]"}
    assert suggested(*columns) == ("prompt_completion", found)
    assert suggested(*columns, ("context", text)) == ("alpaca", found | {"query": "context"})


def test_a_list_of_lines_is_text():
    lines = ("paragraphs", lambda n: [text(n), text(n + 1)])
    assert suggested(("author", lambda n: f"name {n}"), lines) == ("text", {"text": "paragraphs[]"})


def test_a_question_alone_is_a_prompt_and_its_choices_are_no_text():
    assert suggested(("question", text), ("year", str)) == ("prompt", {"prompt": "question"})
    choices = ("choices", lambda n: [text(n)] * 4)
    assert formats.detect(rows(("question", text), choices, ("answer", int))).format is None


@pytest.mark.parametrize("label", [lambda n: ("ham", "spam")[n % 2], lambda n: n % 2, lambda n: n % 2 == 0])
def test_a_column_of_few_short_values_beside_a_text_is_its_label(label):
    expected = {"text": "column 2", "label": "column 1"}
    assert suggested(("column 1", label), ("column 2", text)) == ("classification", expected)


def test_a_short_word_is_no_text_to_be_labelled():
    found = formats.detect(rows(("code", lambda n: ("ab", "cd")[n % 2]), ("word", lambda n: f"w{n}")))
    assert found.format is None


def talk(number, **more):
    return [{"message": text(n), **more} for n in range(number, number + 4)]


def test_turns_without_roles_alternate():
    found = formats.detect(rows(("messages", lambda n: talk(n, attrs=[])), ("name", str)))
    assert (found.format, found.columns) == ("sharegpt", {"messages": "messages"})
    assert found.tags == {"role_tag": "", "content_tag": "message"} and found.confidence < 0.5


def test_turns_of_two_speakers_with_other_names_are_read_by_them():
    turns = [{"speaker": who, "text": text(0)} for who in ("agent", "customer", "agent")]
    found = formats.detect([{"log": turns}] * 3)
    expected = {"role_tag": "speaker", "content_tag": "text", "user_tag": "customer", "assistant_tag": "agent"}
    assert (found.format, found.tags) == ("sharegpt", expected)


def test_a_dialogue_of_plain_texts_is_read_in_turn():
    found = formats.detect([{"dialog": ["Hi", "Hello", "How are you?"]}] * 3)
    example = formats.get(found.format).convert({"dialog": ["Hi", "Hello"]}, found.columns, found.tags)
    assert [(turn.role, turn.content) for turn in example.messages] == [("user", "Hi"), ("assistant", "Hello")]


def test_what_was_found_in_a_text_is_no_talk():
    names = ("entities", lambda n: [{"text": "rain", "type": "weather"}, {"text": "cat", "type": "animal"}])
    assert suggested(("sentence_text", text), names) == ("text", {"text": "sentence_text"})


def test_nothing_is_suggested_for_numbers():
    assert formats.detect(rows(("x", int), ("y", float))).format is None
