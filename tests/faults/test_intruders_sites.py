"""Other web sites, and names that were pointed at this machine: whatever route they ask for, they are refused."""

import asyncio
import json

import pytest

from studio.serving import gate as gates
from studio.serving.gate import SameSite
from tests.faults.intruder import API

ROUTES = [
    ("GET", "/"),
    ("GET", "/config"),
    ("GET", f"{API}/info"),
    ("GET", f"{API}/file=/etc/passwd"),
    ("GET", f"{API}/heartbeat/abc"),
    ("GET", f"{API}/queue/data?session_hash=abc"),
    ("GET", f"{API}/upload_progress?upload_id=abc"),
    ("GET", "/assets/index.js"),
    ("GET", "/login"),
    ("GET", "/logout"),
    ("POST", f"{API}/queue/join"),
    ("POST", f"{API}/call/start_training"),
    ("POST", f"{API}/run/list_jobs"),
    ("POST", f"{API}/api/list_jobs"),
    ("POST", f"{API}/component_server"),
    ("POST", f"{API}/upload"),
    ("POST", f"{API}/cancel"),
    ("POST", f"{API}/reset"),
    ("POST", "/login"),
    ("PUT", "/"),
    ("DELETE", f"{API}/upload"),
]


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "evil.example:80",
                                  "", "127.0.0.1@evil.example", "[::1", "0.0.0.0", "169.254.169.254"])  # fmt: skip
def test_f69_a_name_that_was_pointed_here_is_refused_on_every_route(intruder, host):
    for method, route in ROUTES:
        answer = intruder.http.request(method, route, headers={"host": host}, content=b"{}")
        assert answer.status_code == 400, (method, route)
        assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    "origin",
    [
        "null", "", "http://evil.example", "https://evil.example", "http://127.0.0.1:1", "http://localhost",
        "http://127.0.0.1.evil.example", "file://", "chrome-extension://abc", "http://[::1",
    ],
)  # fmt: skip
def test_f69_a_foreign_or_null_origin_is_refused_on_every_route(intruder, origin):
    for method, route in ROUTES:
        answer = intruder.http.request(method, route, headers={"origin": origin}, content=b"{}")
        assert answer.status_code == 403, (method, route)
        assert answer.headers.get("access-control-allow-origin") != origin or answer.status_code == 403


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
@pytest.mark.parametrize(("mode", "dest"), [("no-cors", "script"), ("no-cors", "image"), ("cors", "empty"),
                                            ("navigate", "iframe"), ("navigate", "embed")])  # fmt: skip
def test_f69_what_a_page_of_another_site_loads_is_refused(intruder, site, mode, dest):
    headers = {"sec-fetch-site": site, "sec-fetch-mode": mode, "sec-fetch-dest": dest}
    for method, route in ROUTES:
        assert intruder.http.request(method, route, headers=headers, content=b"{}").status_code == 403, route


def test_f69_a_link_on_another_site_opens_the_page_and_nothing_else(intruder):
    headers = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    assert intruder.http.get("/", headers=headers).status_code == 200
    for method, route in ROUTES[1:]:
        if route not in ("/login", "/logout") or method != "GET":
            assert intruder.http.request(method, route, headers=headers, content=b"{}").status_code == 403, route


def test_f69_a_second_host_or_origin_is_refused():
    gate, own = SameSite(_let_in), ("host", "localhost")
    assert asyncio.run(_asked(gate, own)) == 200
    assert asyncio.run(_asked(gate, own, ("host", "localhost"))) == 400
    assert asyncio.run(_asked(gate, own, ("origin", "http://localhost"), ("origin", "null"))) == 403


def test_f69_a_preflight_lets_no_other_site_in(intruder):
    for origin in ("http://evil.example", "null"):
        asked = {"origin": origin, "access-control-request-method": "POST"}
        answer = intruder.http.options(f"{API}/component_server", headers=asked)
        assert answer.headers.get("access-control-allow-origin") not in (origin, "*")


def test_f69_the_page_stands_in_no_frame_and_takes_nothing_from_elsewhere(intruder):
    headers = intruder.http.get("/").headers
    assert headers["x-frame-options"] == "DENY"
    assert headers["x-content-type-options"] == "nosniff"
    policy = headers["content-security-policy"]
    assert "frame-ancestors 'none'" in policy
    assert "http" not in policy


@pytest.mark.parametrize(
    ("host", "origin", "let_in"),
    [
        ("127.0.0.1:7860", "http://evil.example", False),
        ("127.0.0.1:7860", "null", False),
        ("evil.example", "http://evil.example", False),
        ("127.0.0.1:7860", "http://127.0.0.1:7860", True),
    ],
)
def test_f69_web_sockets_are_looked_at_like_everything_else(host, origin, let_in):
    reached, sent = [], []

    async def page(scope, receive, send):
        reached.append(scope)

    async def send(message):
        sent.append(message["type"])

    headers = [(b"host", host.encode()), (b"origin", origin.encode())]
    scope = {"type": "websocket", "path": "/ws", "query_string": b"", "headers": headers}
    asyncio.run(SameSite(page)(scope, None, send))
    assert (bool(reached), sent) == (let_in, [] if let_in else ["websocket.close"])


def test_f69_away_from_loopback_names_count_too(monkeypatch):
    """An address cannot be pointed elsewhere; a name can, so it must be this machine's or one that was allowed."""
    monkeypatch.setattr(gates.socket, "gethostname", lambda: "workstation")
    monkeypatch.setenv("STUDIO_HOSTS", "studio.example.org, ")
    allowed = {"0.0.0.0": ["workstation", "192.168.1.5", "studio.example.org", "localhost", "[2001:db8::1]:7860"]}
    for bound, names in allowed.items():
        for name in [*names, "evil.example", "workstation.evil.example"]:
            gate = SameSite(_let_in, hosts=gates.names(bound), addresses=not gates.is_loopback(bound))
            assert asyncio.run(_asked(gate, ("host", name))) == (200 if name in names else 400)


async def _let_in(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})


async def _asked(gate, *headers):
    sent = []

    async def send(message):
        sent.append(message)

    sent_along = [(name.encode(), value.encode()) for name, value in headers]
    scope = {"type": "http", "method": "GET", "path": "/", "headers": sent_along}
    await gate(scope, None, send)
    return sent[0]["status"]


def test_f69_nothing_was_started_by_any_of_it(intruder):
    assert json.loads(intruder.call("list_jobs").text) == [[]]
