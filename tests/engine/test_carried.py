"""What travels with an export is what plain transformers reads: tokens, chat template, end tokens."""

import json
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoTokenizer, GenerationConfig, PreTrainedTokenizerFast

from studio import templates
from studio.data.example import Message
from studio.engine import carried
from studio.engine.models.load import load_tokenizer
from studio.events import Note
from studio.home import CHECKOUT
from studio.templates import Template, TextTokenizer, generation_prompt, render
from studio.templates.rendering import as_values

SHARED = CHECKOUT.parent / "shared"
FOLDERS = {path.name: path for path in sorted((SHARED / "templates" / "tokenizers").glob("*"))}
FOLDERS |= {path.name: path for path in sorted((SHARED / "models").glob("*"))}
TEXTS = (
    *("Hello", " Hello  world\n", "\nnaïve é 🙂 ｅ́", "你好，世界", "def f(x):\n    return x\t# 1234", "Don't  it's"),
    *("<s>Hello</s> x", "a <|im_start|>user\nHi<|im_end|>\nb", "[INST] hi [/INST] ok</s>", "１２３ "),
)
TALK = (Message("user", "Who are you? 你是谁？"), Message("assistant", "Miro.\n"), Message("user", "  And you?"))

published = pytest.mark.skipif(
    not FOLDERS, reason="the published tokenizers lie in a folder `shared` beside the checkout, which is not there"
)


def carry(source, folder, template, system=None):
    """(what was told, transformers' tokenizer of the export, ours of the base)."""
    tokenizer, ours = load_tokenizer(source)
    folder.mkdir(exist_ok=True)
    told = []
    carried.write_tokenizer(folder, tokenizer, ours, template, system, told.append)
    return told, AutoTokenizer.from_pretrained(folder), ours


def applied(plain, messages, **options):
    return plain.apply_chat_template(as_values(messages), return_dict=False, **options)


LARGE = ("deepseek_v3", "gpt2", "mistral_nemo")


@published
@pytest.mark.parametrize(
    "name", [pytest.param(each, marks=[pytest.mark.slow] if each in LARGE else []) for each in FOLDERS]
)
def test_an_export_is_tokenized_by_plain_transformers_as_it_was_trained(name, tmp_path):
    told, plain, ours = carry(FOLDERS[name], tmp_path / "out", templates.load("chatml"), "Be brief.")
    assert [plain.encode(text, add_special_tokens=False) for text in TEXTS] == [ours.ids(text) for text in TEXTS]
    prompt = applied(plain, TALK, add_generation_prompt=True)
    assert prompt == generation_prompt(TALK, templates.load("chatml"), ours, system="Be brief.")
    assert not told
    # the very same after another round through transformers, and in the base's own words
    plain.save_pretrained(tmp_path / "again")
    again = TextTokenizer.from_folder(tmp_path / "again")
    assert [again.ids(text) for text in TEXTS] == [ours.ids(text) for text in TEXTS]


@published
def test_yi_keeps_its_words_without_a_space_before_them(tmp_path):
    """LlamaTokenizer of transformers 5 puts one there, which Yi's tokenizer.json does not."""
    _, plain, ours = carry(FOLDERS["yi"], tmp_path / "out", templates.load("chatml"))
    assert plain.convert_ids_to_tokens(plain.encode("Hello")) == ["Hello"]
    assert ours.decode(ours.ids("Hello")) == "Hello"


@published
def test_a_name_that_only_the_config_knows_goes_to_the_word_that_it_names(tmp_path):
    _, plain, ours = carry(FOLDERS["internlm2"], tmp_path / "out", templates.load("chatml"))
    ids = ours.ids("<|im_start|>user<|im_end|>")
    assert (ids[0], ids[-1]) == (92543, 92542), "as its config says, and not beyond the 92544 rows of its weights"
    assert plain.convert_tokens_to_ids("<|im_start|>") == 92543
    assert ours.backend.get_vocab_size() == 92544


