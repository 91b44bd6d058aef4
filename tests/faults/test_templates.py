"""The faults of templates, by their number in the fault matrix, through the shell and the start of a run.

Not here: templates as hostile programs (test_hostile_templates).
"""

import json

import pytest

from studio.errors import StudioError
from studio.events import Note, Phase
from studio.templates import library
from tests.engine.test_train import spec

GOOD = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' %}{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}"
    "{% else %}{{ m.content }}<|im_end|>{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture
def keep(shell, tmp_path):
    """keep(text) -> what `studio templates add` says of it."""

    def add(text):
        path = tmp_path / "mine.jinja"
        path.write_text(text)
        return shell("templates", "add", str(path))

    return add


def names():
    return [each.name for each in library.every()]


def test_f26_a_syntax_error_has_line_and_column_and_nothing_is_kept(keep):
    before = names()
    status, out, err = keep("{% for m in messages %}\n  {{ m.content }}\n  {% endfr %}")
    assert (status, out) == (1, "") and "'mine', line 3, column 6" in err and "endfr" in err
    assert names() == before


def test_f27_an_undefined_variable_is_named_with_the_nearest_one(keep):
    _, _, err = keep(GOOD + "{{ bos_tokn }}")
    assert "reads 'bos_tokn', which is empty here" in err and "Did you mean 'bos_token'?" in err


def test_f27_an_undefined_field_is_named_before_the_model_loads(keep, tiny, dataset, run):
    assert "no attribute 'text'" in keep(GOOD.replace("{{ m.content }}", "{{ m.text.strip() }}"))[2]
    with pytest.raises(StudioError, match=r"'mine'.*no attribute 'text'"):
        run(spec(tiny(), dataset, template={"name": "mine"}))
    assert "load" not in [event.name for event in run.of(Phase)]


def test_f30_what_a_template_drops_is_found_by_a_probe_and_warned_of(keep):
    _, _, err = keep(GOOD.replace("in messages", "in messages if m.role != 'system'"))
    assert "warning: Template 'mine' does not write the system text of a conversation" in err
    assert "Add it to the template" in err


REFUSES = "{% if messages[0].role == 'system' %}{{ raise_exception('I take no system text') }}{% endif %}" + GOOD


def test_f31_a_role_that_it_refuses_is_told_in_its_own_words_and_the_row_is_counted(keep, tiny, add, run):
    assert "I take no system text. Rows with a system text cannot be learned with it." in keep(REFUSES)[2]
    plain = {"instruction": "Say 1.", "output": "1"}
    name = add([plain, plain | {"system": "Be brief."}, plain | {"output": "2"}]).name
    run(spec(tiny(), name, template={"name": "mine"}, training={"max_steps": 1, "accumulation": 1}))
    said = [note.text for note in run.of(Note)]
    assert any(text.startswith("1 rows were refused by the template") and "no system text" in text for text in said)


def test_f31_the_audit_names_the_row_with_the_templates_own_message(keep, tiny, add, tmp_path):
    from studio.data.audit import audit, report
    from studio.specs import AuditSpec, parse
    from studio.templates import TextTokenizer

    keep(REFUSES)
    plain = {"instruction": "Say 1.", "output": "1"}
    name = add([plain, plain | {"system": "Be brief."}]).name
    audit(
        parse(AuditSpec, {"dataset": name, "model": str(tiny()), "template": {"name": "mine"}}),
        tokenizer=TextTokenizer.from_folder(tiny()),
        report=tmp_path / "report.json",
        findings=tmp_path / "findings",
        emit=lambda event: None,
        stopping=lambda: False,
    )
    (told,) = report.unwritable(tmp_path / "findings")
    assert told["row"] == 2 and "I take no system text" in told["reason"]


def test_f31_an_order_that_every_row_has_is_refused_before_the_model_loads(keep, tiny, add, run):
    keep("{% if messages[-1].role == 'assistant' %}{{ raise_exception('Ask me last') }}{% endif %}" + GOOD)
    name = add([{"instruction": "Say 1.", "output": "1"}]).name
    with pytest.raises(StudioError, match="Ask me last"):
        run(spec(tiny(), name, template={"name": "mine"}))
    assert "load" not in [event.name for event in run.of(Phase)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}", "no end token"),
        ("{% for m in messages %}{{ m.role }}: {{ m.content | upper }}<|im_end|>{% endfor %}", "no generation marks"),
    ],
    ids=["no end", "no way to find the answer"],
)
def test_f32_answers_alone_are_refused_with_the_remedy_and_the_whole_text_is_not(keep, tiny, dataset, run, text, said):
    status, out, _ = keep(text)
    assert status == 0 and out.startswith("mine is added")
    with pytest.raises(StudioError, match=said) as refused:
        run(spec(tiny(), dataset, template={"name": "mine"}))
    assert "template.supervise" in str(refused.value)
    assert "load" not in [event.name for event in run.of(Phase)]
    once = {"max_steps": 1, "accumulation": 1}
    assert run(spec(tiny(), dataset, template={"name": "mine", "supervise": "all"}, training=once)) == run.adapter
    assert json.loads((run.adapter / "studio.json").read_text())["template"]["name"] == "mine"
