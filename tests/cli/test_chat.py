"""`studio chat` against a server that is only a list of answers."""

import io
import json

import pytest

from studio.serving.voices import BASE
from tests.cli.test_cli import run
from tests.examples import finished_run
from tests.serving.fakes import FakeClient


def test_once_with_an_adapter_prints_base_and_adapter_one_after_the_other(studio_home, capsys):
    job = finished_run()
    client = FakeClient({BASE: ["I am", " a model."], job.id: ["I am", " Miro."]})
    status, out, err = run(capsys, "chat", "--adapter", job.id, "--once", "Who are you?", client=client)
    assert status == 0
    assert out == f"base: I am a model.\n{job.id}: I am Miro.\n"
    assert "2 tokens" in err


def test_once_with_json_prints_one_object_per_model(studio_home, capsys):
    job = finished_run()
    client = FakeClient({BASE: ["no"], job.id: ["yes"]})
    _, out, _ = run(capsys, "chat", "--adapter", job.id, "--once", "Hi", "--json", client=client)
    first, second = (json.loads(line) for line in out.splitlines())
    assert (first["model"], first["text"], first["tokens"]) == (BASE, "no", 1)
    assert (second["model"], second["text"]) == (job.id, "yes")


def test_the_base_of_the_run_is_asked_for_in_full_precision_unless_told_otherwise(studio_home, capsys):
    job = finished_run()
    client = FakeClient({BASE: ["a"], job.id: ["b"]})
    run(capsys, "chat", "--adapter", job.id, "--once", "Hi", client=client)
    run(capsys, "chat", "--adapter", job.id, "--once", "Hi", "--as-trained", client=client)
    assert [asked["quantization"] for asked in client.ensured] == ["none", "nf4"]


def test_a_conversation_is_kept_for_the_next_message(studio_home, capsys, monkeypatch):
    client = FakeClient({BASE: ["Hello."]})
    monkeypatch.setattr("sys.stdin", io.StringIO("one\n\ntwo\n/exit\nthree\n"))
    run(capsys, "chat", "--system", "Be brief.", client=client)
    assert [message["content"] for message in client.requests[-1][0][1]] == ["Be brief.", "one", "Hello.", "two"]


def test_the_system_text_of_the_run_is_used_where_none_is_given(studio_home, capsys):
    job = finished_run(sets=["template.system=You are Miro."])
    client = FakeClient({BASE: ["a"], job.id: ["b"]})
    run(capsys, "chat", "--adapter", job.id, "--once", "Hi", client=client)
    assert client.requests[-1][0][1][0] == {"role": "system", "content": "You are Miro."}


def test_an_error_of_the_server_ends_the_command_with_its_text(studio_home, capsys):
    client = FakeClient({}, error="Out of memory.")
    status, _, err = run(capsys, "chat", "--once", "Hi", client=client)
    assert status == 1
    assert "base: Out of memory." in err


def test_escape_sequences_from_a_model_do_not_steer_the_terminal(studio_home, capsys):
    client = FakeClient({BASE: ["\x1b[31mred"]})
    assert "\x1b" not in run(capsys, "chat", "--once", "Hi", client=client)[1]


@pytest.mark.parametrize("adapter", ["RUN@x", "RUN@7"])
def test_a_checkpoint_that_does_not_exist_is_refused(studio_home, capsys, adapter):
    job = finished_run()
    status, _, err = run(capsys, "chat", "--adapter", adapter.replace("RUN", job.id), "--once", "Hi")
    assert status == 1
    assert "checkpoint" in err or "RUN@STEP" in err


def test_each_phase_of_the_server_is_told_once(studio_home, capsys):
    client = FakeClient({BASE: ["a"]}, phases=("start", "start", "load", "load"))
    assert run(capsys, "chat", "--once", "Hi", client=client)[2].startswith("start…\nload…\n ")
