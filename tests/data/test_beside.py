"""What may stand beside the content of a turn: thoughts, whether it is learned, and which call a result belongs to."""

import json

import pytest

from studio.cli.described import learned_lines
from studio.data import formats
from studio.data.audit.content import Content
from studio.data.example import Example, Message, RowFault, ToolCall
from studio.data.split import key

ASKED = {"role": "user", "content": "Rain?"}


def openai(*turns):
    return formats.get("openai").convert({"messages": [ASKED, *turns]}, {}, {}).messages[1:]


def sharegpt(*turns, **tags):
    row = {"conversations": [{"from": "human", "value": "Rain?"}, *turns]}
    return formats.get("sharegpt").convert(row, {}, tags).messages[1:]


def answer(**beside):
    return openai({"role": "assistant", "content": "No.", **beside})[0]


def fault(**beside):
    with pytest.raises(RowFault) as caught:
        answer(**beside)
    return caught.value


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning", "thinking"])
def test_a_thought_beside_the_answer_is_kept_apart_from_it(key):
    assert answer(**{key: "It is dry."}) == Message("assistant", "No.", thought="It is dry.")
    assert sharegpt({"from": "gpt", "value": "No.", key: "Dry."}) == (Message("assistant", "No.", thought="Dry."),)
    assert answer(**{key: None}) == answer(**{key: " \n"}) == Message("assistant", "No.")


@pytest.mark.parametrize(
    ("beside", "train"),
    [
        ({"train": True}, True),
        ({"train": False}, False),
        ({"train": None}, None),
        ({"weight": 0}, False),
        ({"weight": 1}, True),
        ({"weight": 0.0}, False),
        ({"weight": 1.0}, True),
        ({"weight": False}, False),
        ({"weight": None}, None),
        ({"weight": 0, "train": False}, False),
    ],
)
def test_a_turn_says_whether_it_is_learned(beside, train):
    assert answer(**beside).train is train
    assert sharegpt({"from": "gpt", "value": "No.", **beside})[0].train is train


def test_turns_without_roles_say_it_too():
    row = {"conversations": [{"value": "Rain?"}, {"value": "No.", "train": False, "reasoning": "Dry."}]}
    (_, said) = formats.get("sharegpt").convert(row, {}, {"role_tag": ""}).messages
    assert said == Message("assistant", "No.", thought="Dry.", train=False)


@pytest.mark.parametrize(
    ("beside", "field", "reason"),
    [
        ({"train": "no"}, "train", "must be true or false"),
        ({"train": 0}, "train", "must be true or false"),
        ({"weight": 0.5}, "weight", r"must be 0 \(not learned\) or 1 \(learned\)"),
        ({"weight": "1"}, "weight", "must be 0"),
        ({"weight": 2}, "weight", "must be 0"),
        ({"weight": 1, "train": False}, "weight", "Keep one of the two"),
        ({"reasoning": ["It is dry."]}, "reasoning", "must be text, but is a list"),
        ({"thinking": True}, "thinking", "must be text"),
    ],
)
def test_a_wrong_value_beside_an_answer_is_a_fault_at_its_place(beside, field, reason):
    found = fault(**beside)
    assert found.field == f"messages[1].{field}"
    with pytest.raises(RowFault, match=reason):
        answer(**beside)


def test_what_stands_beside_a_question_changes_nothing():
    row = {"messages": [{**ASKED, "weight": 0, "name": "Ann"}, {"role": "assistant", "content": "No."}]}
    assert formats.get("openai").convert(row, {}, {}).messages[0] == Message("user", "Rain?")


def test_a_call_and_its_result_keep_their_id_and_name():
    call = {"type": "function", "id": "call_1", "function": {"name": "weather", "arguments": "{}"}}
    result = {"role": "tool", "tool_call_id": "call_1", "name": "weather", "content": "dry"}
    calling, told, _ = openai(
        {"role": "assistant", "content": None, "tool_calls": [call], "weight": 0},
        result,
        {"role": "assistant", "content": "No."},
    )
    assert calling == Message("assistant", "", (ToolCall("weather", "{}", "call_1"),), train=False)
    assert told == Message("tool", "dry", name="weather", call_id="call_1")
    assert calling.as_dict()["tool_calls"][0]["id"] == told.as_dict()["tool_call_id"] == "call_1"


def test_a_call_in_the_words_of_sharegpt_may_be_left_out_of_the_loss():
    call = json.dumps({"name": "weather", "arguments": {}})
    calling, told, _ = sharegpt(
        {"from": "function_call", "value": call, "train": False},
        {"from": "observation", "value": "dry", "tool_call_id": 7},
        {"from": "gpt", "value": "No."},
    )
    assert calling == Message("assistant", "", (ToolCall("weather"),), train=False)
    assert told.call_id == "7"


@pytest.mark.parametrize(
    ("turn", "field"),
    [
        ({"role": "tool", "content": "dry", "tool_call_id": ["x"]}, "messages[1].tool_call_id"),
        ({"role": "tool", "content": "dry", "name": {"a": 1}}, "messages[1].name"),
        (
            {"role": "assistant", "content": "", "tool_calls": [{"id": True, "function": {"name": "f"}}]},
            "messages[1].tool_calls[0].id",
        ),
    ],
)
def test_an_id_or_name_that_is_no_text_is_a_fault_at_its_place(turn, field):
    with pytest.raises(RowFault, match="must be text") as caught:
        openai(turn, {"role": "assistant", "content": "No."})
    assert caught.value.field == field


def test_rows_that_say_the_same_are_the_same_whichever_answers_they_learn():
    one, other = (
        Example((Message("user", "Rain?"), Message("assistant", "No.", train=each))) for each in (None, False)
    )
    thinking = Example((Message("user", "Rain?"), Message("assistant", "No.", thought="Dry.")))
    assert key(one) == key(other) != key(thinking)
    content = Content()
    for position, each in enumerate((one, other, thinking)):
        content.add(position, each)
    assert content.duplicates().tolist() == [[1, 0]]
    assert content.conflicts().tolist() == [], "another thought before the same answer contradicts nothing"


def test_a_thought_is_not_taken_for_a_turn():
    turns = (Message("user", "a"), Message("assistant", "b"))
    apart = {key(Example((*turns[:1], Message("assistant", "b", thought=each)))) for each in ("", "c", "d")}
    assert len(apart) == 3


def test_people_see_what_is_not_trained_and_what_was_thought():
    example = Example((Message("user", "Rain?"), Message("assistant", "No.", thought="<b>Dry.", train=False)))
    assert learned_lines(example)[1:] == ["  assistant thinks: <b>Dry.", "  assistant (not trained): No."]
    told = Example((Message("user", "Rain?"), Message("assistant", "No.")))
    assert "not trained" not in "".join(learned_lines(told))
