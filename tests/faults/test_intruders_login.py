"""A page that others can reach: nothing without the password, no guessing it, no taking over of a session."""

import asyncio
import re
from types import SimpleNamespace
from urllib.parse import quote

import httpx
import pytest
from typer.testing import CliRunner

import studio.cli
from studio.jobs.executors.replay import Replay
from studio.serving import gate as gates
from studio.ui import app, login
from tests.faults.test_intruders_sites import ROUTES

PASSWORD = "correct horse ☃"


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STUDIO_HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("STUDIO_PASSWORD", PASSWORD)
        served = app.serve(port=0, executor=Replay([]))
        yield served.url
        served.close()


def enter(url, password=PASSWORD, **more):
    return httpx.post(f"{url}/login", data={"username": "studio", "password": password}, **more)


@pytest.mark.parametrize(
    "cookie",
    ["", "x", "null", "studio-session-{port}=", "studio-session-{port}=x", "access-token=x", "access-token-unsecure=x"],
)
def test_without_a_session_no_route_answers(url, cookie):
    cookie = cookie.format(port=url.rpartition(":")[2])
    for method, route in ROUTES:
        if route == "/login" and method == "POST":
            continue
        answer = httpx.request(method, url + route, headers={"cookie": cookie}, content=b"{}")
        assert answer.status_code == 401, (method, route)
        assert "gradio" not in answer.text and "set-cookie" not in answer.headers


def test_what_is_open_before_the_log_in_tells_nothing(url):
    answer = httpx.get(f"{url}/gradio_api/startup-events")
    assert answer.text in ("true", "false")
    page = httpx.get(url, headers={"accept": "text/html"})
    assert page.status_code == 401 and "<form" in page.text and "gradio" not in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]


def test_with_the_password_the_page_and_scripts_come_in(url):
    from gradio_client import Client

    answer = enter(url)
    assert answer.json() == {"success": True}
    assert httpx.get(f"{url}/config", cookies=answer.cookies).status_code == 200
    assert Client(url, auth=("studio", PASSWORD), verbose=False).predict(api_name="/list_jobs") == []


def test_a_session_s_cookie_is_for_this_page_s_own_requests_only(url):
    plain = enter(url).headers["set-cookie"]
    assert "HttpOnly" in plain and "SameSite=strict" in plain and "Domain" not in plain
    assert len(re.match(r"studio-session-\d+=([^;]+)", plain)[1]) >= 43
    behind_tls = enter(url, headers={"x-forwarded-proto": "https"}).headers["set-cookie"]
    assert "Secure" in behind_tls


def test_two_sessions_have_different_tokens_and_a_given_one_is_not_kept(url):
    name = f"studio-session-{url.rpartition(':')[2]}"
    first, second = enter(url, cookies={name: "mine"}).cookies[name], enter(url).cookies[name]
    assert first != second and "mine" not in (first, second)
    assert httpx.get(f"{url}/config", cookies={name: "mine"}).status_code == 401


def test_logging_out_ends_the_session_itself(url):
    cookies = enter(url).cookies
    assert httpx.get(f"{url}/logout", cookies=cookies).status_code == 303
    assert httpx.get(f"{url}/config", cookies=cookies).status_code == 401


def test_a_page_with_a_password_has_a_way_out_and_one_without_has_none(url, studio_home):
    assert "logout" in httpx.get(f"{url}/config", cookies=enter(url).cookies).text
    assert 'href="logout"' not in str(app.build(executor=Replay([])).get_config_file())


def test_in_a_browser_the_form_says_what_is_wrong_and_leads_on(url):
    page = {"accept": "text/html", "accept-language": "zh"}
    wrong = enter(url, "<b>wrong", headers=page)
    assert wrong.status_code == 401 and "密码不对" in wrong.text and "<b>wrong" not in wrong.text
    right = enter(url, headers=page)
    assert right.status_code == 303 and right.headers["location"] == "./?lang=zh"


# --- guessing


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def door(clock):
    """A log-in of its own before nothing; door(password, address) -> the answer to a guess."""

    async def inside(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"inside"})

    gate = login.Login(inside, PASSWORD, clock)

    def guess(password, address="10.0.0.1"):
        return asyncio.run(_posted(gate, f"password={quote(password)}".encode(), address))

    guess.gate = gate
    return guess


async def _posted(gate, body, address="10.0.0.1"):
    """The answer to a form, spoken in ASGI itself, which is fast."""
    sent = []

    async def receive():
        return {"type": "http.request", "body": body}

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/login", "query_string": b"", "headers": [], "scheme": "http"}
    await gate(scope | {"client": (address, 1), "server": ("127.0.0.1", 7860)}, receive, send)
    return httpx.Response(sent[0]["status"], headers=sent[0]["headers"], content=sent[1]["body"])


