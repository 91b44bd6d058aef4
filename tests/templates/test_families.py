"""Families whose templates write no end token: the name of the next speaker ends an answer, as ChatGLM and GLM have it.

Not here: what the shipped templates write for them (the golden tests).
"""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from studio.data.example import Example, Message, ToolCall
from studio.errors import TemplateError
from studio.templates import Policy, Template, TextTokenizer, encode, generation_prompt, stop_tokens
from studio.templates.talk import closing
from tests.templates.tiny import learned

NAMES = ("[gMASK]", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>", "<|endoftext|>")
OPEN = "{% if add_generation_prompt %}<|assistant|>{% endif %}"
TURN = "<|{{ 'observation' if m.role == 'tool' else m.role }}|>"
SAID = (
    "{{ '\\n' + m.content }}"
    "{% for c in m.tool_calls or [] %}{{ c.function.name + '\\n' + c.function.arguments | tojson }}{% endfor %}"
)
MARKED = f"{{% if m.role == 'assistant' %}}{{% generation %}}{SAID}{{% endgeneration %}}{{% else %}}{SAID}{{% endif %}}"
PLAIN = Template("auto", f"[gMASK]{{% for m in messages %}}{TURN}{SAID}{{% endfor %}}{OPEN}", origin="shipped")
WITH_MARKS = Template(
    "glm",
    f"[gMASK]{{% for m in messages %}}{TURN}{MARKED}{{% endfor %}}{OPEN}",
    stop=("<|user|>", "<|observation|>"),
    origin="shipped",
)
BOTH = pytest.mark.parametrize("template", [PLAIN, WITH_MARKS], ids=("own", "marked"))

TALK = (
    Message("user", "Hi"),
    Message("assistant", "Hello."),
    Message("user", "And you?"),
    Message("assistant", "Fine 🙂"),
)
CALLING = (
    Message("user", "Rain?"),
    Message("assistant", "", (ToolCall("weather", '{"city": "Wien"}'),)),
    Message("tool", "dry"),
    Message("assistant", "No."),
)


@pytest.fixture(scope="module")
def tokenizer():
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(letters)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(list(NAMES))
    return TextTokenizer(backend, {"eos_token": "<|endoftext|>"})


@BOTH
def test_each_answer_is_ended_by_the_next_speaker_and_so_is_the_last_one(template, tokenizer):
    assert closing(template, tokenizer) == "<|user|>"
    encoded = encode(TALK, template, tokenizer)
    assert learned(encoded, tokenizer) == "\nHello.<|user|>\nFine 🙂<|user|>"
    assert [token.text for token in encoded.tokens if token.reason == "end"] == ["<|user|>"] * 2
    assert encoded.text.endswith("<|user|>") and encoded.text.count("<|user|>") == 3


@BOTH
def test_the_model_is_stopped_where_its_answers_ended_in_training(template, tokenizer):
    user, eos = (tokenizer.backend.token_to_id(name) for name in ("<|user|>", "<|endoftext|>"))
    assert {user, eos} <= set(stop_tokens(template, tokenizer))


@BOTH
def test_what_the_model_sees_before_it_answers_is_how_the_training_row_begins(template, tokenizer):
    ids = encode(TALK, template, tokenizer).input_ids
    for turn in (1, 3):
        prompt = generation_prompt(TALK[:turn], template, tokenizer)
        assert ids[: len(prompt)] == prompt and tokenizer.decode(prompt[-1:]) == "<|assistant|>"


@BOTH
def test_a_call_is_ended_by_what_the_tool_gives_back(template, tokenizer):
    encoded = encode(CALLING, template, tokenizer)
    assert learned(encoded, tokenizer) == '\nweather\n{"city": "Wien"}<|observation|>\nNo.<|user|>'
    assert tokenizer.backend.token_to_id("<|observation|>") in stop_tokens(template, tokenizer)


@BOTH
def test_what_the_tool_gave_back_is_not_learned_with_everything_else_either(template, tokenizer):
    encoded = encode(CALLING, template, tokenizer, Policy(supervise="all"))
    assert "dry" in encoded.text and "dry" not in learned(encoded, tokenizer)


@BOTH
def test_a_conversation_that_ends_with_a_question_gets_no_end(template, tokenizer):
    encoded = encode((*TALK, Message("user", "Bye")), template, tokenizer)
    assert encoded.text.endswith("<|user|>\nBye")
    assert learned(encoded, tokenizer) == "\nHello.<|user|>\nFine 🙂<|user|>"


@BOTH
def test_an_answer_that_is_cut_loses_its_end(template, tokenizer):
    whole = encode(TALK, template, tokenizer)
    encoded = encode(TALK, template, tokenizer, Policy(max_length=len(whole.input_ids) - 1))
    assert learned(encoded, tokenizer) == "\nHello.<|user|>\nFine 🙂"
    shorter = encode(TALK, template, tokenizer, Policy(max_length=len(whole.input_ids) - 1, truncation="drop_turns"))
    assert learned(shorter, tokenizer) == "\nFine 🙂<|user|>"


@BOTH
def test_the_name_of_a_speaker_in_what_somebody_wrote_ends_nothing(template, tokenizer):
    talk = (Message("user", "Say <|user|>"), Message("assistant", "It is <|user|> then."))
    encoded = encode(talk, template, tokenizer)
    user = tokenizer.backend.token_to_id("<|user|>")
    assert encoded.input_ids.count(user) == 2 and encoded.escaped == 2
    assert learned(encoded, tokenizer) == "\nIt is <|user|> then.<|user|>"


def test_answers_that_end_by_themselves_get_no_other_end(tokenizer):
    ended = Template("mine", "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|endoftext|>{% endfor %}" + OPEN)
    assert closing(ended, tokenizer) == ""
    assert learned(encode(TALK, ended, tokenizer), tokenizer) == "Hello.<|endoftext|>Fine 🙂<|endoftext|>"


def test_a_template_after_whose_answers_nothing_ends_is_refused(tokenizer):
    endless = Template("mine", "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}")
    with pytest.raises(TemplateError, match="end token|does not follow"):
        encode(Example(TALK), endless, tokenizer)
