"""Rendering: the same here and in a process of its own, and the sentences about what goes wrong."""

import pytest

from studio import templates
from studio.data.example import Message
from studio.errors import TemplateError
from studio.sandbox import limits
from studio.templates import confined
from studio.templates.rendering import Refusal, Template, Undefined, render, render_marked, variables
from tests.templates.conversations import CONVERSATIONS

TALK = (Message("user", "Hello"), Message("assistant", "Hi"))
SPECIALS = {"bos_token": "<s>", "eos_token": "</s>"}


def own(text):
    return Template("mine", text, origin="own")


def told(template, conversation, prompt):
    try:
        return render(
            template, conversation.messages, tools=conversation.tools, specials=SPECIALS, add_generation_prompt=prompt
        )
    except TemplateError as error:
        return str(error)


@pytest.mark.parametrize("name", ["chatml", "qwen3", "gemma", "mistral", "llama3_1", "glm4"])
def test_a_template_writes_the_same_in_a_process_of_its_own(name):
    shipped = templates.load(name)
    stranger = Template(name, shipped.text)
    for conversation in CONVERSATIONS:
        for prompt in (False, True):
            assert told(stranger, conversation, prompt) == told(shipped, conversation, prompt)


def test_marks_are_written_around_answers_in_a_process_of_its_own():
    text = "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %};{% endfor %}"
    assert render_marked(own(text), TALK, {}, marks=("[", "]")) == "[Hello];[Hi];"
    assert render_marked(own(text), TALK, {}) == "Hello;Hi;"


def test_a_process_that_has_limits_itself_starts_no_other(monkeypatch):
    monkeypatch.setattr(limits, "_confined", True)
    monkeypatch.setattr(confined, "shared", None)
    assert render(own("{{ messages[0].content }}"), TALK) == "Hello"


def test_f26_a_syntax_error_has_line_and_column():
    with pytest.raises(TemplateError, match=r"^Template 'mine', line 2, column 6: .*endfr"):
        render(own("{% for m in messages %}\n  {% endfr %}"), TALK)


def test_an_unknown_filter_is_named_with_its_line():
    with pytest.raises(TemplateError, match=r"line 2, column \d+: No filter named 'uper'"):
        render(own("\n{{ messages | uper }}"), TALK)


def test_f27_an_undefined_field_is_named():
    with pytest.raises(Undefined, match=r"'dict object' has no attribute 'text'.*the tokenizer lacks it"):
        render(own("{{ messages[0].text.upper() }}"), TALK)


def test_f31_a_templates_own_words_are_told():
    with pytest.raises(Refusal, match=r"^Template 'mine' cannot write this conversation: No users here\.$"):
        render(own("{{ raise_exception('No users here.') }}"), TALK)


def test_what_a_template_does_wrong_is_told():
    for text in ("{{ 1 + 'a' }}", "{{ 1 // 0 }}", "{{ messages[0].content.index('x') }}", "{{ [].pop() }}"):
        with pytest.raises(TemplateError, match="'mine' cannot write this conversation: "):
            render(own(text), TALK)


def test_variables_are_those_that_it_reads_and_does_not_set():
    text = "{% set a = 1 %}{{ a }}{{ messages }}{{ enable_thinking }}{% for b in range(2) %}{{ b }}{% endfor %}"
    assert variables(own(text)) == ["enable_thinking", "messages"]


@pytest.mark.parametrize("name", [each.name for each in templates.library.shipped()])
def test_the_portable_text_of_a_shipped_template_has_no_header_and_no_marks(name):
    shipped = templates.load(name)
    portable = shipped.portable
    assert "title:" not in portable and "generation %}" not in portable
    assert render(Template("x", portable, origin="shipped"), TALK, specials=SPECIALS) == render(
        shipped, TALK, specials=SPECIALS
    )


def test_a_thought_is_found_under_both_names_that_templates_have_for_it():
    turns = (TALK[0], Message("assistant", "Hi", thought="A greeting."))
    for name in ("reasoning_content", "thinking"):
        assert render(own("{{ messages[1]." + name + " }}"), turns) == "A greeting."
