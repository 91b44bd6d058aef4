"""Templates as files: found, shipped or written here, kept, refused, and removed."""

import os
import shutil

import pytest

from studio import templates
from studio.data.example import Message
from studio.errors import StudioError, TemplateError
from studio.home import SHIPPED_TEMPLATES
from studio.templates import confined, library, render

TALK = (Message("user", "Hello"), Message("assistant", "Hi"))
PLAIN = "{% for message in messages %}{{ message.content }}{{ eos_token }}\n{% endfor %}"
SPECIALS = {"eos_token": "</s>"}


@pytest.fixture(autouse=True)
def fresh(studio_home):
    return studio_home


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """A copy of templates/ to break."""
    folder = tmp_path / "shipped"
    shutil.copytree(SHIPPED_TEMPLATES, folder)
    monkeypatch.setattr(library, "SHIPPED_TEMPLATES", folder)
    return folder


def test_a_saved_template_is_found_listed_rendered_and_removed(studio_home):
    saved = library.save("mine", PLAIN)
    assert (saved.name, saved.title, saved.origin) == ("mine", "mine", "own")
    assert library.load("mine") == saved
    assert "mine" in library.names() and saved in library.every() and saved not in library.shipped()
    assert (studio_home / "templates" / "mine.jinja").read_text() == PLAIN
    assert render(saved, TALK, specials=SPECIALS) == "Hello</s>\nHi</s>\n"
    library.remove("mine")
    assert "mine" not in library.names()
    with pytest.raises(TemplateError, match="Unknown template 'mine'"):
        library.load("mine")


def test_listing_makes_no_folder(studio_home):
    library.names(), library.every(), library.problems()
    assert not studio_home.exists()


def test_a_header_of_ones_own_is_read():
    text = "{#\ntitle: My Format\nfamilies: [a, b]\nstop: ['<end>']\nsystem: Be kind.\n#}\n" + PLAIN
    saved = library.save("mine", text)
    assert (saved.title, saved.families, saved.stop, saved.system) == ("My Format", ("a", "b"), ("<end>",), "Be kind.")


@pytest.mark.parametrize("comment", ["{# Written by me #}", "{#- Copyright 2025: all of us -#}", "{# [ #}", "{##}"])
def test_a_comment_of_a_pasted_template_is_no_header(comment):
    saved = library.save("mine", comment + "\n\n" + PLAIN)
    assert saved.title == "mine"
    assert render(templates.Template("x", saved.portable), TALK, specials=SPECIALS) == render(
        saved, TALK, specials=SPECIALS
    )


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("title: [", "not valid YAML"),
        ("title: x\nstop: </s>", "stop in the header must be a list"),
        ("stop: [[a]]", "stop in the header must be a list of words"),
        ("title: {a: b}", "title in the header must be text"),
        ("title: " + "x" * 30_000, "more than 20,000 characters"),
        ("title: &a " + "[" * 5_000, "header"),
    ],
)
def test_a_header_that_is_meant_as_one_must_be_right(header, said):
    with pytest.raises(TemplateError, match=rf"Template 'mine': .*{said}"):
        library.save("mine", "{#\n" + header + "\n#}\n" + PLAIN)
    assert library.names() == [each.name for each in library.shipped()]


