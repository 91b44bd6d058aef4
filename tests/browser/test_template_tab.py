import json
import time

import pytest

from studio.data import registry
from studio.jobs.executors.replay import Replay
from studio.templates import confined, library
from studio.ui import app
from tests.browser.choosing import choose
from tests.ui.audited import audited
from tests.ui.recorded import HOSTILE, recorded
from tests.ui.tiny_model import tiny_model

MINE = """{% for m in messages -%}
{{ m.role }} says: {% if m.role == "assistant" %}{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}
{%- else %}{{ m.content }}{% endif %}
{% endfor %}{% if add_generation_prompt %}assistant says: {% endif %}"""


@pytest.fixture
def served(studio_home):
    served = app.serve(port=0, executor=Replay(recorded(20), speed=10))
    yield served
    served.close()


@pytest.fixture
def template(page, served, tmp_path):
    """The tab with a model that has only a tokenizer."""
    open_with(page, served, tiny_model(tmp_path / "tiny"))
    return page


def open_with(page, served, model):
    page.goto(f"{served.url}/?tab=template")
    page.wait_for_selector("#template-problem .note", timeout=30_000)
    box = page.locator("#template-model").get_by_role("textbox")
    box.fill(str(model))
    box.press("Enter")
    page.wait_for_selector("#template-tokens .conversation")


def has(page, selector, text):
    page.wait_for_function(
        "([selector, text]) => document.querySelector(selector)?.innerText.includes(text)", arg=[selector, text]
    )


def test_a_model_that_is_not_here_is_told_and_can_be_fetched(page, served):
    page.goto(f"{served.url}/?tab=template")
    has(page, "#template-problem", "is fetched at the first run (93 MB)")
    assert page.locator("#template-fetch").is_visible()


def test_the_row_is_shown_as_text_tokens_and_table_and_each_token_tells_why_it_is_learned_or_not(template):
    has(template, "#template-tokens", "<|im_start|>user")
    learned = template.locator("#template-tokens .piece.learned").all_inner_texts()
    assert "".join(learned) == "I am Miro, an assistant made with Finetune Studio.<|im_end|>"
    template.get_by_label("As tokens").check()
    template.wait_for_selector(".view-tokens .piece.token")
    template.get_by_label("As a table").check()
    template.wait_for_selector(".token-table")
    tokens = int(template.locator(".counts").get_attribute("data-tokens"))
    assert template.locator(".token-table tr").count() == tokens + 1
    has(template, ".token-table", "end of answer")
    template.get_by_label("As tokens").check()
    template.locator(".view-tokens .piece.learned").last.hover()
    has(template, "#template-tokens .pointed", "assistant · end of answer · learned")
    template.locator("#template-tokens .conversation").focus()
    template.keyboard.press("ArrowRight")
    has(template, "#template-tokens .pointed", "template · not learned")
    for _ in range(6):  # the letters of "user", one token each, and a line break
        template.keyboard.press("ArrowRight")
    has(template, "#template-tokens .pointed", "user · asked · not learned")


def test_rows_templates_and_limits_change_what_is_shown(template):
    template.locator("#template-next").click()
    has(template, "#template-tokens", "What is your name?")
    assert template.locator("#template-row input").input_value() == "2"
    choose(template, "#template-name", "gemma · Gemma")
    has(template, "#template-about", "This model has no token <end_of_turn>")
    choose(template, "#template-name", "chatml · ChatML")
    template.locator("#template-limit input").fill("60")
    has(template, "#template-tokens", "the last")
    assert template.locator("#template-tokens .piece.cut").count() > 0
    choose(template, "#template-truncation", "the whole row")
    has(template, "#template-tokens", "the row with its")
    template.locator("#template-system textarea").fill("Be brief.")
    template.locator("#template-system textarea").blur()
    has(template, "#template-tokens", "Be brief.")
    template.locator("#template-previous").click()
    has(template, "#template-tokens", "Who are you?")


