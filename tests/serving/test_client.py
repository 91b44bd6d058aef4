"""What the client makes of answers that another server, or a broken one, could give; and of stale addresses."""

import asyncio
import json
import threading
from contextlib import aclosing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from filelock import FileLock

from studio.errors import ServingError
from studio.home import home, write_atomically
from studio.serving import address as addresses
from studio.serving import client
from studio.serving.address import Address
from studio.specs import Sampling

MESSAGES = [{"role": "user", "content": "Hello"}]
DONE = "data: [DONE]\n\n"


def chunk(**delta):
    return "data: " + json.dumps({"choices": [{"index": 0, "delta": delta}]}) + "\n\n"


class Host:
    """A server on the loopback interface that answers every path from a table: (status, text)."""

    def __init__(self, pages):
        self.asked = []
        host = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                host.asked.append((self.path, self.headers.get("authorization"), body))
                status, text = pages.get(self.path, (404, "not here"))
                self.send_response(status)
                self.end_headers()
                self.wfile.write(text.encode())

            do_POST = do_GET

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()
        self.address = Address(f"http://127.0.0.1:{self.server.server_port}", "s3same", "m")

    def close(self):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def host():
    hosts = []

    def make(**pages):
        hosts.append(Host({"/" + path.replace("__", "/"): page for path, page in pages.items()}))
        return hosts[-1]

    yield make
    for each in hosts:
        each.close()


def listen(address, columns=1, sampling=None):
    async def collect():
        requests = [("base", MESSAGES)] * columns
        async with aclosing(client.stream(address, requests, sampling or Sampling())) as deltas:
            return [delta async for delta in deltas]

    return asyncio.run(asyncio.wait_for(collect(), 20))


def test_the_request_carries_token_messages_and_only_what_is_set(host):
    server = host(v1__chat__completions=(200, DONE))
    listen(server.address, sampling=Sampling(temperature=0.5))
    ((path, token, body),) = server.asked
    sent = json.loads(body)
    assert path == "/v1/chat/completions" and token == "Bearer s3same"
    assert sent["stream"] is True and sent["messages"] == MESSAGES and sent["temperature"] == 0.5 and "seed" not in sent


def test_answers_of_other_openai_compatible_servers_are_read(host):
    """They begin with a role, write null for no text, and end with figures and no choice."""
    told = chunk(role="assistant", content=None) + chunk(content="Hel") + ": keep-alive\n\n" + chunk(content="lo")
    figures = "data: " + json.dumps({"choices": [], "usage": {"completion_tokens": 2}}) + "\n\n"
    deltas = listen(host(v1__chat__completions=(200, told + figures + DONE)).address)
    assert "".join(delta.text for delta in deltas) == "Hello"
    assert (deltas[-1].done, deltas[-1].error, deltas[-1].tokens) == (True, None, 2)


@pytest.mark.parametrize(
    ("page", "words"),
    [
        ((200, chunk(content="Hel")), "ended in the middle"),
        ((200, "data: {\n\n"), "not that of a chat server"),
        ((200, "data: []\n\n"), "not that of a chat server"),
        ((200, 'data: {"choices": [1]}\n\n'), "not that of a chat server"),
        ((200, 'data: {"choices": null}\n\n'), "not that of a chat server"),
        ((200, 'data: {"error": {"message": "The run is gone."}}\n\n'), "The run is gone."),
        ((200, 'data: {"error": "odd"}\n\n'), "not that of a chat server"),
        ((400, '{"error": {"message": "Unknown job."}}'), "Unknown job."),
        ((500, "Internal Server Error"), "Internal Server Error"),
        ((502, ""), "refused the request"),
    ],
)
def test_every_column_ends_whatever_the_server_says(host, page, words):
    deltas = listen(host(v1__chat__completions=page).address, columns=2)
    ends = {delta.column: delta.error for delta in deltas if delta.done}
    assert set(ends) == {0, 1} and all(words in error for error in ends.values())


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "nonsense"])
def test_a_server_that_is_gone_is_an_error_of_each_column(url):
    deltas = listen(Address(url, "t", "m"), columns=2)
    assert [delta.done for delta in deltas] == [True, True] and all("went away" in delta.error for delta in deltas)


@pytest.mark.parametrize("page", [(200, "[]"), (200, '{"data": [1]}'), (200, "<html>"), (401, "{}")])
def test_names_that_cannot_be_read_are_an_error_in_words(host, page):
    with pytest.raises(ServingError, match="does not answer"):
        client.models(host(v1__models=page).address)


@pytest.mark.parametrize("text", ["", "{", "[]", '"x"', '{"url": "http://127.0.0.1:1"}', "\x00"])
def test_an_address_file_that_is_damaged_is_no_server(studio_home, text):
    addresses.address_file().write_text(text)
    assert addresses.read() is None and client.running() is None
    client.stop()


@pytest.mark.parametrize("page", [(200, "[]"), (200, '{"ready": true}'), (200, "<html>"), (404, "")])
def test_a_stranger_at_a_stale_address_is_no_chat_server(studio_home, host, page):
    server = host(health=page)
    write_atomically(addresses.address_file(), server.address.to_json())
    assert client.running() is None
    client.stop()


@pytest.mark.parametrize(("error", "runs"), [(None, True), ("no memory", False)])
def test_a_server_that_failed_to_load_is_not_running(studio_home, host, error, runs):
    server = host(health=(200, json.dumps({"ready": False, "phase": "load", "error": error})))
    write_atomically(addresses.address_file(), server.address.to_json())
    assert (client.running() == server.address) is runs


def test_a_server_that_does_not_end_is_told_and_the_base_not_loaded_twice(studio_home, monkeypatch):
    monkeypatch.setattr(client, "END_S", 0.1)
    with FileLock(addresses.lock_file()), pytest.raises(ServingError, match="does not end"):
        client.ensure("m")


def test_a_load_that_another_waits_for_is_not_waited_for_without_end(studio_home, monkeypatch):
    monkeypatch.setattr(client, "LOAD_S", 0.1)
    with FileLock(home().run / "ensure.lock"), pytest.raises(ServingError, match="Another base has been loading"):
        client.ensure("m")


def test_a_bug_in_one_column_is_raised_and_nobody_waits_for_ever(monkeypatch):
    async def buggy(*_):
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(client, "_ask", buggy)
    with pytest.raises(ZeroDivisionError):
        listen(Address("http://127.0.0.1:1", "t", "m"), columns=2)


def test_the_speed_counts_from_the_first_token():
    delta = client.Delta(0, tokens=11, seconds=3.0, first_token_s=1.0)
    assert delta.tokens_per_s == 5.0 and client.Delta(0, tokens=1, seconds=1.0).tokens_per_s is None
