import json

import pytest

from studio.data import registry
from studio.jobs.executors.replay import Replay
from studio.ui import app
from tests.ui.recorded import HOSTILE, recorded


@pytest.fixture
def served(studio_home):
    served = app.serve(port=0, executor=Replay(recorded(20), speed=10))
    yield served
    served.close()


@pytest.fixture
def data(page, served):
    page.goto(f"{served.url}/?tab=data")
    page.wait_for_selector("#data-rows .answers", timeout=30_000)
    return page


def upload(page, tmp_path, rows, name="my data (1).jsonl"):
    path = tmp_path / name
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    page.set_input_files("#data-file input[type=file]", path)
    page.wait_for_selector("#data-file-view #data-understood .understood")


def has(page, selector, text):
    page.wait_for_function(
        "([selector, text]) => document.querySelector(selector)?.innerText.includes(text)", arg=[selector, text]
    )


def choose(page, box, option):
    page.locator(f"{box} input").click()
    page.get_by_role("option", name=option, exact=True).click()


def test_a_dataset_is_chosen_by_keyboard_and_paged_through(data):
    data.get_by_role("button", name="everyday-zh", exact=True).focus()
    data.keyboard.press("Enter")
    has(data, "#data-about", "sharegpt")
    has(data, "#data-position", "rows 1–20 of 60")
    assert data.locator("#data-previous").is_disabled()
    for last in ("40", "60"):
        data.locator("#data-next").click()
        has(data, "#data-position", f"–{last} of 60")
    assert data.locator("#data-next").is_disabled()


def test_a_file_is_understood_mapped_registered_used_and_removed(data, tmp_path):
    upload(data, tmp_path, [{"question": f"q {n}", "answer": f"a {n}", "note": "n"} for n in range(30)])
    has(data, "#data-understood", "30 of 30 rows can be learned from")
    assert data.locator("#data-name").get_by_role("textbox").input_value() == "my-data-1"
    choose(data, "#data-part-response", "note")
    has(data, "#data-preview tr:nth-child(2) td:nth-child(3)", "n")
    choose(data, "#data-part-response", "answer")
    has(data, "#data-preview tr:nth-child(2) td:nth-child(3)", "a 0")
    data.locator("#data-register").click()
    has(data, "#data-about", "my-data-1")
    assert registry.get("my-data-1").columns == {"prompt": "question", "response": "answer"}
    data.locator("#data-use").click()
    has(data, "#spec-data-datasets", "my-data-1")
    assert "tab=train" in data.url
    data.get_by_role("tab", name="Data", exact=True).click()
    data.once("dialog", lambda dialog: dialog.dismiss())
    data.locator("#data-remove").click()
    data.wait_for_timeout(500)
    assert registry.get("my-data-1")
    data.once("dialog", lambda dialog: dialog.accept())
    data.locator("#data-remove").click()
    data.wait_for_selector("[data-name=my-data-1]", state="detached")
    assert "my-data-1" not in {each.name for each in registry.every()}


def test_markup_in_a_file_is_shown_as_text(data, tmp_path):
    hostile = HOSTILE + " ${document.title='by template'} {{value}}"
    upload(data, tmp_path, [{"prompt": hostile, "completion": hostile}, {"prompt": hostile, "completion": 3}])
    has(data, "#data-preview", hostile)
    has(data, "#data-faults", "must be text")
    data.locator("#data-register").click()
    has(data, "#data-rows", hostile)
    assert data.title() == "Finetune Studio"
    assert data.locator("#data-set-view img").count() == 0


def test_a_file_that_cannot_be_read_says_why_and_can_be_discarded(data, tmp_path):
    path = tmp_path / "latin.csv"
    path.write_bytes("prompt,completion\ncafé,x\n".encode("latin-1"))
    data.set_input_files("#data-file input[type=file]", path)
    has(data, "#data-status", "latin.csv is not UTF-8 text")
    data.locator("#data-file").get_by_role("button", name="Clear").click()
    data.wait_for_function("document.querySelector('#data-status').innerText.trim() === ''")
    assert data.locator("#data-set-view").is_visible()


def test_the_page_fits_a_narrow_screen_and_speaks_chinese(browser, served, tmp_path):
    context = browser.new_context(viewport={"width": 390, "height": 800}, locale="zh-CN")
    page = context.new_page()
    page.goto(f"{served.url}/?tab=data")
    has(page, "#data-list", "自我认知（英文）")
    upload(page, tmp_path, [{"question": "q" * 300, "answer": "a"}])
    has(page, "#data-understood", "1 行中有 1 行可以用来学习")
    assert page.locator("#data-register").inner_text() == "注册"
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    context.close()
