"""What is learned of real rows: the answers with their end tokens, token by token, as trl's own masks have it too.

The rows and most tokenizers lie in a folder beside the checkout. Not here: rows that are cut (test_truncation).
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import islice

import pytest
from tokenizers import AddedToken, Tokenizer

from studio import templates
from studio.data import formats, readers
from studio.data.example import Example, Message
from studio.errors import TemplateError
from studio.home import CHECKOUT
from studio.templates import Encoded, TextTokenizer, encode
from studio.templates.rendering import as_values, parsed_tools

SHARED = CHECKOUT.parent / "shared"
TOKENIZERS = SHARED / "templates" / "tokenizers"

published = pytest.mark.skipif(
    not TOKENIZERS.is_dir(), reason="the published sets and tokenizers lie in a folder `shared` beside the checkout"
)

PLAIN = {
    "instruct/rasbt_instruction.json": 60,  # English, one turn
    "instruct/gaokao_alpaca_zh.json": 45,  # Chinese, one turn
    "chat/kdconv_film_dev_openai_messages.jsonl": 45,  # Chinese, many turns, with a system text
    "math/gsm8k_train.jsonl": 95,  # line breaks and symbols
}
CALLING = {"chat/glaive_toolcall_en_demo.json": 40}


@cache
def rows(*sets: tuple[str, int]) -> list[Example]:
    """So many rows of each set."""
    return [example for file, count in sets for example in islice(_read(file), count)]


def _read(file: str):
    values = [row.values for row in readers.read(SHARED / "data" / file)]
    found = formats.detect(values)
    return (formats.get(found.format).convert(each, found.columns, found.tags) for each in values)


def plain_rows() -> list[Example]:
    return rows(*PLAIN.items())


def calling_rows() -> list[Example]:
    return [each for each in rows(*CALLING.items()) if each.tools]


# --- The text of what is learned


def as_it_is(message: Message) -> str:
    return message.content


def with_qwen_calls(message: Message) -> str:
    calls = [
        f'<tool_call>\n{{"name": "{call.name}", "arguments": {call.arguments}}}\n</tool_call>'
        for call in message.tool_calls
    ]
    return "\n".join([*([message.content] if message.content else []), *calls])


def with_mistral_calls(message: Message) -> str:
    if not message.tool_calls:
        return message.content
    calls = [{"name": call.name, "arguments": json.loads(call.arguments), "id": call.id} for call in message.tool_calls]
    return f"[TOOL_CALLS]{json.dumps(calls, ensure_ascii=False)}"


@dataclass(frozen=True)
class Family:
    """A model family. said: how its template writes an answer, before the end token.

    system: whether conversations with a system text can be learned. Mistral's own template has no marks, and moves it,
    and the tools, to the last question: what the model sees before an answer is not how the conversation begins.
    """

    folder: str
    template: str
    end: str
    said: Callable[[Message], str] = as_it_is
    calls: bool = False
    system: bool = True


FAMILIES = (
    Family("templates/tokenizers/qwen2_5", "auto", "<|im_end|>", with_qwen_calls, calls=True),
    Family("templates/tokenizers/qwen2_5", "qwen", "<|im_end|>", with_qwen_calls, calls=True),
    Family("templates/tokenizers/mistral_nemo", "auto", "</s>", system=False),
    Family("templates/tokenizers/mistral_nemo", "mistral", "</s>", with_mistral_calls, calls=True),
    Family("templates/tokenizers/internlm2", "auto", "<|im_end|>"),
    Family("templates/tokenizers/internlm2", "chatml", "<|im_end|>"),
    Family("templates/tokenizers/deepseek_v3", "auto", "<｜end▁of▁sentence｜>"),
    Family("templates/tokenizers/deepseek_v3", "deepseek_v3", "<｜end▁of▁sentence｜>"),
    Family("templates/tokenizers/yi", "default", "<|endoftext|>"),
    Family("templates/tokenizers/yi", "vicuna", "<|endoftext|>", lambda message: " " + message.content),
    Family("templates/tokenizers/gpt2", "vicuna", "<|endoftext|>", lambda message: " " + message.content),
    Family("models/minimind2-small", "auto", "<|im_end|>"),
    Family("models/minimind2-small", "chatml", "<|im_end|>"),
)


@cache
def tokenizer_of(folder: str) -> TextTokenizer:
    return TextTokenizer.from_folder(SHARED / folder)


def spoken(encoded: Encoded, tokenizer: TextTokenizer) -> str:
    """What the learned tokens decode to. A letter goes first, since some tokenizers drop the space of a first word."""
    ids = [number for number, on in zip(encoded.input_ids, encoded.supervised, strict=True) if on]
    return tokenizer.decode(tokenizer.ids("a") + ids).removeprefix("a")


def with_ids(messages: tuple[Message, ...]) -> list[Message]:
    """The assistant's turns, their calls with the ids that templates find."""
    values = [value for value in as_values(messages) if value["role"] == "assistant"]
    turns = [message for message in messages if message.role == "assistant"]
    for value, turn in zip(values, turns, strict=True):
        for call, written in zip(turn.tool_calls, value.get("tool_calls", ()), strict=True):
            object.__setattr__(call, "id", written["id"])
    return turns