def test_a_header_that_unfolds_without_end_is_refused_at_once():
    """One list of ten that each hold the last one, ten times over."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    with pytest.raises(TemplateError, match="title in the header must be text"):
        library.save("mine", "{#\n" + "\n".join(lines) + "\ntitle: *a11\n#}\n" + PLAIN)


def test_f26_a_syntax_error_has_line_and_column_and_nothing_is_saved():
    with pytest.raises(TemplateError, match=r"Template 'mine', line 2, column 6: .*endfr"):
        library.save("mine", "{% for m in messages %}\n  {% endfr %}")
    assert "mine" not in library.names()


def test_f27_a_shipped_template_reads_only_what_there_is():
    with pytest.raises(TemplateError, match=r"'mesages'\. Did you mean 'messages'\?"):
        library.parse("mine", "{# title: Mine #}{{ mesages }}")
    assert library.parse("mine", "{{ enable_thinking }}", "own")


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "-x", "a" * 65, "CON", "模板", "a b", "x\n"])
def test_f22_a_name_that_is_no_file_name_is_refused(name, studio_home):
    with pytest.raises(StudioError, match="cannot be a template name"):
        library.save(name, PLAIN)
    assert not list(studio_home.rglob("*.jinja"))


@pytest.mark.parametrize("name", ["auto", "chatml"])
def test_a_name_that_is_taken_by_the_studio_is_refused(name):
    with pytest.raises(TemplateError, match=rf"'{name}' is the name of .*Choose another name"):
        library.save(name, PLAIN)
    with pytest.raises(TemplateError, match="was not written here"):
        library.remove(name)


def test_an_existing_one_is_replaced_only_if_that_is_meant():
    library.save("mine", PLAIN)
    with pytest.raises(TemplateError, match="There is a template 'mine' already"):
        library.save("mine", "{{ messages }}", replace=False)
    assert library.save("mine", "{{ messages }}").text == library.load("mine").text == "{{ messages }}"


@pytest.mark.parametrize(("text", "said"), [("x" * 1024**2 + "y", "more than 1,024 KiB"), ("\ud800", "half a char")])
def test_a_text_that_no_template_has_is_refused(text, said):
    with pytest.raises(TemplateError, match=said):
        library.save("mine", text)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"{% for %}", b"{# title: [ #}", b"x" * (1024**2 + 1)])
def test_a_broken_file_of_ones_own_is_a_problem_and_no_crash(studio_home, content):
    (studio_home / "templates").mkdir(parents=True)
    (studio_home / "templates" / "broken.jinja").write_bytes(content)
    assert "broken" in library.names()
    assert "broken" not in [each.name for each in library.every()]
    (problem,) = library.problems()
    assert "broken" in problem
    with pytest.raises(TemplateError, match="broken"):
        library.load("broken")


def test_a_broken_shipped_file_does_not_hide_the_others(shipped):
    (shipped / "broken.jinja").write_text("{% for %}")
    assert len(library.every()) == len(library.names()) - 1
    assert "broken" in library.problems()[0]


def test_a_shipped_template_goes_before_ones_own_of_the_same_name_and_that_is_told(shipped):
    library.save("mine", PLAIN)
    (shipped / "mine.jinja").write_text("{# title: Newly shipped #}{{ messages }}")
    assert library.load("mine").title == "Newly shipped"
    assert "Your template 'mine' is not used" in library.problems()[0]
    library.remove("mine")
    assert library.problems() == []


def test_a_changed_file_is_read_anew_and_an_unchanged_one_is_not(studio_home):
    first = library.save("mine", PLAIN)
    assert library.load("mine") is first
    path = studio_home / "templates" / "mine.jinja"
    path.write_text("{{ messages }}")
    os.utime(path, ns=(1, 1))
    assert library.load("mine").text == "{{ messages }}"


def test_a_file_that_is_gone_in_between_is_told(studio_home, monkeypatch):
    monkeypatch.setattr(library, "_own", lambda: [("gone", studio_home / "gone.jinja")])
    with pytest.raises(TemplateError, match="cannot be read: No such file"):
        library.load("gone")
    assert len(library.every()) == len(library.shipped())


def test_what_is_wrong_with_the_machine_is_not_held_against_the_file(monkeypatch, studio_home):
    (studio_home / "templates").mkdir(parents=True)
    (studio_home / "templates" / "mine.jinja").write_text(PLAIN)

    def unstartable(_):
        raise StudioError("No memory is left.")

    library.shipped()
    with monkeypatch.context() as patch:
        patch.setattr(library, "variables", unstartable)
        assert library.problems() == ["Template 'mine' cannot be checked. No memory is left."]
    assert library.problems() == []
    assert library.load("mine").text == PLAIN


def test_a_folder_that_cannot_be_written_is_told(studio_home):
    studio_home.mkdir()
    (studio_home / "templates").write_text("a file in its place")
    with pytest.raises(TemplateError, match=r"mine\.jinja cannot be written: .*set STUDIO_HOME"):
        library.save("mine", PLAIN)


def test_a_name_of_other_tools_is_answered_with_ours():
    with pytest.raises(TemplateError, match=r"Unknown template 'llama2_chat'\. It is called 'llama2' here\."):
        library.load("llama2_chat")


def test_auto_needs_a_model():
    with pytest.raises(TemplateError, match="'auto' is the model's own template, so it needs a model"):
        library.load("auto")


def test_loading_shipped_templates_starts_no_process(monkeypatch):
    monkeypatch.setattr(confined, "shared", None)
    assert len(library.shipped()) >= 40
    assert library.problems() == []
