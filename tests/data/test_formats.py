"""What rows become, and how their format is found."""

import json

import pytest

from studio.data import formats
from studio.data.example import Example, Message, RowFault
from studio.errors import DataError

ASKED, ANSWERED = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}
WORSE = {"role": "assistant", "content": "Go away"}
GOOD = {
    "alpaca": {"instruction": "Add.", "input": "1 2", "output": "3"},
    "sharegpt": {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]},
    "openai": {"messages": [ASKED, ANSWERED]},
    "prompt_completion": {"prompt": "Hi", "completion": "Hello"},
    "text": {"text": "Once upon a time"},
    "classification": {"text": "Nice.", "label": "positive"},
    "preference": {"prompt": "Hi", "rejected": "Go away", "chosen": "Hello"},
    "kto": {"label": True, "prompt": "Hi", "completion": "Hello"},
    "prompt": {"prompt": "Hello"},
}
USER, ASSISTANT = Message("user", "Hi"), Message("assistant", "Hello")


def converted(name, row, columns=None, tags=None):
    found = formats.detect([row])
    return formats.get(name).convert(row, columns or found.columns, tags or found.tags)


def fault(name, row, columns=None):
    with pytest.raises(RowFault) as caught:
        formats.get(name).convert(row, columns or {}, {})
    return caught.value


@pytest.mark.parametrize("name", formats.FORMATS)
def test_each_format_finds_and_reads_its_own_rows(name):
    found = formats.detect([GOOD[name]])
    assert (found.format, found.confidence) == (name, 1.0)
    assert set(found.columns) <= set(formats.get(name).columns)
    assert set(formats.get(name).needed) <= set(found.columns)
    example = converted(name, GOOD[name])
    assert example.answer in ("3", "Hello", "Once upon a time", "positive", "")
    assert (example.kind == "messages") == (name in ("alpaca", "sharegpt", "openai", "prompt_completion"))
    assert example.conventional()


@pytest.mark.parametrize("name", formats.FORMATS)
@pytest.mark.parametrize("wrong", [7, ["x"], None, "", "  \n", {"a": 1}])
def test_f04_f05_f06_a_wrong_last_field_is_a_fault_that_names_it(name, wrong):
    if name == "classification" and wrong == 7:
        return  # a label may be a number
    row = dict(GOOD[name])
    last = list(row)[-1]
    row[last] = wrong
    error = fault(name, row, formats.detect([GOOD[name]]).columns)
    assert error.field.startswith(last) and error.reason


@pytest.mark.parametrize("name", ["alpaca", "prompt_completion", "preference", "kto"])
def test_f05_a_missing_answer_suggests_another_column(name):
    row = dict(GOOD[name])
    last = list(row)[-1]
    del row[last]
    error = fault(name, {**row, "reply": "3"}, formats.detect([GOOD[name]]).columns)
    assert error.field == last and "reply" in error.reason


def test_f04_the_type_found_is_named():
    error = fault("prompt_completion", {"prompt": 5, "completion": "x"})
    assert error.reason == "must be text, but is a whole number: 5."


def test_f15_an_unknown_role_is_named_with_the_known_ones():
    row = {"conversations": [{"from": "alien", "value": "Hi"}]}
    error = fault("sharegpt", row)
    assert error.field == "conversations[0].from"
    assert "'alien'" in error.reason and "human, gpt" in error.reason


@pytest.mark.parametrize("name", ["sharegpt", "openai"])
def test_f16_a_conversation_without_assistant_turn_is_a_fault(name):
    row = {key: turns[:1] for key, turns in GOOD[name].items()}
    assert "no assistant turn" in fault(name, row).reason


@pytest.mark.parametrize("blank", ["", " \n", [], [{"type": "text", "text": " "}]])
def test_f06_a_blank_turn_is_a_fault_with_its_place(blank):
    row = {"messages": [ASKED, {"role": "assistant", "content": blank}]}
    error = fault("openai", row)
    assert error.field == "messages[1].content" and "is empty" in error.reason


def test_f16_an_answer_to_nobody_is_a_fault():
    row = {"messages": [{"role": "system", "content": "S"}, ANSWERED]}
    assert "answers nothing" in fault("openai", row).reason