@published
@pytest.mark.parametrize("family", FAMILIES, ids=lambda each: f"{each.folder.rsplit('/')[-1]}-{each.template}")
def test_the_learned_tokens_decode_to_the_answers_and_their_ends(family):
    tokenizer = tokenizer_of(family.folder)
    template = templates.resolve(family.template, tokenizer)
    examples = plain_rows() + (calling_rows() if family.calls else [])
    examples = [each for each in examples if family.system or each.messages[0].role != "system"]
    assert len(examples) >= 200
    for example in examples:
        encoded = encode(example, template, tokenizer)
        wanted = "".join(f"{family.said(turn)}{family.end}" for turn in with_ids(example.messages))
        assert spoken(encoded, tokenizer) == wanted
        assert "".join(token.text for token in encoded.tokens if token.reason == "end").count(family.end) == len(
            encoded.answers
        )


@published
@pytest.mark.parametrize(("folder", "name"), [("internlm2", "auto"), ("deepseek_v3", "auto"), ("gpt2", "vicuna")])
def test_rows_with_functions_are_refused_where_they_would_be_dropped(folder, name):
    tokenizer = tokenizer_of(f"templates/tokenizers/{folder}")
    with pytest.raises(TemplateError, match="has no place for"):
        encode(calling_rows()[0], templates.resolve(name, tokenizer), tokenizer)


@published
def test_an_answer_that_is_not_what_the_model_would_say_there_is_refused():
    tokenizer = tokenizer_of("templates/tokenizers/mistral_nemo")
    example = next(each for each in plain_rows() if each.messages[0].role == "system" and len(each.messages) > 4)
    with pytest.raises(TemplateError, match="answer 1 does not follow in the whole conversation"):
        encode(example, tokenizer.own_template, tokenizer)


# --- trl's masks


@dataclass(frozen=True)
class Masked:
    """A family for which trl has a template with marks, and a tokenizer that has the family's special tokens.

    ours: the shipped template that writes the same text. before, after, last: what trl learns beside ours: in front of
    each answer, after each, and after the last one. own: whether the text without marks can be learned by too.
    """

    trl: str
    tokenizer: str
    ours: str
    specials: Mapping[str, str]
    added: tuple[str, ...] = ()
    before: str = ""
    after: str = ""
    last: str = ""
    calls: bool = False
    system: bool = True
    own: bool = True


EOS = "eos_token"
BOS = "bos_token"
DEEPSEEK = {EOS: "<｜end▁of▁sentence｜>", BOS: "<｜begin▁of▁sentence｜>"}
LLAMA_3 = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
COHERE = tuple(f"<|{each}_TOKEN|>" for each in ("START_OF_TURN", "END_OF_TURN", "USER", "CHATBOT", "SYSTEM"))
GLM = ("[gMASK]", "<sop>", "<|user|>", "<|assistant|>", "<|system|>", "<|observation|>")

