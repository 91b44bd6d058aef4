"""Calls of functions, in the words of ShareGPT and of OpenAI, and the descriptions of tools."""

import json
from dataclasses import replace

import pytest

from studio.data import formats
from studio.data.example import Message, RowFault, ToolCall

WEATHER = ToolCall("weather", '{"city": "北京"}')


def sharegpt(value, **more):
    turns = [
        {"from": "human", "value": "Rain?"},
        {"from": "function_call", "value": value},
        {"from": "observation", "value": '{"rain": false}'},
        {"from": "gpt", "value": "No."},
    ]
    return formats.get("sharegpt").convert({"conversations": turns, **more}, {"tools": "tools"}, {})


def openai(*turns):
    rest = [{"role": "tool", "content": ""}, {"role": "assistant", "content": "No."}]
    row = {"messages": [{"role": "user", "content": "Rain?"}, *turns, *rest]}
    return formats.get("openai").convert(row, {}, {}).messages


def faulty(read, *values):
    with pytest.raises(RowFault) as caught:
        read(*values)
    return caught.value


def test_a_call_as_text_is_an_assistant_turn_that_calls():
    messages = sharegpt('{"name": "weather", "arguments": {"city": "北京"}}').messages
    assert messages[1:3] == (Message("assistant", "", (WEATHER,)), Message("tool", '{"rain": false}'))
    assert messages[1].as_dict()["tool_calls"][0]["function"] == {"name": "weather", "arguments": {"city": "北京"}}


def test_several_calls_are_made_in_one_turn():
    calls = [{"name": "weather", "arguments": {"city": "北京"}}, {"name": "now", "arguments": "{}"}]
    assert sharegpt(json.dumps(calls)).messages[1].tool_calls == (WEATHER, ToolCall("now"))
    assert sharegpt(calls).messages[1].tool_calls == (WEATHER, ToolCall("now"))


@pytest.mark.parametrize(
    "value",
    [
        "weather(北京)",
        "[]",
        "{",
        '{"name": "weather"}',
        '{"name": "", "arguments": {}}',
        '{"name": "a", "arguments": [1]}',
        '{"name": "a", "arguments": {"x": 1, "x": 2}}',
        '{"name": "a", "arguments": {"x": NaN}}',
        3,
        None,
    ],
)
def test_a_call_that_is_none_is_a_fault_with_its_place(value):
    error = faulty(sharegpt, value)
    assert error.field == "conversations[1].value"
    assert error.reason.startswith("is not a JSON object with name and arguments")


@pytest.mark.parametrize("content", [{"content": None}, {"content": ""}, {}])
@pytest.mark.parametrize("arguments", ['{"city": "北京"}', {"city": "北京"}])
def test_openai_calls_have_arguments_as_text_or_object_and_may_say_nothing(content, arguments):
    call = {"id": "1", "type": "function", "function": {"name": "weather", "arguments": arguments}}
    calling = openai({"role": "assistant", "tool_calls": [call], **content})[1]
    assert calling == Message("assistant", "", (replace(WEATHER, id="1"),))


def test_openai_calls_may_be_parallel_and_come_with_words():
    calls = [{"function": {"name": name}} for name in ("a", "b")]
    turn = {"role": "assistant", "content": "Let me see.", "tool_calls": calls}
    assert openai(turn)[1] == Message("assistant", "Let me see.", (ToolCall("a"), ToolCall("b")))


@pytest.mark.parametrize("arguments", [None, "", "{}", {}])
def test_a_call_may_have_no_arguments(arguments):
    call = {"function": {"name": "now", "arguments": arguments}}
    assert openai({"role": "assistant", "content": None, "tool_calls": [call]})[1].tool_calls == (ToolCall("now"),)


def test_the_older_single_call_and_its_result_are_read():
    call = {"role": "assistant", "content": None, "function_call": {"name": "weather", "arguments": '{"city": "北京"}'}}
    messages = openai(call, {"role": "function", "name": "weather", "content": "dry"})
    assert messages[1].tool_calls == (WEATHER,) and messages[2] == Message("tool", "dry", name="weather")


@pytest.mark.parametrize(
    ("calls", "field"),
    [
        ([{"function": {"arguments": "{}"}}], "messages[1].tool_calls[0].function.name"),
        ([{"function": {"name": "a", "arguments": "{'x': 1}"}}], "messages[1].tool_calls[0].function.arguments"),
        (["a"], "messages[1].tool_calls[0]"),
        ({"name": "a"}, "messages[1].tool_calls"),
    ],
)
def test_a_faulty_call_is_named_with_its_place(calls, field):
    assert faulty(openai, {"role": "assistant", "content": "", "tool_calls": calls}).field == field


def test_an_empty_turn_without_calls_is_a_fault():
    assert faulty(openai, {"role": "assistant", "content": "", "tool_calls": []}).field == "messages[1].content"


TOOLS = [{"type": "function", "function": {"name": "weather", "description": "天气"}}]


@pytest.mark.parametrize("tools", [TOOLS, json.dumps(TOOLS), json.dumps(TOOLS, ensure_ascii=True), TOOLS[0]])
def test_tools_become_one_json_list(tools):
    assert sharegpt('{"name": "a", "arguments": {}}', tools=tools).tools == json.dumps(TOOLS, ensure_ascii=False)


@pytest.mark.parametrize("tool", [TOOLS[0]["function"], {"type": "function", **TOOLS[0]["function"]}])
def test_a_description_of_a_function_alone_is_put_into_the_place_where_templates_look(tool):
    assert json.loads(sharegpt('{"name": "a", "arguments": {}}', tools=[tool]).tools) == TOOLS


def test_a_description_of_anything_else_stays_as_it_is():
    search = {"type": "web_search", "name": "search"}
    assert json.loads(sharegpt('{"name": "a", "arguments": {}}', tools=[search]).tools) == [search]


@pytest.mark.parametrize("tools", ["", None, [], "[]", " ", "null"])
def test_no_tools_are_no_tools(tools):
    assert sharegpt('{"name": "a", "arguments": {}}', tools=tools).tools == ""


@pytest.mark.parametrize("tools", ["weather", "3", ["weather"], '["weather"]', 3])
def test_tools_that_are_no_descriptions_are_a_fault(tools):
    assert faulty(lambda: sharegpt('{"name": "a", "arguments": {}}', tools=tools)).field == "tools"
