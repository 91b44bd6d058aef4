"""The chat server: on this machine only, behind its token, for no web page, and within bounds."""

import json
import os
import stat

import pytest
from starlette.testclient import TestClient

from studio.serving import server
from studio.serving.address import Address, address_file
from tests.serving.test_server import HELLO, HERE, ROUTES, TOKEN, FakeScheduler


@pytest.fixture
def scheduler():
    return FakeScheduler()


@pytest.fixture
def http(scheduler):
    return TestClient(server.application(scheduler, TOKEN), HERE, headers={"Authorization": f"Bearer {TOKEN}"})


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "0.0.0.0", "[::1"])
def test_f69_another_name_is_refused_on_every_route_even_with_the_token(http, scheduler, host):
    for method, route in ROUTES:
        assert http.request(method, route, headers={"host": host}, json=HELLO).status_code == 400
    assert not scheduler.asked and not scheduler.ended


@pytest.mark.parametrize("origin", ["null", "http://evil.example", "http://127.0.0.1:7860", "http://localhost", ""])
def test_f69_a_web_page_is_refused_on_every_route_even_with_the_token(http, scheduler, origin):
    for method, route in ROUTES:
        assert http.request(method, route, headers={"origin": origin}, json=HELLO).status_code == 403
    for site in ("cross-site", "same-site"):
        assert http.post("/shutdown", headers={"sec-fetch-site": site}).status_code == 403
    assert not scheduler.asked and not scheduler.ended


def test_a_preflight_lets_no_page_in(http):
    answer = http.options("/v1/chat/completions", headers={"access-control-request-method": "POST"})
    assert answer.status_code == 405 and "access-control-allow-origin" not in answer.headers


def test_f20_a_request_that_is_too_large_is_refused_with_and_without_its_length(http, scheduler):
    large = b'{"messages": [{"role": "user", "content": "' + b"x" * server.BODY_BYTES + b'"}]}'
    assert http.post("/v1/chat/completions", content=large).status_code == 413
    parts = (large[at : at + 65_536] for at in range(0, len(large), 65_536))
    assert http.post("/v1/chat/completions", content=parts).status_code == 413
    assert not scheduler.asked


@pytest.mark.parametrize("length", ["-1", "x", "1e9", "9" * 40, "0x10", "²"])
def test_a_length_that_is_none_is_refused(http, scheduler, length):
    answer = http.post("/v1/chat/completions", content=b"{}", headers={"content-length": length.encode()})
    assert answer.status_code in (400, 413) and not scheduler.asked


@pytest.mark.parametrize("model", ["../outside", "/etc/passwd", "base/../x", "a\0b", "x" * 5000, "run@../1", "run@²"])
def test_f22_no_name_of_a_model_leads_out(studio_home, model):
    from studio.serving.scheduler import Scheduler

    (studio_home.parent / "outside").mkdir()
    (studio_home.parent / "outside" / "job.json").write_text('{"kind": "train", "name": "x", "created": 1}')
    with pytest.raises(Exception, match="Unknown job|not a training run") as raised:
        Scheduler("base", "none")._add(model)
    assert type(raised.value).__module__ == "studio.errors"


def test_it_listens_on_this_machine_only_and_keeps_its_token_to_its_owner(studio_home, monkeypatch):
    """The whole of main(), with a server that looks instead of serving."""
    seen = {}

    class Looking:
        def __init__(self, config):
            seen["config"] = config

        def run(self, sockets):
            seen["bound"] = [each.getsockname()[0] for each in sockets]
            seen["mode"] = stat.S_IMODE(address_file().stat().st_mode)
            seen["address"] = Address(**json.loads(address_file().read_text()))

    monkeypatch.setattr(server.uvicorn, "Server", Looking)
    monkeypatch.setattr(server, "Scheduler", lambda *_: type("Idle", (FakeScheduler,), {
        "start": lambda self: None, "join": lambda self, seconds: None, "idle_s": server.IDLE_S})())  # fmt: skip
    monkeypatch.setattr(server.sys, "argv", ["server"])
    mask = os.umask(0o022)
    try:
        assert server.main() == 0
    finally:
        os.umask(mask)
    assert seen["bound"] == ["127.0.0.1"] and seen["mode"] == 0o600
    assert len(seen["address"].token) >= 32 and seen["config"].limit_concurrency == server.CONNECTIONS
    assert not seen["config"].proxy_headers and not address_file().exists()
