import httpx
import pytest

from studio.serving import gate
from studio.ui import app


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STUDIO_HOME", str(tmp_path_factory.mktemp("home")))
        patch.delenv("STUDIO_PASSWORD", raising=False)
        served = app.serve(port=0)
        yield served
        served.close()


def test_the_page_itself_is_served(served):
    assert httpx.get(served.url).status_code == 200


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:1", "http://localhost.evil.example"]
)
@pytest.mark.parametrize("path", ["/gradio_api/component_server", "/gradio_api/queue/join", "/gradio_api/upload", "/"])
def test_posts_from_another_origin_are_refused(served, origin, path):
    assert httpx.post(served.url + path, headers={"origin": origin}, content=b"{}").status_code == 403


def test_a_form_sent_across_sites_without_an_origin_is_refused(served):
    headers = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors", "content-type": "text/plain"}
    answer = httpx.post(served.url + "/gradio_api/component_server", headers=headers, content=b"{}")
    assert answer.status_code == 403


def test_the_page_s_own_origin_and_scripts_without_one_pass(served):
    own = httpx.post(served.url + "/gradio_api/queue/join", headers={"origin": served.url}, json={})
    script = httpx.post(served.url + "/gradio_api/queue/join", json={})
    assert own.status_code == script.status_code != 403


def test_a_name_that_was_pointed_at_this_machine_is_refused(served):
    assert httpx.get(served.url, headers={"host": "evil.example"}).status_code == 400
    assert httpx.get(served.url, headers={"host": "localhost:7860"}).status_code == 200
    assert httpx.get(served.url, headers={"host": "[::1]:7860"}).status_code == 200


def test_files_outside_the_exports_are_not_handed_out(served, tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    assert httpx.get(f"{served.url}/gradio_api/file={secret}").status_code in (403, 404)
    assert httpx.get(f"{served.url}/gradio_api/file=/etc/passwd").status_code in (403, 404)


def test_a_web_socket_from_another_origin_is_closed():
    import asyncio

    sent = []

    async def inner(scope, receive, send):
        raise AssertionError("reached the page")

    async def send(message):
        sent.append(message)

    scope = {"type": "websocket", "headers": [(b"host", b"127.0.0.1:7860"), (b"origin", b"http://evil.example")]}
    asyncio.run(gate.SameSite(inner)(scope, None, send))
    assert sent == [{"type": "websocket.close", "code": 1008, "reason": "Requests from another site are refused."}]


@pytest.mark.parametrize(("host", "private"), [("127.0.0.1", True), ("localhost", True), ("[::1]", True),
    ("0.0.0.0", False), ("192.168.1.5", False), ("", False)])  # fmt: skip
def test_a_page_is_private_on_loopback_only(monkeypatch, host, private):
    monkeypatch.delenv("STUDIO_HOSTS", raising=False)
    assert gate.is_private(host) is private
    monkeypatch.setenv("STUDIO_HOSTS", "studio.example.org")  # a proxy brings others here
    assert not gate.is_private(host)


def test_a_page_with_a_password_shows_nothing_without_it(studio_home, monkeypatch):
    monkeypatch.setenv("STUDIO_PASSWORD", "a good one")
    served = app.serve(port=0)
    try:
        assert httpx.get(f"{served.url}/config").status_code == 401
        assert httpx.post(f"{served.url}/gradio_api/queue/join", json={}).status_code == 401
    finally:
        served.close()
