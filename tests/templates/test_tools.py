"""Tools in a conversation: written by templates that have a place for them, refused by those that have none."""

import json

import pytest

from studio import templates
from studio.data.example import Example, Message, ToolCall
from studio.errors import TemplateError
from studio.templates import Policy, Template, TextTokenizer, encode, generation_prompt
from studio.templates.library import shipped
from studio.templates.tools import needed, places
from tests.templates.test_encoding import FOLDERS, published
from tests.templates.tiny import byte_tokenizer, learned

TOOLS = json.dumps(
    [{"type": "function", "function": {"name": "weather", "description": "Of a city.", "parameters": {}}}]
)
TALK = (
    Message("user", "How is it in Rome?"),
    Message("assistant", "", (ToolCall("weather", '{"city": "Rome"}'),)),
    Message("tool", "18 degrees"),
    Message("assistant", "Mild."),
)
WITH_PLACES = Template(
    "mine",
    "{% if tools %}{{ tools | tojson }}<|im_end|>{% endif %}{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{{ m.content }}{% for c in m.tool_calls or [] %}"
    '<call>{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}</call>{% endfor %}'
    "<|im_end|>{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
)


@pytest.fixture(scope="module")
def tiny():
    return byte_tokenizer("<|im_start|>", "<|im_end|>", "<|endoftext|>")


def test_descriptions_calls_and_results_are_written_and_calls_are_learned(tiny):
    encoded = encode(Example(messages=TALK, tools=TOOLS), WITH_PLACES, tiny)
    assert encoded.text.startswith(TOOLS) and "<|im_start|>tool\n18 degrees<|im_end|>" in encoded.text
    call = '<call>{"name": "weather", "arguments": {"city": "Rome"}}</call><|im_end|>'
    assert learned(encoded, tiny) == f"{call}Mild.<|im_end|>"


def test_the_generation_prompt_is_what_precedes_the_answer_in_training(tiny):
    encoded = encode(Example(messages=TALK, tools=TOOLS), WITH_PLACES, tiny, Policy(supervise="last"))
    prompt = generation_prompt(TALK[:3], WITH_PLACES, tiny, tools=TOOLS)
    assert prompt == encoded.input_ids[: encoded.supervised.index(True)]


@pytest.mark.parametrize("name", [each.name for each in shipped()])
@pytest.mark.parametrize("supervise", ["assistant", "all"])
def test_a_shipped_template_writes_every_part_or_refuses_the_row(name, supervise):
    chosen = templates.load(name)
    fitting = byte_tokenizer("<|im_start|>", "<|im_end|>", *chosen.stop)
    try:
        encoded = encode(Example(messages=TALK, tools=TOOLS), chosen, fitting, Policy(supervise=supervise))
    except TemplateError as error:
        assert f"'{name}' has no place for tool" in str(error) and "Choose" in str(error)
    else:
        assert all(part in encoded.text for part in ("weather", "Of a city.", "Rome", "18 degrees", "Mild."))


@pytest.mark.parametrize(
    ("example", "lacking"),
    [
        (Example(messages=(TALK[0], TALK[3]), tools=TOOLS), "tool descriptions"),
        (Example(messages=TALK[:2]), "tool calls"),
        (Example(messages=(TALK[0], TALK[2], TALK[3])), "tool results"),
        (Example(messages=TALK, tools=TOOLS), "tool descriptions and tool calls and tool results"),
    ],
)
def test_what_has_no_place_is_named_with_a_way_out(example, lacking, tiny):
    with pytest.raises(TemplateError, match=rf"Template 'alpaca' has no place for {lacking}\. Choose"):
        encode(example, templates.load("alpaca"), tiny)


def test_a_template_that_takes_a_tools_result_for_an_answer_has_no_place_for_it(tiny):
    specials = tuple(sorted(tiny.specials.items()))
    assert "tool results" not in places(templates.load("alpaca"), specials)
    assert "tool results" in places(WITH_PLACES, specials)


def test_the_models_own_template_is_suggested_where_it_has_a_place(tiny):
    own = TextTokenizer(tiny.backend, tiny.specials, WITH_PLACES.text)
    with pytest.raises(TemplateError, match="Choose one that has, such as auto"):
        encode(Example(messages=TALK, tools=TOOLS), templates.load("alpaca"), own)
    assert encode(Example(messages=TALK, tools=TOOLS), own.own_template, own).learns


def test_a_conversation_without_tools_needs_no_place(tiny):
    assert needed((TALK[0], TALK[3]), "[]") == []
    assert encode(Example(messages=(TALK[0], TALK[3]), tools="[]"), templates.load("chatml"), tiny).learns


@published
@pytest.mark.parametrize("folder", ["qwen2_5"])
def test_tools_are_written_as_transformers_writes_them(folder):
    from transformers import AutoTokenizer

    ours, theirs = TextTokenizer.from_folder(FOLDERS[folder]), AutoTokenizer.from_pretrained(FOLDERS[folder])
    encoded = encode(Example(messages=TALK, tools=TOOLS), ours.own_template, ours)
    expected = theirs.apply_chat_template([turn.as_dict() for turn in TALK], tools=json.loads(TOOLS), tokenize=False)
    assert encoded.text == expected
    assert learned(encoded, ours).startswith('<tool_call>\n{"name": "weather"')
    assert learned(encoded, ours).endswith("</tool_call><|im_end|>Mild.<|im_end|>")
