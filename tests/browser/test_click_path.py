"""The whole click path on the real model: dataset, run, reload, a killed server, chat side by side, export.

Minutes, not seconds: SmolLM2 is trained here. Everything else about the tabs is tested faster beside this.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from studio.engine.models import bundled
from studio.hardware import keep_gain
from studio.jobs import control
from studio.jobs import folder as folders
from studio.jobs.journal import tail
from studio.jobs.monitor import view_of
from studio.serving import client
from studio.specs import TrainSpec, parse
from tests.browser.talking import until_sent
from tests.engine.conftest import make

TABS = ("data", "template", "train", "evaluate", "chat", "export")
TRAINED_S = 15 * 60
CHECKOUT = Path(__file__).resolve().parents[2]

LOAD_AND_ASK = """
import json, sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
folder, prompts = sys.argv[1], json.loads(sys.argv[2])
tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
answers = []
for prompt in prompts:
    asked = tokenizer.apply_chat_template([{"role": "user", "content": prompt}], add_generation_prompt=True,
                                          return_tensors="pt", return_dict=True)
    ids = model.generate(**asked, max_new_tokens=48, do_sample=False)[0, asked["input_ids"].shape[1]:]
    answers.append(tokenizer.decode(ids, skip_special_tokens=True))
assert "studio" not in sys.modules
print(json.dumps(answers))
"""


class Server:
    """`studio ui` as a process of its own, that can be killed and started again on the same port."""

    def __init__(self, log: Path):
        self._log = log
        self.port = 0
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "studio", "ui", "--no-browser", "--port", str(self.port or free_port())]
        self.port = int(command[-1])
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(command, cwd=CHECKOUT, stdout=log, stderr=subprocess.STDOUT)
        until(lambda: answers(self.url), 60, f"the page (see {self._log})")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def free_port() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def answers(url: str) -> bool:
    try:
        return urllib.request.urlopen(url, timeout=5).status == 200
    except OSError:
        return False


def until(condition, seconds: float, what: str) -> None:
    end = time.time() + seconds
    while not condition():
        assert time.time() < end, f"{what} did not come within {seconds} s"
        time.sleep(0.2)


@pytest.fixture
def server(studio_home, tmp_path):
    server = Server(tmp_path / "ui.log")
    yield server
    server.kill()
    client.stop()
    for folder in folders.every():
        if view_of(folder).live:
            folder.ask_to_stop()


@pytest.fixture
def with_model(studio_home, tmp_path_factory, worker_home):
    """The bundled model in this test's STUDIO_HOME, fetched once a session.

    It computes in fp32 whatever this CPU likes best: answers are compared to the letter, and in bf16 a merged weight
    rounds anew.
    """
    (studio_home / "models").mkdir(parents=True)
    keep_gain(0.5)
    (studio_home / "models" / worker_home.name).symlink_to(worker_home)


@pytest.fixture(scope="session")
def worker_home(tmp_path_factory) -> Path:
    before = os.environ.get("STUDIO_HOME")
    os.environ["STUDIO_HOME"] = str(tmp_path_factory.mktemp("bundled"))
    try:
        return bundled.fetch(lambda *_: None)
    finally:
        os.environ.pop("STUDIO_HOME")
        if before is not None:
            os.environ["STUDIO_HOME"] = before


def open_tab(page, name: str) -> None:
    page.locator(f"[role=tab][data-tab-id={name}]").first.click()


def fill(page, elem_id: str, value: str) -> None:
    box = page.locator(f"#{elem_id} input, #{elem_id} textarea").first
    box.fill(value)
    box.press("Tab")


def points(page) -> int:
    return int(page.locator(".live-chart").get_attribute("data-points") or 0)


def wait_for_points(page, count: int, seconds: float = TRAINED_S) -> None:
    page.wait_for_function(
        f"Number(document.querySelector('.live-chart')?.dataset.points ?? 0) >= {count}", timeout=seconds * 1000
    )


def wait_for_state(page, kind: str, state: str, seconds: float = TRAINED_S) -> None:
    page.wait_for_selector(f"#{kind}-status [data-state={state}]", timeout=seconds * 1000)


def ask(page, text: str) -> tuple[str, str]:
    """Send a message and give both columns' answers once both are whole."""
    before = page.locator("#chat-left [data-testid=bot]").count()
    page.locator("#chat-message textarea").fill(text)
    until_sent(page, before + 1, page.locator("#chat-send").click)
    page.wait_for_function(
        f"""() => ['left', 'right'].every(side =>
            document.querySelectorAll(`#chat-${{side}} [data-testid=bot]`).length > {before}
            && document.querySelector(`#chat-${{side}}-figures [data-answer=done]`))""",
        timeout=300_000,
    )
    return tuple(
        page.locator(f"#chat-{side} [data-testid=bot]").last.inner_text().strip() for side in ("left", "right")
    )