def test_f17_the_majority_decides_in_a_mixed_file():
    found = formats.detect([GOOD["openai"], GOOD["alpaca"], GOOD["openai"]])
    assert found.format == "openai" and found.confidence == pytest.approx(2 / 3)
    found = formats.detect([GOOD["openai"], GOOD["alpaca"], GOOD["alpaca"]])
    assert found.format == "alpaca" and found.confidence == pytest.approx(2 / 3)
    found = formats.detect([GOOD["openai"]] * 9 + [GOOD["alpaca"]] * 11)
    assert found.format == "alpaca" and found.confidence == 0.55


def test_rows_that_no_format_fits_are_told_with_their_columns():
    found = formats.detect([{"mr": 1, "ref": None}])
    assert found.format is None and "mr, ref" in found.reason
    assert formats.detect([]).format is None


def test_an_unknown_format_suggests_the_nearest():
    with pytest.raises(DataError, match=r"Unknown format 'alpacca'. Did you mean 'alpaca'\?"):
        formats.get("alpacca")


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({**GOOD["alpaca"], "chosen": "a", "rejected": "b"}, "preference"),
        ({**GOOD["openai"], "chosen": [ASKED, ANSWERED], "rejected": [ASKED, WORSE]}, "preference"),
        ({"text": "Nice.", "label": 1}, "classification"),
        ({"text": "I lost my card", "category": "lost_card"}, "classification"),
        ({"text": "Nice.", "label": 0.37}, "text"),
        ({"text": "Nice.", "notes": "long and short", "more": 3}, "text"),
        ({**GOOD["openai"], "label": False}, "kto"),
        ({**GOOD["sharegpt"], "label": "true"}, "kto"),
        ({**GOOD["openai"], "label": "greeting"}, "openai"),
        ({**GOOD["alpaca"], "kto_tag": True}, "kto"),
        ({**GOOD["alpaca"], "text": "Below is an instruction."}, "alpaca"),
        ({"prompt": "Hi", "id": 3}, "prompt"),
        ({"prompt": [ASKED], "reward_model": {"ground_truth": "3"}}, "prompt"),
        ({"prompt": [ASKED], "completion": [ANSWERED]}, "prompt_completion"),
    ],
)
def test_the_format_that_tells_more_of_a_row_goes_first(row, expected):
    found = formats.detect([row] * 20)
    assert found.format == expected
    assert isinstance(converted(expected, row, found.columns, found.tags), Example)


def test_a_preference_in_which_some_answers_are_missing_is_not_taken_for_its_instructions():
    both = {**GOOD["alpaca"], "chosen": "a", "rejected": "b"}
    found = formats.detect([both] * 8 + [{**GOOD["alpaca"], "chosen": "a", "rejected": None}] * 2)
    assert found.format == "preference" and found.confidence == 0.8


def test_a_text_beside_unrelated_columns_is_less_sure():
    assert formats.detect([{"text": "Once", "url": "a"}]).confidence == 1.0
    assert formats.detect([{"text": "Once", "notes": "a"}]).confidence == 0.5


def test_many_different_labels_are_no_labels():
    rows = [{"text": f"t{n}", "label": f"a whole answer {n}"} for n in range(30)]
    assert formats.detect(rows).format == "text"


# --- Instructions, prompts ---


def test_alpaca_joins_instruction_and_input_and_keeps_system_history_and_tools():
    row = {**GOOD["alpaca"], "system": "Be brief.", "history": [["Q", "A"]], "tools": '[{"name": "add"}]'}
    example = converted("alpaca", row)
    assert example.messages == (
        Message("system", "Be brief."),
        Message("user", "Q"),
        Message("assistant", "A"),
        Message("user", "Add.\n1 2"),
        Message("assistant", "3"),
    )
    assert json.loads(example.tools) == [{"type": "function", "function": {"name": "add"}}]


def test_alpaca_leaves_a_blank_input_out():
    assert converted("alpaca", {**GOOD["alpaca"], "input": "  "}).messages[0] == Message("user", "Add.")


def test_alpaca_takes_the_input_alone_where_the_instruction_is_blank():
    assert converted("alpaca", {**GOOD["alpaca"], "instruction": " "}).messages[0] == Message("user", "1 2")
    assert fault("alpaca", {"instruction": " ", "output": "3"}).field == "instruction"


@pytest.mark.parametrize("history", [[["Q", "A"], ["Q"]], [["Q", "A"], ["Q", 3]], '[["Q", "A"], ["Q"]]'])
def test_a_bad_history_is_a_fault_with_its_place(history):
    row = {**GOOD["alpaca"], "history": history}
    assert fault("alpaca", row, {"history": "history"}).field == "history[1]"