# White space after an end token is not learned here, though trl does: generation has stopped by then, so it could only
# cost something. Nor is what the prompt has before each answer: the line break of Qwen, DeepSeek's <｜Assistant｜>. Nor
# the end token that Phi-3 writes once a conversation is over: <|end|> has stopped the answer before.
MASKED = (
    Masked("qwen2_5", "qwen2_5", "qwen", {EOS: "<|im_end|>"}, before="\n", after="\n", calls=True),
    Masked("deepseekv3", "deepseek_v3", "deepseek_v3", DEEPSEEK, before="<｜Assistant｜>", own=False),
    Masked("llama3", "qwen2_5", "llama3", {EOS: "<|eot_id|>", BOS: "<|begin_of_text|>"}, LLAMA_3),
    Masked(
        "phi3",
        "qwen2_5",
        "phi3",
        {EOS: "<|endoftext|>"},
        ("<|user|>", "<|assistant|>", "<|system|>", "<|end|>"),
        after="\n",
        last="\n<|endoftext|>",
    ),
    Masked(
        "gemma",
        "gpt2",
        "gemma",
        {EOS: "<eos>", BOS: "<bos>"},
        ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"),
        after="\n",
        system=False,
    ),
    Masked("cohere", "gpt2", "command_r", {EOS: COHERE[1], BOS: "<BOS_TOKEN>"}, ("<BOS_TOKEN>", *COHERE)),
    Masked(
        "lfm2",
        "qwen2_5",
        "lfm2",
        {EOS: "<|im_end|>", BOS: "<|startoftext|>"},
        ("<|startoftext|>",),
        after="\n",
    ),
    Masked("glm4moe", "qwen2_5", "glm4_moe", {EOS: "<|endoftext|>"}, GLM, calls=True),
)


def carrier(family: Masked, text: str):
    """(ours, transformers') of a published tokenizer with the family's tokens and a chat template."""
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer.from_file(str(TOKENIZERS / family.tokenizer / "tokenizer.json"))
    backend.add_special_tokens([AddedToken(each, special=True, normalized=False) for each in family.added])
    ours = TextTokenizer(backend, family.specials, text)
    theirs = PreTrainedTokenizerFast(tokenizer_object=ours.backend, **family.specials)
    theirs.chat_template = text
    return ours, theirs


def masked_rows(family: Masked) -> list[Example]:
    """All 200 for the families whose own tokenizer is here, some for the others."""
    found = plain_rows() if family.tokenizer in (family.trl, family.ours) else plain_rows()[::12]
    found = found + (calling_rows()[:8] if family.calls else [])
    return [each for each in found if family.system or each.messages[0].role != "system"]


def learned_by_trl(example: Example, tokenizer, text: str) -> tuple[list[int], list[bool]]:
    found = tokenizer.apply_chat_template(
        as_values(example.messages),
        tools=parsed_tools(example.tools),
        chat_template=text,
        return_assistant_tokens_mask=True,
        return_dict=True,
    )
    return found["input_ids"], [bool(each) for each in found["assistant_masks"]]


def as_trl_has_it(encoded: Encoded, family: Masked) -> list[bool]:
    """Our mask with what trl learns beside it."""
    flags = list(encoded.supervised)
    for begin, end in encoded.learned:
        after = family.last if family.last and (begin, end) == encoded.learned[-1] else family.after
        start, stop = encoded.offsets[begin][0], encoded.offsets[end - 1][1]
        assert encoded.text[:start].endswith(family.before) and encoded.text.startswith(after, stop)
        for place, (first, last) in enumerate(encoded.offsets):
            if start - len(family.before) <= first and last <= stop + len(after):
                flags[place] = True
    return flags


@published
@pytest.mark.parametrize("family", MASKED, ids=lambda each: each.trl)
def test_trl_learns_the_same_tokens(family):
    """By the published text without marks as by the shipped template with them."""
    trl = importlib.import_module("trl.chat_template_utils")
    ours, theirs = carrier(family, getattr(trl, f"{family.trl}_chat_template"))
    marked = trl.get_training_chat_template(theirs)
    both = [templates.load(family.ours), *([ours.own_template] if family.own else [])]
    for example in masked_rows(family):
        ids, mask = learned_by_trl(example, theirs, marked)
        for template in both:
            encoded = encode(example, template, ours)
            assert encoded.input_ids == ids
            assert as_trl_has_it(encoded, family) == mask


@published
def test_a_prompt_that_begins_a_thought_that_no_row_has_is_no_place_to_learn():
    trl = importlib.import_module("trl.chat_template_utils")
    (deepseek,) = (each for each in MASKED if not each.own)
    ours, _ = carrier(deepseek, trl.deepseekv3_chat_template)
    with pytest.raises(TemplateError, match="does not follow"):
        encode(plain_rows()[0], ours.own_template, ours)


@published
def test_trl_knows_the_template_of_qwen_as_its_tokenizer_has_it():
    """The other tokenizers' templates are older than those that trl has a copy of."""
    trl = importlib.import_module("trl.chat_template_utils")
    assert tokenizer_of("templates/tokenizers/qwen2_5").chat_template == trl.qwen2_5_chat_template