def test_guessing_from_one_address_has_to_wait_and_the_right_guess_too(door, clock):
    assert [door(f"guess {n}").status_code for n in range(login.PER_ADDRESS)] == [401] * login.PER_ADDRESS
    for password in ("another", PASSWORD):
        answer = door(password)
        assert answer.status_code == 429 and "Try again in 300 s" in answer.json()["detail"]
        assert answer.headers["retry-after"] == "300" and "set-cookie" not in answer.headers
    assert door(PASSWORD, "10.0.0.2").status_code == 200
    clock.now += login.WINDOW_S
    assert door(PASSWORD).status_code == 200


def test_guessing_from_many_addresses_has_to_wait_too(door, clock):
    tries = [door(f"guess {n}", f"10.1.{n // 250}.{n % 250}").status_code for n in range(500)]
    assert tries == [401] * login.IN_ALL + [429] * (500 - login.IN_ALL)
    assert door(PASSWORD, "10.9.9.9").status_code == 429
    clock.now += login.WINDOW_S
    assert door(PASSWORD, "10.9.9.9").status_code == 200


def test_guessing_takes_no_memory(door):
    for n in range(300):
        door("guess", f"10.2.{n // 250}.{n % 250}")
    assert len(door.gate._guesses._wrong) == login.IN_ALL


def test_a_day_of_guessing_tries_few_passwords(door, clock):
    tried, end = 0, clock.now + 24 * 3600
    while clock.now < end:
        tried += door("guess", f"10.3.{tried % 250}.1").status_code == 401
        clock.now += 60
    assert tried < 24 * 3600 / login.WINDOW_S * login.IN_ALL


def test_sessions_end_when_they_are_not_used_and_their_number_is_bounded(clock):
    sessions = login.Sessions(clock)
    first = sessions.start()
    clock.now += login.SESSION_S - 1
    assert sessions.has(first)
    clock.now += login.SESSION_S + 1
    assert not sessions.has(first) and not sessions.has("")
    kept = sessions.start()
    clock.now += 1
    for _ in range(login.SESSIONS):
        sessions.start()
    assert not sessions.has(kept)
    assert len(sessions._used) == login.SESSIONS


@pytest.mark.parametrize("body", [b"", b"password=", b"password", b"\xff\xfe", b"password=a&password=b", b"%00", b"{}"])
def test_a_form_that_is_none_opens_nothing(door, body):
    assert asyncio.run(_posted(door.gate, body)).status_code == 401


def test_a_form_without_end_is_not_read_to_its_end(door):
    assert asyncio.run(_posted(door.gate, b"password=" + b"x" * 100_000)).status_code == 413


def test_web_sockets_are_closed_without_a_session(door):
    sent = []

    async def send(message):
        sent.append(message["type"])

    scope = {"type": "websocket", "path": "/ws", "query_string": b"", "headers": [], "server": ("x", 1)}
    asyncio.run(door.gate(scope, None, send))
    assert sent == ["websocket.close"]


# --- the password


def test_a_page_for_this_machine_alone_asks_for_none(monkeypatch):
    monkeypatch.delenv("STUDIO_PASSWORD", raising=False)
    assert login.password_for(private=True) == (None, False)
    monkeypatch.setenv("STUDIO_PASSWORD", "own")
    assert login.password_for(private=True) == login.password_for(private=False) == ("own", False)


@pytest.mark.parametrize("given", [None, ""])
def test_a_page_that_others_can_reach_makes_itself_a_long_password(monkeypatch, given):
    monkeypatch.delenv("STUDIO_PASSWORD", raising=False)
    if given is not None:
        monkeypatch.setenv("STUDIO_PASSWORD", given)
    first, second = login.password_for(private=False), login.password_for(private=False)
    assert first != second and first[1] and len(first[0]) >= 22


def test_a_made_up_password_is_printed_once_and_written_nowhere(studio_home, monkeypatch):
    monkeypatch.delenv("STUDIO_PASSWORD", raising=False)
    monkeypatch.setenv("STUDIO_HOSTS", "studio.example.org")  # so that no other address is bound in a test
    served = []
    serve = app.serve

    def once(*arguments, **options):
        served.append(serve("127.0.0.1", 0, executor=Replay([])))
        return served[0]

    def interrupt(seconds):
        assert httpx.get(f"{served[0].url}/config").status_code == 401
        assert enter(served[0].url, served[0].password).status_code == 200
        raise KeyboardInterrupt

    monkeypatch.setattr(app, "serve", once)
    monkeypatch.setattr(app, "time", SimpleNamespace(sleep=interrupt))
    monkeypatch.setattr("studio.jobs.executors.local.warm", lambda: None)
    printed = CliRunner().invoke(studio.cli.app, ["ui", "--no-browser"], catch_exceptions=False).output
    password = served[0].password
    assert printed.count(password) == 1 and password not in repr(served[0])
    assert all(password.encode() not in path.read_bytes() for path in studio_home.rglob("*") if path.is_file())


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "workstation.example.org"])
def test_no_page_that_others_can_reach_goes_without_a_password(host):
    assert not gates.is_private(host)