def test_mapped_columns_are_used_and_may_be_paths():
    row = {"text": "Nice.", "meta": {"said": ["a", "b"]}}
    example = formats.get("prompt_completion").convert(row, {"prompt": "text", "response": "meta.said[]"}, {})
    assert example == Example(messages=(Message("user", "Nice."), Message("assistant", "a\nb")))


def test_prompt_and_completion_may_be_lists_of_turns():
    system = {"role": "system", "content": "S"}
    example = converted("prompt_completion", {"prompt": [system, ASKED], "completion": [ANSWERED]})
    assert example.messages == (Message("system", "S"), USER, ASSISTANT)
    as_in_tables = {"prompt": json.dumps([system, ASKED]), "completion": "Hello"}
    assert converted("prompt_completion", as_in_tables).messages == example.messages


def test_a_prompt_that_begins_with_a_bracket_is_text():
    row = {"prompt": '[{"a": 1}] What is a?', "completion": "1"}
    assert converted("prompt_completion", row).messages[0].content == row["prompt"]


def test_a_prompt_that_ends_with_the_assistant_is_a_fault():
    error = fault("prompt", {"prompt": [ASKED, ANSWERED]})
    assert error.field == "prompt" and "ends with a turn of the assistant" in error.reason


# --- Conversations ---


def test_tags_give_sharegpt_other_words():
    tags = {"role_tag": "who", "content_tag": "says", "user_tag": "Q", "assistant_tag": "A"}
    row = {"talk": [{"who": "Q", "says": "Hi"}, {"who": "A", "says": "Hello"}]}
    example = formats.get("sharegpt").convert(row, {"messages": "talk"}, tags)
    assert example.messages == (USER, ASSISTANT)


def test_the_usual_tags_said_aloud_change_nothing():
    row = {"conversations": [{"from": "user", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]}
    usual = dict(formats.get("sharegpt").tags)
    assert converted("sharegpt", row, None, usual) == converted("sharegpt", row)


def test_without_a_role_tag_the_turns_alternate():
    tags = {"role_tag": "", "content_tag": "message"}
    row = {"messages": [{"message": "Hi", "attrs": []}, {"message": "Hello"}]}
    assert formats.get("sharegpt").convert(row, {"messages": "messages"}, tags).messages == (USER, ASSISTANT)
    row["messages"].append({"attrs": []})
    with pytest.raises(RowFault) as caught:
        formats.get("sharegpt").convert(row, {"messages": "messages"}, tags)
    assert caught.value.field == "messages[2].message"


def test_turns_may_be_json_text_as_tables_hold_them():
    row = {"messages": json.dumps(GOOD["openai"]["messages"])}
    assert formats.detect([row]).format == "openai"
    assert converted("openai", row).messages == (USER, ASSISTANT)
    assert "not valid JSON" in fault("openai", {"messages": "[{'role': 'user'}]"}).reason


def test_openai_joins_text_parts_and_refuses_others():
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    row = {"messages": [{"role": "developer", "content": "S"}, {"role": "user", "content": parts}, ANSWERED]}
    assert converted("openai", row).messages[:2] == (Message("system", "S"), Message("user", "ab"))
    parts.append({"type": "image_url", "image_url": {"url": "http://example.org/a.png"}})
    assert fault("openai", row).field == "messages[1].content[2]"


def test_a_system_turn_in_the_middle_is_a_fault():
    row = {"messages": [*GOOD["openai"]["messages"], {"role": "system", "content": "S"}]}
    assert fault("openai", row).field == "messages[2]"


def test_the_system_column_gives_way_to_a_system_turn():
    row = {"messages": [{"role": "system", "content": "S"}, ASKED, ANSWERED], "system": "T"}
    assert [turn.content for turn in converted("openai", row).messages] == ["S", "Hi", "Hello"]


# --- Labels ---


@pytest.mark.parametrize(
    ("label", "expected"), [("spam ", "spam"), (3, "3"), (2.0, "2"), (0.5, "0.5"), (False, "false")]
)
def test_labels_are_words_and_numbers_become_words(label, expected):
    example = formats.get("classification").convert({"text": "x", "label": label}, {}, {})
    assert example == Example(text="x", kind="classification", label=expected)


# --- Preferences ---


def preferred(row, columns=None):
    return converted("preference", row, columns)


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Hi", "chosen": "Hello", "rejected": "Go away"},
        {"instruction": "Hi", "input": "", "chosen": "Hello", "rejected": "Go away"},
        {"prompt": [ASKED], "chosen": [ANSWERED], "rejected": [WORSE]},
        {"messages": [ASKED], "chosen": ANSWERED, "rejected": WORSE},
        {"chosen": [ASKED, ANSWERED], "rejected": [ASKED, WORSE]},
        {"prompt": "Hi", "messages": [ASKED, ANSWERED], "chosen": [ASKED, ANSWERED], "rejected": [ASKED, WORSE]},
        {"chosen": "\n\nHuman: Hi\n\nAssistant: Hello", "rejected": "\n\nHuman: Hi\n\nAssistant: Go away"},
        {
            "conversations": [{"from": "human", "value": "Hi"}],
            "chosen": {"from": "gpt", "value": "Hello"},
            "rejected": {"from": "gpt", "value": "Go away"},
        },
    ],
)
def test_preferences_come_in_many_shapes_and_say_the_same(row):
    assert formats.detect([row]).format == "preference"
    assert preferred(row) == Example((USER,), kind="preference", chosen=(ASSISTANT,), rejected=(Message(**WORSE),))


