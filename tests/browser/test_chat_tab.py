import pytest

from studio.serving.voices import BASE
from studio.ui import app
from tests.browser.choosing import choose
from tests.browser.talking import until_sent, whole
from tests.examples import finished_run
from tests.serving.fakes import FakeClient
from tests.ui.recorded import HOSTILE


@pytest.fixture
def client():
    return FakeClient({BASE: ["I am ", "a model. ", HOSTILE]}, pause_s=0.05, phases=("start", "load"))


@pytest.fixture
def run(studio_home, client):
    """A finished run on the bundled base; the older one has another base."""
    other = finished_run("other", sets=["model.name=some/other-model"])
    run = finished_run("identity", checkpoints=[12], sets=["template.system=You are Miro."])
    client.answers |= {run.id: ["I am ", "Miro.\n", "    indented"], f"{run.id}@12": ["Early."], other.id: ["Other."]}
    return run.id


@pytest.fixture
def chat(page, run, client):
    served = app.serve(port=0, client=client)
    page.goto(f"{served.url}/?tab=chat")
    page.wait_for_function("document.querySelector('#chat-right-adapter input')?.value.length > 0", timeout=30_000)
    yield page
    served.close()


def send(page, text):
    page.locator("#chat-message textarea").fill(text)
    page.locator("#chat-send").click()


def answer(page, side, text):
    page.locator(f"#chat-{side} [data-testid=bot]", has_text=text).last.wait_for(timeout=15_000)


def test_base_and_newest_run_answer_side_by_side_with_their_speed(chat, client, run):
    assert chat.locator("#chat-left-adapter input").input_value() == "The base alone"
    assert chat.locator("#chat-right-adapter input").input_value() == run
    send(chat, "Who are you?")
    answer(chat, "left", "a model.")
    answer(chat, "right", "Miro.")
    chat.wait_for_selector("#chat-right-figures [data-tokens='3']")
    assert "tokens/s" in chat.locator("#chat-left-figures").inner_text()
    assert [model for model, _ in client.requests[0]] == [BASE, run]
    assert all(messages[0]["content"] == "You are Miro." for _, messages in client.requests[0])


def test_what_a_model_writes_is_shown_as_text(chat):
    send(chat, HOSTILE)
    answer(chat, "left", HOSTILE)
    assert chat.locator("#chat-left .user").inner_text() == HOSTILE
    assert chat.locator("#chat-left img").count() == 0
    assert chat.title() == "Finetune Studio"
    answer(chat, "right", "indented")
    assert chat.locator("#chat-right .bot").text_content() == "I am Miro.\n    indented"


def test_the_conversation_goes_on_and_is_cleared_after_a_question(chat, client):
    send(chat, "one")
    answer(chat, "right", "indented")
    whole(chat)
    chat.locator("#chat-message textarea").fill("two")
    until_sent(chat, 2, lambda: chat.keyboard.press("Enter"))
    chat.wait_for_function("document.querySelectorAll('#chat-right .bot').length === 2")
    whole(chat)
    sent = [turn["content"] for turn in client.requests[1][1][1]]
    assert sent[1:] == ["one", "I am Miro.\n    indented", "two"]
    chat.once("dialog", lambda dialog: dialog.dismiss())
    chat.locator("#chat-clear").click()
    chat.wait_for_timeout(500)
    assert chat.locator("#chat-left .turn").count() == 4
    chat.once("dialog", lambda dialog: dialog.accept())
    chat.locator("#chat-clear").click()
    chat.wait_for_function("document.querySelectorAll('.talk .turn').length === 0")


def test_stop_ends_both_answers_and_keeps_what_was_said(chat, client, run):
    client.pause_s = 0.3
    client.answers |= {BASE: ["word "] * 100, run: ["word "] * 100}
    send(chat, "Go on")
    answer(chat, "right", "word word")
    chat.locator("#chat-stop").click()
    chat.wait_for_timeout(800)
    said = chat.locator("#chat-right .bot").text_content()
    chat.wait_for_timeout(900)
    assert chat.locator("#chat-right .bot").text_content() == said
    assert client.closed == 1


def test_a_checkpoint_can_be_compared_with_the_finished_run(chat, client, run):
    choose(chat, "#chat-left-adapter", f"{run} · step 12")
    send(chat, "Hi")
    answer(chat, "left", "Early.")
    assert [model for model, _ in client.requests[0]] == [f"{run}@12", run]


def test_two_runs_on_different_bases_are_refused_with_both_named(chat, client):
    choose(chat, "#chat-left-adapter", "other-", exact=False)
    chat.wait_for_function("document.querySelector('#chat-base input').value === 'some/other-model'")
    send(chat, "Hi")
    chat.wait_for_function("document.querySelector('#chat-status').innerText.includes('was trained on')")
    assert client.requests == []
    assert chat.locator("#chat-message textarea").input_value() == "Hi"


def test_a_server_that_cannot_start_says_so_and_gives_the_message_back(chat, client):
    client.down = "The base did not load. <b>Its log</b> is chat.log."
    send(chat, "Hello?")
    chat.wait_for_function("document.querySelector('#chat-status').innerText.includes('<b>Its log</b>')")
    assert chat.locator("#chat-message textarea").input_value() == "Hello?"


def test_the_base_is_in_full_precision_unless_it_shall_be_as_trained(chat, client):
    send(chat, "Hi")
    answer(chat, "right", "Miro.")
    chat.get_by_label("As in training (nf4)").check()
    send(chat, "Hi")
    chat.wait_for_function("document.querySelectorAll('#chat-right .bot').length === 2")
    assert [asked["quantization"] for asked in client.ensured] == ["none", "nf4"]


def test_sampling_reaches_the_server_and_a_wrong_value_is_named(chat, client):
    chat.locator("#chat-more > button").click()
    chat.wait_for_timeout(500)  # what is typed while the fold still opens may be lost
    chat.locator("#chat-temperature input").fill("0.7")
    chat.keyboard.press("Tab")
    chat.locator("#chat-system textarea").fill("Be brief.")
    send(chat, "Hi")
    answer(chat, "right", "Miro.")
    assert client.samplings[0].temperature == 0.7
    assert client.samplings[0].seed is None
    assert client.requests[0][0][1][0]["content"] == "Be brief."
    chat.locator("#chat-top_p input").fill("7")
    send(chat, "Hi")
    chat.wait_for_function("document.querySelector('#chat-status').innerText.includes('top_p: must be at most 1')")
