"""`studio serve`: what it asks of the server, and the real one from the shell to Ctrl+C."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from types import SimpleNamespace

import openai
import pytest

from studio.serving import server
from studio.serving.address import Address
from tests.cli.test_cli import run
from tests.engine.conftest import make

PATIENCE_S = 90


class Client:
    def __init__(self, address=None):
        self.address, self.stopped = address, 0

    def running(self):
        return self.address

    def stop(self):
        self.stopped += 1


@pytest.fixture
def served(monkeypatch, studio_home):
    """What the server was asked to do."""
    monkeypatch.delenv("STUDIO_TOKEN", raising=False)
    calls = []
    monkeypatch.setattr(server, "serve", lambda base, quantization, **more: calls.append((base, quantization, more)))
    return calls


def test_it_serves_the_bundled_model_on_loopback_until_it_is_ended(served, capsys):
    status, _, _ = run(capsys, "serve", client=Client())
    assert status == 0
    ((base, quantization, more),) = served
    assert (base, quantization) == ("smollm2-135m-instruct", "none")
    assert (more["host"], more["port"], more["token"]) == ("127.0.0.1", 8000, None) and "idle_s" not in more


@pytest.mark.parametrize(("host", "told"), [("127.0.0.1", False), ("0.0.0.0", True), ("192.168.1.5", True)])
def test_who_can_be_reached_by_others_is_told_that_the_key_travels_unencrypted(served, capsys, host, told):
    run(capsys, "serve", "--host", host, client=Client())
    served[0][2]["told"](Address("http://127.0.0.1:8000", "the-key", "base"), SimpleNamespace(ready=False, error="no"))
    said = capsys.readouterr().err
    assert "the-key" in said and ("unencrypted" in said) is told


def test_another_server_is_named_and_ended_only_when_asked(served, capsys):
    other = Client(Address("http://127.0.0.1:4711", "t", "their-base"))
    status, _, err = run(capsys, "serve", client=other)
    assert status == 1 and "holds their-base at http://127.0.0.1:4711" in err and "--replace" in err
    assert not served and not other.stopped
    status, _, _ = run(capsys, "serve", "--replace", client=other)
    assert status == 0 and other.stopped == 1 and len(served) == 1


def test_a_key_of_your_own_must_be_long(served, capsys, monkeypatch):
    monkeypatch.setenv("STUDIO_TOKEN", "short")
    status, _, err = run(capsys, "serve", client=Client())
    assert status == 1 and "STUDIO_TOKEN has 5 characters. Choose at least 16" in err and not served
    monkeypatch.setenv("STUDIO_TOKEN", "a-key-that-is-long-enough")
    run(capsys, "serve", client=Client())
    assert served[0][2]["token"] == "a-key-that-is-long-enough"


def test_an_unknown_quantisation_is_refused_before_anything_ends(served, capsys):
    other = Client(Address("http://127.0.0.1:4711", "t", "their-base"))
    status, _, err = run(capsys, "serve", "--quantization", "nf5", "--replace", client=other)
    assert status == 1 and "nf4" in err and not other.stopped and not served


def test_a_port_that_is_taken_is_told_in_words(studio_home):
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(server.ServingError, match="another port"):
        server.serve("base", port=taken.getsockname()[1])


def test_an_address_that_others_reach_goes_by_its_own_names():
    scheduler = SimpleNamespace(ready=True, phase="ready", error=None)
    from starlette.testclient import TestClient

    token = {"Authorization": "Bearer t"}
    for host, name, status in (
        ("127.0.0.1", "192.168.1.5", 400),
        ("0.0.0.0", "192.168.1.5", 200),
        ("0.0.0.0", "evil.example", 400),
    ):
        http = TestClient(server.application(scheduler, "t", host), f"http://{name}", headers=token)
        assert http.get("/health").status_code == status, (host, name)


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_the_command_serves_openais_client_and_ends_at_ctrl_c(studio_home, tmp_path):
    base = make("llama", tmp_path / "base")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if name != "STUDIO_TOKEN"}
    process = subprocess.Popen(
        [sys.executable, "-m", "studio", "serve", "--model", str(base), "--port", str(port)],
        env=environment | {"STUDIO_HOME": str(studio_home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    stuck = threading.Timer(PATIENCE_S, process.kill)
    stuck.start()
    try:
        said = ""
        while "Models" not in said:
            line = process.stdout.readline()
            assert line, said
            said += line
        assert f"http://127.0.0.1:{port}/v1" in said
        key = re.search(r"API key +(\S+)", said)[1]
        with openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=key, max_retries=0) as client:
            assert [each.id for each in client.models.list()] == ["base"]
            answer = client.completions.create(model="base", prompt="Hello", max_tokens=3)
            assert answer.usage.completion_tokens <= 3
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) == 0, process.stdout.read()
    finally:
        stuck.cancel()
        process.kill()
        process.wait()
    assert not (studio_home / "run" / "chat.json").exists()