def test_whole_conversations_bring_their_prompt_and_need_no_column_for_it():
    row = {"prompt": "Hi", "messages": [ASKED, ANSWERED], "chosen": [ASKED, ANSWERED], "rejected": [ASKED, WORSE]}
    assert formats.detect([row]).columns == {"chosen": "chosen", "rejected": "rejected"}


def test_earlier_turns_that_both_answers_share_belong_to_the_prompt():
    more = {"role": "user", "content": "And?"}
    row = {"chosen": [ASKED, ANSWERED, more, ANSWERED], "rejected": [ASKED, ANSWERED, more, WORSE]}
    example = preferred(row)
    assert [turn.content for turn in example.messages] == ["Hi", "Hello", "And?"]
    assert (example.chosen, example.rejected) == ((ASSISTANT,), (Message(**WORSE),))


@pytest.mark.parametrize(
    ("chosen", "rejected", "field", "reason"),
    [
        ("Hello", "Hello", "rejected", "is the same as chosen"),
        ([ASKED, ANSWERED], [ASKED, ANSWERED], "rejected", "is the same as chosen"),
        ([ASKED, ANSWERED], [ASKED], "rejected", "says nothing after"),
        ([ASKED, ANSWERED], [{"role": "user", "content": "Ho"}, WORSE], "chosen[0]", "part"),
        ([ANSWERED, ASKED], [WORSE], "chosen", "ends with a turn of the user"),
        ([], [WORSE], "chosen", "empty list"),
        ("Hello", "  ", "rejected", "is empty"),
        ("Hello", None, "rejected", "is missing"),
    ],
)
def test_answers_between_which_nothing_can_be_preferred_are_faults(chosen, rejected, field, reason):
    error = fault("preference", {"prompt": "Hi", "chosen": chosen, "rejected": rejected})
    assert error.field == field and reason in error.reason


def test_a_preference_without_a_prompt_asks_for_one():
    error = fault("preference", {"question": "Hi", "chosen": "a", "rejected": "b"})
    assert error.field == "prompt" and "question" in error.reason


# --- Thumbs up and down ---


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Hi", "completion": "Hello", "label": True},
        {"prompt": [ASKED], "completion": [ANSWERED], "label": "True"},
        {"messages": [ASKED, ANSWERED], "label": 1},
        {"messages": [ASKED, ANSWERED], "kto_tag": "1"},
        {"instruction": "Hi", "input": "", "output": "Hello", "kto_tag": True},
    ],
)
def test_unpaired_answers_come_in_many_shapes_and_say_the_same(row):
    assert formats.detect([row]).format == "kto"
    assert converted("kto", row) == Example((USER,), kind="unpaired", label=True, chosen=(ASSISTANT,))


@pytest.mark.parametrize("label", [None, "good", 2, 0.5, [True], ""])
def test_a_thumb_is_up_or_down(label):
    error = fault("kto", {"messages": [ASKED, ANSWERED], "label": label})
    assert error.field == "label" and "true or false" in error.reason


def test_an_unpaired_conversation_ends_in_its_answer():
    error = fault("kto", {"messages": [ASKED, ANSWERED, ASKED], "label": True})
    assert error.field == "messages" and "ends with a turn of the user" in error.reason
