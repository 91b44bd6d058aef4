"""What is found about a template before it is used."""

import pytest

from studio import templates
from studio.data.example import Message
from studio.errors import TemplateError
from studio.templates import Template, TextTokenizer, checking, confined, library
from studio.templates.checking import check, concerns, twin
from studio.templates.confined import Confined
from studio.templates.encoding import encode
from tests.templates.conversations import BY_NAME
from tests.templates.test_encoding import FOLDERS, published
from tests.templates.tiny import byte_tokenizer

GOOD = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' %}{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}"
    "{% else %}{{ m.content }}<|im_end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(autouse=True)
def fresh(studio_home):
    return studio_home


@pytest.fixture(scope="module")
def tiny():
    return byte_tokenizer("<s>", "</s>", "<|im_start|>", "<|im_end|>")


def own(text):
    return Template("mine", text, origin="own")


def found(text, tokenizer=None, *, but=("tools",)):
    """(kind, level) of what is found."""
    return [(each.kind, each.level) for each in check(own(text), tokenizer) if each.kind not in but]


def sentence(text, kind, tokenizer=None):
    (one,) = (each.text for each in check(own(text), tokenizer) if each.kind == kind)
    assert "'mine'" in one or "model" in one
    return one


@pytest.mark.parametrize("named", [False, True])
def test_nothing_is_found_about_a_good_template(tiny, named):
    assert found(GOOD, tiny if named else None) == []


def test_tools_that_a_template_has_no_place_for_are_told():
    assert "no place for tool descriptions and tool calls" in sentence(GOOD, "tools")


def test_f26_a_syntax_error_is_all_that_is_told():
    assert found("{% for m in messages %}\n  {% endfr %}", but=()) == [("syntax", "error")]
    assert "line 2, column 6" in sentence("{% for m in messages %}\n  {% endfr %}", "syntax")


def test_a_wrong_header_of_a_draft_is_told():
    assert found("{#\ntitle: [\n#}" + GOOD, but=()) == [("syntax", "error")]


def test_f27_a_variable_that_nothing_provides_is_named_with_the_nearest():
    text = GOOD + "{{ bos_tokn }}"
    assert found(text) == [("variable", "warning")]
    assert "reads 'bos_tokn', which is empty here" in sentence(text, "variable")
    assert "Did you mean 'bos_token'?" in sentence(text, "variable")


def test_f27_an_undefined_field_is_named():
    assert "no attribute 'text'" in sentence("{% for m in messages %}{{ m.text.strip() }}{% endfor %}", "wrong")


def test_f27_a_special_token_that_the_tokenizer_lacks_is_named():
    bare = byte_tokenizer("<s>", "</s>")
    bare = TextTokenizer(bare.backend, {"eos_token": "</s>"})
    said = sentence("{{ bos_token + '' }}" + GOOD, "wrong", bare)
    assert "'bos_token' is undefined" in said and "the tokenizer lacks it" in said


def test_f29_what_never_ends_is_tried_once(monkeypatch):
    processes = Confined(limit_s=0.5)
    monkeypatch.setattr(confined, "shared", processes)
    loop = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    assert found(loop + GOOD, but=()) == [("unfinished", "error")]
    assert "did not finish within 0.5 s" in sentence(loop + GOOD, "unfinished")
    processes.close()


@pytest.mark.parametrize(
    ("text", "gone"),
    [
        (GOOD.replace("in messages", "in messages if m.role != 'system'"), "the system text"),
        (GOOD.replace("in messages", "in messages[-2:]"), "the system text, the first question and the first answer"),
        (GOOD.replace("{% else %}{{ m.content }}", "{% else %}{{ m.text }}"), "the system text, the first question"),
    ],
)
def test_f30_what_it_drops_is_told(text, gone):
    assert f"does not write {gone}" in sentence(text, "drops")


def test_f31_a_role_that_it_refuses_is_told_in_its_own_words():
    text = "{% if messages[0].role == 'system' %}{{ raise_exception('No system please') }}{% endif %}" + GOOD
    assert found(text) == [("refuses", "warning")]
    assert "No system please. Rows with a system text" in sentence(text, "refuses")


def test_f31_an_order_that_it_refuses_is_told_in_its_own_words():
    order = "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Take turns') }}{% endif %}"
    text = GOOD.replace("<|im_start|>{{", order + "<|im_start|>{{").replace("in messages", "in messages[-6:]")
    kinds = [each.text for each in check(own(text)) if each.kind == "refuses"]
    assert any("Take turns. So it is with two questions" in each for each in kinds)


def test_f31_a_template_that_takes_one_turn_only_is_a_warning_and_one_that_takes_nothing_an_error():
    one = "{% if messages | length > 3 %}{{ raise_exception('One turn') }}{% endif %}"
    assert ("refuses", "warning") in found(one + GOOD)
    assert found("{{ raise_exception('Never') }}") == [("refuses", "error")]