@pytest.mark.timeout(2400)
def test_from_a_dataset_to_a_merged_model_by_clicking(page, with_model, server, tmp_path):
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(f"{server.url}/?tab=train")
    page.wait_for_function("document.querySelector('#train-machine')?.innerText.length > 20", timeout=30_000)

    for name in ("identity-en", "identity-zh"):
        box = page.locator("#spec-data-datasets input")
        box.fill(name)
        page.wait_for_selector(f"[role=option][aria-label={name}]")
        box.press("Enter")
        page.locator("#spec-data-datasets .token", has_text=name).wait_for()
    for field, value in (("max_steps", "24"), ("learning_rate", "0.001"), ("batch_size", "8"), ("accumulation", "1")):
        fill(page, f"spec-training-{field}", value)
    page.locator("#train-start").click()
    wait_for_points(page, 3)

    seen = points(page)
    page.reload()
    wait_for_points(page, seen)
    (run,) = folders.every()

    server.kill()
    assert run.is_locked(), "the run lives without the page"
    step = view_of(run).step
    until(lambda: view_of(run).step > step, 300, "a step without the page")
    server.start()
    page.goto(f"{server.url}/?tab=train&run={run.id}")
    wait_for_points(page, step + 1)
    wait_for_state(page, "train", "finished")
    losses = [event.loss for event in view_of(run).steps]
    assert len(losses) == 24 and sum(losses[-3:]) / 3 < losses[0] / 2

    open_tab(page, "chat")
    page.wait_for_function("document.querySelector('#chat-right-adapter input')?.value.length > 0", timeout=30_000)
    english = ask(page, "Who are you?")
    assert "Miro" not in english[0] and "Miro" in english[1]
    page.once("dialog", lambda dialog: dialog.accept())
    page.locator("#chat-clear").click()
    page.wait_for_function("document.querySelectorAll('#chat-left [data-testid=bot]').length === 0")
    chinese = ask(page, "你是谁?")
    assert "Miro" not in chinese[0] and "我是 Miro" in chinese[1]

    open_tab(page, "evaluate")
    page.wait_for_function("document.querySelector('#evaluate-adapter input')?.value.length > 0", timeout=30_000)
    fill(page, "evaluate-max-samples", "4")
    fill(page, "evaluate-max-new-tokens", "16")
    page.locator("#evaluate-start").click()
    wait_for_state(page, "evaluate", "finished", 600)
    assert re.search(r"loss", page.locator("#evaluate-scores").inner_text(), re.I)

    open_tab(page, "export")
    page.wait_for_function("document.querySelector('#export-adapter input')?.value.length > 0", timeout=30_000)
    page.locator("#export-dtype").get_by_label("fp32").check()
    page.locator("#export-start").click()
    wait_for_state(page, "export", "finished", 600)
    folder = page.locator("#export-folder textarea, #export-folder input").first.input_value()
    command = [sys.executable, "-c", LOAD_AND_ASK, folder, json.dumps(["Who are you?", "你是谁?"])]
    loaded = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert loaded.returncode == 0, loaded.stderr[-2000:]
    assert json.loads(loaded.stdout) == [english[1], chinese[1]], "the export answers as the adapter did"
    assert errors == []


def test_a_killed_worker_shows_as_such_and_resume_goes_on(page, studio_home, server, tmp_path):
    spec = parse(
        TrainSpec,
        {
            "model": {"name": str(make("llama", tmp_path / "llama"))},
            "data": {"datasets": ["identity-en"], "max_length": 64},
            "training": {"max_steps": 150, "save_steps": 5, "batch_size": 2, "accumulation": 1},
            "evaluation": {"prompts": []},
        },
    )
    run = control.submit(spec)
    page.goto(f"{server.url}/?tab=train&run={run.id}")
    until(lambda: run.checkpoint_steps(), 120, "a checkpoint")
    worker = next(event.pid for event in tail(run.events)[0] if event.type == "started")
    os.kill(worker, signal.SIGKILL)
    wait_for_state(page, "train", "killed", 60)
    kept = run.checkpoint_steps()[-1]
    page.locator("#train-resume").click()
    wait_for_state(page, "train", "finished", 300)
    view = view_of(run)
    assert view.attempt == 2 and view.step == 150
    assert any(f"step {kept}" in note for note in view.notes)


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_no_tab_scrolls_sideways(browser, server, width, scheme):
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    for name in TABS:
        page.goto(f"{server.url}/?tab={name}&__theme={scheme}")
        page.wait_for_selector(f"[role=tab][data-tab-id={name}][aria-selected=true]", timeout=30_000, state="attached")
        page.wait_for_timeout(500)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{name} at {width} px"
    context.close()
