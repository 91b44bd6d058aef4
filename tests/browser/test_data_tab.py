import json
import shutil
import threading
from pathlib import Path

import pytest
from filelock import FileLock

from studio.data import registry
from studio.data.audit import audit
from studio.engine.models.tokenizer import tokenizer_of
from studio.events import Ended, Started
from studio.jobs.journal import Journal
from studio.ui import app
from tests.browser.choosing import choose
from tests.ui.audited import register
from tests.ui.recorded import HOSTILE
from tests.ui.tiny_model import tiny_model

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
published = pytest.mark.skipif(not SHARED.is_dir(), reason="the published data is not beside the checkout")


class InThisProcess:
    """An executor that audits in a thread, so that no worker has to start."""

    def start(self, folder):
        threading.Thread(target=self._run, args=(folder,), daemon=True).start()

    def _run(self, folder):
        with FileLock(folder.lock):
            journal, spec = Journal(folder.events, 1), folder.read_spec()
            journal.append(Started(pid=0, host="here"))
            done = audit(
                spec, tokenizer=tokenizer_of(spec.model) if spec.model else None, report=folder.report,
                findings=folder.findings, emit=journal.append, stopping=folder.stop.exists,
            )  # fmt: skip
            journal.append(Ended(state="finished" if done else "stopped", path=str(done)))
            journal.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """One page for all tests, because it takes seconds to build; each brings datasets of other names."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STUDIO_HOME", str(tmp_path_factory.mktemp("home")))
        served = app.serve(port=0, executor=InThisProcess())
        yield served
        served.close()


@pytest.fixture
def data(page, served):
    page.goto(f"{served.url}/?tab=data")
    page.wait_for_selector("#data-rows .answers", timeout=30_000)
    return page


def choose_file(page, *paths):
    page.set_input_files("#data-file input[type=file]", list(paths))
    page.wait_for_selector("#data-file-view #data-understood .understood")


def upload(page, tmp_path, rows, name="my data (1).jsonl"):
    path = tmp_path / name
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), encoding="utf-8")
    choose_file(page, path)


def has(page, selector, text):
    page.wait_for_function(
        "([selector, text]) => document.querySelector(selector)?.innerText.includes(text)", arg=[selector, text]
    )


def fill(page, box, text, then="Enter"):
    field = page.locator(box).get_by_role("textbox")
    field.fill(text)
    field.press(then)


def unfold(page, fold):
    page.locator(f"{fold} button").first.click()
    page.wait_for_timeout(500)  # what is typed while the fold still opens may be lost


def answer(page, text=None):
    """What the browser answers to the next question; None takes the answer that is offered."""
    page.once("dialog", lambda dialog: dialog.accept(dialog.default_value if text is None else text))


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
    data.locator("#data-previous").click()
    has(data, "#data-position", "rows 21–40 of 60")


def test_rows_are_gone_to_searched_and_shown_as_in_the_file(data):
    fill(data, "#data-goto", "30")
    has(data, "#data-position", "rows 30–48 of 48")
    data.get_by_label("as in the file").check()
    has(data, "#data-rows", "instruction")
    has(data, "#data-position", "rows 30–48 of 48")
    fill(data, "#data-search", "who AM i")
    has(data, "#data-position", "that hold “who AM i”")
    has(data, "#data-rows", "Who am I talking to?")
    fill(data, "#data-search", "")
    has(data, "#data-position", "rows 1–20 of 48")


def test_a_file_is_mapped_registered_trained_on_renamed_and_removed(data, tmp_path):
    rows = [{"question": f"q {n}", "answer": f"a {n}", "note": {"by": f"n {n}"}} for n in range(30)]
    upload(data, tmp_path, rows)
    has(data, "#data-understood", "30 of 30 rows can be learned from")
    assert data.locator("#data-name").get_by_role("textbox").input_value() == "my-data-1"
    column = data.locator("#data-part-response input")
    column.fill("note.by")
    column.press("Enter")
    has(data, "#data-preview tr:nth-child(2) td:nth-child(3)", "n 0")
    column.fill("answer")
    column.press("Enter")
    has(data, "#data-preview tr:nth-child(2) td:nth-child(3)", "a 0")
    data.locator("#data-register").click()
    has(data, "#data-about", "my-data-1")
    assert registry.get("my-data-1").columns == {"prompt": "question", "response": "answer"}
    answer(data, "mine")
    data.locator("#data-rename").click()
    data.wait_for_selector("[data-name=mine][aria-current]")
    data.locator("#data-use").click()
    has(data, "#spec-data-datasets", "mine")
    assert "tab=train" in data.url
    data.get_by_role("tab", name="Data", exact=True).click()
    data.once("dialog", lambda dialog: dialog.dismiss())
    data.locator("#data-remove").click()
    data.wait_for_timeout(500)
    assert registry.get("mine")
    answer(data)
    data.locator("#data-remove").click()
    data.wait_for_selector("[data-name=mine]", state="detached")
    assert "mine" not in {each.name for each in registry.every()}


def test_faulty_rows_are_told_with_their_text_and_downloaded(data, tmp_path):
    good = {"prompt": "a", "completion": "b"}
    upload(data, tmp_path, [*[good] * 3, '{"prompt": "cut', {"prompt": "lonely"}])
    has(data, "#data-understood", "3 of 5 rows can be learned from")
    has(data, "#data-faults", '{"prompt": "cut')
    has(data, "#data-faults", '{"prompt": "lonely"}')
    assert not data.locator("#data-faults-file").is_visible()
    with data.expect_download() as download:
        data.locator("#data-faults-download").click()
    lines = [json.loads(line) for line in download.value.path().read_text(encoding="utf-8").splitlines()]
    assert [(line["row"], line["field"]) for line in lines] == [(4, ""), (5, "completion")]
    data.locator("#data-register").click()
    has(data, "#data-about", "Rows that cannot be learned from: 2.")


def test_an_audit_is_looked_through_and_remedied(data, tmp_path):
    register(tmp_path)
    data.get_by_role("tab", name="Train", exact=True).click()
    data.get_by_role("tab", name="Data", exact=True).click()
    data.get_by_role("button", name="flawed", exact=True).click()
    has(data, "#data-audit-status", "Not audited yet")
    unfold(data, "#data-audit-settings")
    fill(data, "#audit-model", str(tiny_model(tmp_path / "tiny")), then="Tab")
    data.locator("#audit-max-length input").fill("40")
    data.locator("#data-audit").click()
    data.wait_for_selector("[data-figure=duplicates][data-count='1']")
    data.wait_for_selector("#data-lengths .still-chart[data-traces='3']")
    has(data, "#data-audit-figures", "cutoff 40")
    data.locator("[data-show=near_duplicate]").click()
    has(data, "#data-rows", "nearly repeats row 5")
    has(data, "#data-position", "1–1 of 1 found")
    choose(data, "#data-finding", "Duplicates (1)")
    has(data, "#data-rows", "repeats row 1")
    answer(data)
    data.locator("[data-remedy=drop_duplicates]").click()
    data.wait_for_selector("[data-name=flawed-unique][aria-current]")
    has(data, "#data-about", "Made from flawed: Without duplicates.")
    assert registry.get("flawed-unique").rows == registry.get("flawed").rows - 1
    data.get_by_role("button", name="flawed", exact=True).click()
    data.wait_for_selector("#data-lengths .still-chart[data-traces='3']")


def test_a_file_waits_while_another_dataset_is_looked_at(data, tmp_path):
    upload(data, tmp_path, [{"prompt": "a", "completion": "b"}] * 3, name="later.jsonl")
    data.get_by_role("button", name="everyday-zh", exact=True).click()
    has(data, "#data-about", "everyday-zh")
    data.locator("#data-again").click()
    has(data, "#data-understood", "later.jsonl")
    data.locator("#data-discard").click()
    has(data, "#data-about", "everyday-zh")
    assert not data.locator("#data-again").is_visible()


def test_a_llama_factory_folder_is_registered_whole_and_a_missing_file_told(data, tmp_path):
    (tmp_path / "rows.json").write_text(json.dumps([{"instruction": "a", "output": "b"}]), encoding="utf-8")
    entries = {"from-folder": {"file_name": "rows.json"}, "lost": {"file_name": "lost.json"}}
    (tmp_path / "dataset_info.json").write_text(json.dumps(entries), encoding="utf-8")
    unfold(data, "#data-elsewhere")
    fill(data, "#data-place", str(tmp_path))
    has(data, "#data-status", "1 of 2 entries were registered.")
    has(data, "#data-status", "'lost.json', which does not exist")
    has(data, "#data-about", "from-folder")


def test_markup_in_a_file_is_shown_as_text(data, tmp_path):
    hostile = HOSTILE + " ${document.title='by template'} {{value}}"
    rows = [{"prompt": hostile, "completion": hostile}] * 2
    upload(data, tmp_path, [*rows, {"prompt": hostile, "completion": 3}])
    has(data, "#data-preview", hostile)
    has(data, "#data-faults", "must be text")
    data.locator("#data-register").click()
    has(data, "#data-rows", hostile)
    data.get_by_label("as in the file").check()
    has(data, "#data-rows", "completion")
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


@published
def test_published_sets_are_understood_and_classes_balanced(data, tmp_path):
    choose_file(data, SHARED / "nlg" / "e2e_devset.csv", SHARED / "nlg" / "e2e_testset_w_refs.csv")
    has(data, "#data-understood", "9,365 of 9,365 rows can be learned from")
    has(data, "#data-understood", "mr → Prompt, ref → Answer")
    data.locator("#data-discard").click()
    data.wait_for_selector("#data-file-view", state="hidden")
    spam = shutil.copy(SHARED / "classification" / "sms_spam.tsv", tmp_path / "sms.tsv")
    choose_file(data, spam)
    has(data, "#data-understood", "5,574 of 5,574 rows can be learned from")
    data.locator("#data-register").click()
    has(data, "#data-about", "classification")
    unfold(data, "#data-audit-settings")
    data.get_by_label("Near duplicates").uncheck()
    data.locator("#data-audit").click()
    data.wait_for_selector("[data-figure=duplicates][data-count='403']")
    data.wait_for_selector("#data-classes .still-chart[data-traces='1']")
    answer(data)
    data.locator("[data-remedy=balance]").click()
    has(data, "#data-about", "1,494")


def test_the_page_fits_a_narrow_screen_and_speaks_chinese(browser, served, tmp_path):
    context = browser.new_context(viewport={"width": 390, "height": 800}, locale="zh-CN")
    page = context.new_page()
    page.goto(f"{served.url}/?tab=data")
    has(page, "#data-list", "自我认知（英文）")
    has(page, "#data-audit-status", "还没有检查过")
    upload(page, tmp_path, [{"question": "q" * 300, "answer": "a"}])
    has(page, "#data-understood", "1 行中有 1 行可以用来学习")
    assert page.locator("#data-register").inner_text() == "注册"
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    context.close()