def test_two_templates_stand_side_by_side_or_on_a_phone_below_each_other_and_the_first_is_copied_as_json(template):
    choose(template, "#template-second", "alpaca · Alpaca")
    has(template, "#template-tokens .compared", "The text differs from character 2 on")
    panes = template.locator(".pane")
    boxes = [panes.nth(number).bounding_box() for number in (0, 1)]
    assert boxes[0]["y"] == boxes[1]["y"] and boxes[0]["x"] < boxes[1]["x"]
    template.set_viewport_size({"width": 390, "height": 800})
    boxes = [panes.nth(number).bounding_box() for number in (0, 1)]
    assert boxes[0]["x"] == boxes[1]["x"] and boxes[0]["y"] < boxes[1]["y"]
    template.set_viewport_size({"width": 1440, "height": 900})
    choose(template, "#template-name", "alpaca · Alpaca")
    has(template, "#template-tokens .compared", "Text, tokens and learned tokens are equal.")
    choose(template, "#template-name", "auto · the model's own")
    has(template, "#template-tokens .compared", "differs")
    template.context.grant_permissions(["clipboard-read", "clipboard-write"])
    template.locator("#template-copy").click()
    has(template, "#template-copied", "Copied.")
    copied = json.loads(template.evaluate("navigator.clipboard.readText()"))
    assert copied["stop"][0]["text"] == "<|im_end|>"
    learned = "".join(each["text"] for each in copied["tokens"] if each["supervised"])
    assert learned == "I am Miro, an assistant made with Finetune Studio.<|im_end|>"


def test_the_rows_that_an_audit_found_are_stepped_through(page, served, tmp_path):
    path = tmp_path / "flawed.jsonl"
    pairs = [("same", "again"), ("other", "one"), ("same", "again"), ("third", "row"), ("same", "again")]
    path.write_text("\n".join(json.dumps({"prompt": a, "completion": b}) for a, b in pairs), encoding="utf-8")
    registry.add(path, "flawed")
    audited("flawed")
    open_with(page, served, tiny_model(tmp_path / "tiny"))
    choose(page, "#template-dataset", "flawed")
    has(page, "#template-position", "Row 1 of 5.")
    choose(page, "#template-kind", "Duplicates (2)")
    has(page, "#template-position", "Row 3: number 1 of 2 found")
    assert page.locator("#template-previous").is_disabled()
    page.locator("#template-next").click()
    has(page, "#template-position", "Row 5: number 2 of 2 found")
    assert page.locator("#template-row input").input_value() == "5"
    assert page.locator("#template-next").is_disabled()
    choose(page, "#template-kind", "all")
    has(page, "#template-position", "Row 5 of 5.")


# --- templates written here


@pytest.fixture
def editor(template):
    template.locator("#template-own-fold > button").click()
    template.wait_for_selector("#template-own-text .cm-content")
    return template


def write(page, text):
    page.locator("#template-own-text .cm-content").fill(text)
    page.wait_for_timeout(300)  # a click at once after it can be sent before the text, on a busy machine


def test_a_template_is_begun_changed_shown_saved_and_removed(editor):
    choose(editor, "#template-name", "chatml · ChatML")
    editor.locator("#template-own-begin").click()
    has(editor, "#template-own-text", "generation")
    assert editor.locator("#template-own-name input, #template-own-name textarea").input_value() == "my-chatml"
    write(editor, MINE)
    editor.locator("#template-own-check").click()
    has(editor, "#template-tokens .pane-title", "my-chatml (draft)")
    has(editor, "#template-tokens", "assistant says:")
    editor.locator("#template-own-leave").click()
    has(editor, "#template-tokens", "<|im_start|>assistant")
    editor.locator("#template-own-save").click()
    has(editor, "#template-own-told", "Saved as my-chatml")
    has(editor, "#template-tokens", "assistant says:")
    assert editor.locator("#template-name input").input_value() == "my-chatml · yours"
    editor.get_by_role("tab", name="Train", exact=True).click()
    editor.locator("#spec-template-name input").click()
    editor.get_by_role("option", name="my-chatml", exact=True).wait_for()
    editor.keyboard.press("Escape")
    editor.get_by_role("tab", name="Template", exact=True).click()
    editor.locator("#template-own-remove").click()
    has(editor, "#template-own-question", "Remove my-chatml?")
    editor.locator("#template-own-remove-no").click()
    editor.locator("#template-own-remove").click()
    editor.locator("#template-own-remove-yes").click()
    has(editor, "#template-own-told", "Removed my-chatml.")
    assert library.names() == sorted(each.name for each in library.shipped())
    assert editor.locator("#template-name input").input_value() == "auto · the model's own"