def test_f32_no_end_token_is_an_error_with_the_remedy(tiny):
    text = GOOD.replace("{{ m.content }}<|im_end|>{% endgeneration %}", "{{ m.content }}\n{% endgeneration %}")
    text = text.replace("<|im_start|>", "")
    assert found(text, tiny) == found(text) == [("no_end", "error")]
    assert "no end token after an answer" in sentence(text, "no_end", tiny)
    assert "set template.supervise" in sentence(text, "no_end", tiny)


def test_an_answer_that_ends_where_the_next_turn_begins_has_an_end(tiny):
    text = GOOD.replace("{{ m.content }}<|im_end|>{% endgeneration %}", "{{ m.content }}{% endgeneration %}")
    assert found(text, tiny) == found(text) == []


def test_f32_answers_that_cannot_be_found_are_an_error(tiny):
    text = "{% for m in messages %}{{ m.role }}: {{ m.content | upper }}</s>{% endfor %}"
    assert ("no_answers", "error") in found(text, tiny)
    assert "has no generation marks" in sentence(text, "no_answers", tiny)


def test_earlier_turns_that_change_are_told():
    text = GOOD.replace("{{ m.content }}<|im_end|>{% end", "{{ '<b>' if loop.last }}{{ m.content }}<|im_end|>{% end")
    assert found(text, but=("tools", "prompt")) == [("changes", "warning")]
    assert "<b>First" in sentence(text, "changes")


def test_a_prompt_that_is_not_written_is_told():
    text = GOOD[: GOOD.index("{% if add_generation_prompt")]
    assert found(text) == [("prompt", "warning")]
    assert r"does not write '<|im_start|>assistant\n'" in sentence(text, "prompt")


def test_a_prompt_that_differs_from_what_precedes_an_answer_in_training_is_told():
    text = GOOD.replace("<|im_start|>assistant\n{% endif %}", "<|im_start|>bot\n{% endif %}")
    assert found(text) == [("prompt", "warning")]
    assert "<|im_start|>bot" in sentence(text, "prompt") and "<|im_start|>assi" in sentence(text, "prompt")


def test_what_stands_before_an_answer_and_is_neither_in_the_prompt_nor_learned_is_told():
    text = GOOD.replace("{% generation %}", "Well, {% generation %}")
    assert found(text) == [("prompt", "warning")]
    assert "'Well, '" in sentence(text, "prompt")
    assert found(GOOD.replace("{% generation %}", "{% generation %}Well, ")) == []


def test_tokens_of_another_family_are_told():
    foreign = byte_tokenizer("<s>", "</s>")
    text = GOOD.replace("<|im_end|>", "{{ eos_token }}")
    assert found(text, foreign) == [("specials", "warning")]
    assert "<|im_start|>, which this model does not know as one token" in sentence(text, "specials", foreign)


def test_a_stop_string_that_the_tokenizer_lacks_is_told(tiny):
    text = "{#\nstop: ['<|eot|>']\n#}" + GOOD
    assert found(text, tiny) == [("stop", "warning")]
    assert concerns(library.parse("mine", text, "own"), tiny) == [sentence(text, "stop", tiny)]


def test_errors_come_first(tiny):
    text = "{% for m in messages if m.role != 'system' %}{{ m.content | upper }}</s>{% endfor %}{{ nobody }}"
    levels = [level for _, level in found(text, tiny)]
    assert levels == sorted(levels) and set(levels) == {"error", "warning"}


@pytest.mark.parametrize("name", [each.name for each in library.shipped()])
def test_a_shipped_template_has_no_errors(name):
    assert [each.text for each in check(templates.load(name)) if each.level == "error"] == []


@published
@pytest.mark.parametrize(("folder", "name"), [("qwen2_5", "qwen"), ("deepseek_v3", "deepseek_v3")])
def test_a_models_own_template_has_a_shipped_twin_with_marks(folder, name):
    tokenizer = TextTokenizer.from_folder(FOLDERS[folder])
    assert twin(tokenizer.own_template, tokenizer).name == name
    assert twin(Template("mine", tokenizer.own_template.text + "!"), tokenizer) is None


def test_where_answers_cannot_be_found_the_twin_is_named(tiny):
    text = templates.load("qwen").portable
    late = "{% if messages | length > 5 and messages[0].content == 'What is 2+2?' %} {% endif %}"
    with pytest.raises(TemplateError, match="Choose template 'qwen', which writes the same text and has marks"):
        encode(BY_NAME["multi_turn"].messages, Template("auto", late + text), tiny)
    assert checking.twin(Template("auto", late + text), tiny).name == "qwen"


@published
def test_where_only_system_texts_are_written_differently_that_template_is_named():
    tokenizer = TextTokenizer.from_folder(FOLDERS["mistral_nemo"])
    talk = (Message("system", "Be brief."), *BY_NAME["multi_turn"].messages)
    with pytest.raises(TemplateError, match="Choose template 'mistral', which has marks and writes the same but for"):
        encode(talk, tokenizer.own_template, tokenizer)
