import json

import pytest

from studio.data import registry
from studio.jobs.executors.replay import Replay
from studio.ui import app
from tests.ui.recorded import HOSTILE, recorded
from tests.ui.tiny_model import tiny_model


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


def choose(page, box, option):
    page.locator(f"{box} input").click()
    page.get_by_role("option", name=option, exact=True).click()


def test_a_model_that_is_not_here_is_told_and_can_be_fetched(page, served):
    page.goto(f"{served.url}/?tab=template")
    has(page, "#template-problem", "is fetched at the first run (93 MB)")
    assert page.locator("#template-fetch").is_visible()


def test_the_row_is_shown_as_text_tokens_and_table(template):
    has(template, "#template-tokens", "<|im_start|>user")
    learned = template.locator("#template-tokens .piece.learned").all_inner_texts()
    assert "".join(learned) == "I am Miro, an assistant made with Finetune Studio.<|im_end|>"
    template.get_by_label("As tokens").check()
    template.wait_for_selector(".view-tokens .piece.token")
    template.get_by_label("As a table").check()
    template.wait_for_selector(".token-table")
    tokens = int(template.locator(".counts").get_attribute("data-tokens"))
    assert template.locator(".token-table tr").count() == tokens + 1


def test_rows_templates_and_limits_change_what_is_shown(template):
    template.locator("#template-next").click()
    has(template, "#template-tokens", "What is your name?")
    assert template.locator("#template-row input").input_value() == "2"
    choose(template, "#template-name", "gemma · Gemma")
    has(template, "#template-about", "This model has no token <end_of_turn>")
    choose(template, "#template-name", "chatml · ChatML")
    template.locator("#template-limit input").fill("30")
    has(template, "#template-about", "tokens lie beyond the limit")
    template.locator("#template-system textarea").fill("Be brief.")
    template.locator("#template-system textarea").blur()
    has(template, "#template-tokens", "system")
    template.locator("#template-previous").click()
    has(template, "#template-tokens", "Who are you?")


def test_another_dataset_begins_with_its_first_row(template):
    template.locator("#template-row input").fill("30")
    template.wait_for_function("document.querySelector('#template-previous').disabled === false")
    choose(template, "#template-dataset", "everyday-zh")
    has(template, "#template-tokens", "今天晚饭吃什么好")
    template.wait_for_function("document.querySelector('#template-row input').value === '1'")


def test_what_is_chosen_here_goes_into_the_train_form_and_comes_back(template):
    choose(template, "#template-name", "chatml · ChatML")
    choose(template, "#template-dataset", "everyday-zh")
    has(template, "#template-tokens", "今天晚饭吃什么好")
    template.locator("#template-use").click()
    has(template, "#spec-data-datasets", "everyday-zh")
    assert template.locator("#spec-template-name input").input_value() == "chatml"
    assert "tab=train" in template.url
    template.locator("#spec-data-max_length input").fill("300")
    template.get_by_role("tab", name="Template", exact=True).click()
    has(template, "#template-about", "limit 300")
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
    has(page, "#template-about", "个要学习")
    assert page.get_by_label("词元", exact=True).is_visible()
    assert page.locator("#template-use").inner_text() == "用它训练"
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    context.close()