def test_a_name_in_the_config_does_not_rename_a_word_of_the_language(tmp_path):
    backend = Tokenizer(models.BPE(vocab={"a": 0, "b": 1, "ab": 2, "c": 3}, merges=[("a", "b")]))
    backend.save(str(tmp_path / "tokenizer.json"))
    config = {"added_tokens_decoder": {"2": {"content": "<new>", "special": True}}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    assert TextTokenizer.from_folder(tmp_path).ids("ab") == [2]


@pytest.fixture
def starting(tmp_path):
    """The folder of a byte tokenizer that puts <s> before plain text, as Llama's does."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(letters)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.add_special_tokens(["<s>", "</s>"])
    number = backend.token_to_id("<s>")
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", number)])
    folder = tmp_path / "starting"
    folder.mkdir()
    backend.save(str(folder / "tokenizer.json"))
    settings = {"bos_token": "<s>", "eos_token": "</s>", "tokenizer_class": "LlamaTokenizer", "add_bos_token": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


@pytest.mark.parametrize("name", ["llama2", "zephyr", "mistral"])
def test_a_start_token_is_there_once_also_where_tokenizer_and_template_write_it(name, starting, tmp_path):
    told, plain, ours = carry(starting, tmp_path / "out", templates.load(name))
    ids = applied(plain, TALK, add_generation_prompt=True)
    assert ids == generation_prompt(TALK, templates.load(name), ours)
    assert ids.count(ours.backend.token_to_id("<s>")) == render(
        templates.load(name), TALK, add_generation_prompt=True, specials=ours.specials
    ).count("<s>")
    assert plain.encode("x")[:2] != [plain.bos_token_id] * 2 and not told


def test_settings_that_mean_something_only_where_the_base_lies_stay_there(starting, tmp_path):
    config = json.loads((starting / "tokenizer_config.json").read_text())
    config["auto_map"] = {"AutoTokenizer": ["own.Tokenizer", None]}
    (starting / "tokenizer_config.json").write_text(json.dumps(config))
    carry(starting, tmp_path / "out", templates.load("zephyr"))
    values = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())
    assert values["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert not {"auto_map", "local_files_only", "is_local"} & values.keys()


def test_a_template_that_transformers_writes_otherwise_is_told(starting, tmp_path):
    told, _, _ = carry(starting, tmp_path / "out", _Changing("mine", "{{ messages[-1].content }}</s>"))
    assert [type(each) for each in told] == [Note] and "Served by other programs" in told[0].text


class _Changing(Template):
    """One that says something else once it has left the house."""

    @property
    def portable(self):
        return self.text + "!"


@pytest.mark.parametrize(
    "body", ["  {% for m in messages %}{{ m.content }}{% endfor %}", "\n{{ messages[0].content }}"]
)
def test_a_system_text_changes_nothing_else_in_what_a_template_writes(body, starting, tmp_path):
    template = Template("mine", body)
    _, plain, ours = carry(starting, tmp_path / "out", template, "Be brief.")
    text = applied(plain, TALK, tokenize=False)
    assert text == render(template, TALK, system="Be brief.", specials=ours.specials)
    own = (Message("system", "Mine."), *TALK)
    assert applied(plain, own, tokenize=False) == render(template, own, specials=ours.specials)


HOSTILE = (
    "'}}{% endif %}{{ 7 * 7 }}\\' \\n {# c #} \" {% generation %}\r\n\x00\x85\u2028 你好 🙂 {%- set messages = [] %}"
)


@given(st.text() | st.just(HOSTILE) | st.text("\\'\"{}%#\n\r- nuxN"))
def test_any_system_text_is_the_same_text_in_an_export(system):
    template = Template("mine", "{{ messages[0].content }}|{{ messages[-1].role }}")
    written = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE())).apply_chat_template(
        [{"role": "user", "content": "Hi"}], chat_template=template.portable_with(system), tokenize=False
    )
    assert written == (f"{system}|user" if system else "Hi|user")


def test_generation_stops_where_answers_end_also_if_the_base_has_no_settings(starting, tmp_path):
    settings = carried.generation_of(tmp_path)
    ours = TextTokenizer.from_folder(starting)
    carried.end_answers(settings, templates.load("zephyr"), ours, 7)
    settings.save_pretrained(tmp_path / "out")
    found = GenerationConfig.from_pretrained(tmp_path / "out")
    assert (found.eos_token_id, found.pad_token_id) == (ours.backend.token_to_id("</s>"), 7)
    shutil.copyfile(tmp_path / "out" / "generation_config.json", starting / "generation_config.json")
    assert carried.generation_of(starting).pad_token_id == 7