def test_a_draft_that_is_wrong_says_where_and_while_one_never_ends_another_tab_answers(editor):
    write(editor, "{% for m in messages %}")
    editor.locator("#template-own-check").click()
    has(editor, "#template-own-told", "line 1, column")
    write(editor, "{{ messages[0].content }}")
    editor.locator("#template-own-check").click()
    has(editor, "#template-own-told", "Wrong:")
    assert editor.locator("#template-own-told .finding.error").count() > 0
    editor.locator("#template-own-leave").click()
    has(editor, "#template-tokens", "<|im_start|>user")
    write(editor, "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}")
    began = time.monotonic()
    editor.locator("#template-own-check").click()
    has(editor, "#template-own-told", "Checking")
    editor.get_by_role("tab", name="Data", exact=True).click()
    choose(editor, "#data-finding", "every row")
    editor.locator("#data-goto input, #data-goto textarea").fill("30")
    editor.locator("#data-goto input, #data-goto textarea").press("Enter")
    has(editor, "#data-position", "rows 30")
    assert time.monotonic() - began < confined.LIMIT_S
    editor.get_by_role("tab", name="Template", exact=True).click()
    has(editor, "#template-own-told", "did not finish within 5 s")
    assert time.monotonic() - began < confined.LIMIT_S + 5  # with what a slow machine takes to draw it
    has(editor, "#template-tokens", "Who are you?")


def test_another_dataset_begins_with_its_first_row_and_goes_into_the_train_form_and_comes_back(template):
    choose(template, "#template-name", "chatml · ChatML")
    template.locator("#template-row input").fill("30")
    template.wait_for_function("document.querySelector('#template-previous').disabled === false")
    choose(template, "#template-dataset", "everyday-zh")
    has(template, "#template-tokens", "今天晚饭吃什么好")
    template.wait_for_function("document.querySelector('#template-row input').value === '1'")
    template.locator("#template-use").click()
    has(template, "#spec-data-datasets", "everyday-zh")
    assert template.locator("#spec-template-name input").input_value() == "chatml"
    assert "tab=train" in template.url
    template.locator("#spec-data-max_length input").fill("300")
    template.get_by_role("tab", name="Template", exact=True).click()
    template.wait_for_function("document.querySelector('#template-limit input').value === '300'")
    has(template, "#template-tokens", "今天晚饭吃什么好")


def test_markup_in_a_row_is_shown_as_text(page, served, tmp_path):
    hostile = HOSTILE + " ${document.title='by template'} {{value}}"
    path = tmp_path / "hostile.jsonl"
    path.write_text(json.dumps({"prompt": hostile, "completion": hostile}), encoding="utf-8")
    registry.add(path, "hostile")
    open_with(page, served, tiny_model(tmp_path / "tiny"))
    choose(page, "#template-dataset", "hostile")
    has(page, "#template-tokens", hostile)
    page.get_by_label("As tokens").check()
    page.wait_for_selector(".view-tokens")
    has(page, "#template-tokens", hostile)
    assert page.title() == "Finetune Studio"
    assert page.locator("#template-tokens img").count() == 0


def test_the_tab_fits_a_narrow_screen_and_speaks_chinese(browser, served, tmp_path):
    context = browser.new_context(viewport={"width": 390, "height": 800}, locale="zh-CN")
    page = context.new_page()
    open_with(page, served, tiny_model(tmp_path / "tiny"))
    has(page, "#template-tokens", "要学习")
    assert page.get_by_label("词元", exact=True).is_visible()
    assert page.locator("#template-use").inner_text() == "用它训练"
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    context.close()
