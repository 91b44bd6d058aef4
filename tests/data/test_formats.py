"""What rows become, and how their format is found."""

import pytest

from studio.data import formats
from studio.data.example import Example, Message, RowFault
from studio.errors import DataError

GOOD = {
    "alpaca": {"instruction": "Add.", "input": "1 2", "output": "3"},
    "sharegpt": {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]},
    "openai": {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]},
    "prompt_completion": {"prompt": "Hi", "completion": "Hello"},
    "text": {"text": "Once upon a time"},
}


def converted(name, row, columns=None, tags=None):
    found = formats.detect([row])
    return formats.get(name).convert(row, columns or found.columns, tags or {})


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
    assert converted(name, GOOD[name]).answer in ("3", "Hello", "Once upon a time")


@pytest.mark.parametrize("name", formats.FORMATS)
@pytest.mark.parametrize("wrong", [7, ["x"], None, "", "  \n", {"a": 1}])
def test_f04_f05_f06_a_wrong_last_field_is_a_fault_that_names_it(name, wrong):
    row = dict(GOOD[name])
    last = list(row)[-1]
    row[last] = wrong
    error = fault(name, row, formats.detect([GOOD[name]]).columns)
    assert error.field.startswith(last) and error.reason


def test_f05_a_missing_response_suggests_another_column():
    error = fault("alpaca", {"instruction": "Add.", "answer": "3"})
    assert error.field == "output" and "answer" in error.reason


def test_f04_the_type_found_is_named():
    assert (
        fault("prompt_completion", {"prompt": 5, "completion": "x"}).reason == "must be text, but is a whole number: 5."
    )


def test_f15_an_unknown_role_is_named_with_the_known_ones():
    row = {"conversations": [{"from": "alien", "value": "Hi"}]}
    error = fault("sharegpt", row)
    assert error.field == "conversations[0].from"
    assert "'alien'" in error.reason and "human, gpt" in error.reason


@pytest.mark.parametrize("name", ["sharegpt", "openai"])
def test_f16_a_conversation_without_assistant_turn_is_a_fault(name):
    row = {key: turns[:1] for key, turns in GOOD[name].items()}
    assert "no assistant turn" in fault(name, row).reason


def test_f17_the_majority_decides_in_a_mixed_file():
    found = formats.detect([GOOD["openai"], GOOD["alpaca"], GOOD["openai"]])
    assert found.format == "openai" and found.confidence == pytest.approx(2 / 3)


def test_rows_that_no_format_fits_are_told_with_their_columns():
    found = formats.detect([{"mr": "x", "ref": "y"}])
    assert found.format is None and "mr, ref" in found.reason
    assert formats.detect([]).format is None


def test_an_unknown_format_suggests_the_nearest():
    with pytest.raises(DataError, match=r"Unknown format 'alpacca'. Did you mean 'alpaca'\?"):
        formats.get("alpacca")


def test_alpaca_joins_instruction_and_input_and_keeps_system_and_history():
    row = {**GOOD["alpaca"], "system": "Be brief.", "history": [["Q", "A"]]}
    assert converted("alpaca", row).messages == (
        Message("system", "Be brief."),
        Message("user", "Q"),
        Message("assistant", "A"),
        Message("user", "Add.\n1 2"),
        Message("assistant", "3"),
    )


def test_a_bad_history_is_a_fault_with_its_place():
    row = {**GOOD["alpaca"], "history": [["Q", "A"], ["Q"]]}
    assert fault("alpaca", row, {"history": "history"}).field == "history[1]"


def test_mapped_columns_are_used():
    row = {"text": "Nice.", "label": "positive"}
    example = formats.get("prompt_completion").convert(row, {"prompt": "text", "response": "label"}, {})
    assert example == Example(messages=(Message("user", "Nice."), Message("assistant", "positive")))


def test_tags_give_sharegpt_other_words():
    tags = {"role_tag": "who", "content_tag": "says", "user_tag": "Q", "assistant_tag": "A"}
    row = {"talk": [{"who": "Q", "says": "Hi"}, {"who": "A", "says": "Hello"}]}
    example = formats.get("sharegpt").convert(row, {"messages": "talk"}, tags)
    assert example.messages == (Message("user", "Hi"), Message("assistant", "Hello"))


def test_openai_joins_text_parts_and_refuses_others():
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    row = {
        "messages": [
            {"role": "developer", "content": "S"},
            {"role": "user", "content": parts},
            *GOOD["openai"]["messages"][1:],
        ]
    }
    assert converted("openai", row).messages[:2] == (Message("system", "S"), Message("user", "ab"))
    parts.append({"type": "image_url", "image_url": {"url": "http://example.org/a.png"}})
    assert fault("openai", row).field == "messages[1].content[2]"


def test_a_system_turn_in_the_middle_is_a_fault():
    row = {"messages": [*GOOD["openai"]["messages"], {"role": "system", "content": "S"}]}
    assert fault("openai", row).field == "messages[2]"
