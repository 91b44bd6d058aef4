"""Routes: gradio has many, the page needs few; and no file comes out but exports and what the page itself needs."""

import re
from urllib.parse import quote

import pytest

import studio.ui.app
from studio.ui.charts import PLOTLY
from studio.ui.security import is_open
from tests.faults.intruder import API, MARKER

CLOSED = [
    "/docs", "/redoc", "/openapi.json", "/monitoring", "/monitoring/summary", "/monitoring/x", "/pwa_icon", "/login",
    f"{API}/proxy=http://127.0.0.1:9/", f"{API}/token", f"{API}/dev/reload", f"{API}/runs", f"{API}/deep_link",
    f"{API}/stream/a/b/1/playlist.m3u8", f"{API}/stream/a/b/1/playlist-file", f"{API}/stream/a/b/1/c.ts",
    f"{API}/file/etc/passwd", f"{API}/custom_component/a/client/component/style.css", f"{API}/vibe-code",
    f"{API}/process_recording", f"{API}/profiling/traces", f"{API}/mcp", f"{API}/mcp/sse", f"{API}/run-history/records",
    "/?deep_link=abc", "/config?deep_link=abc", f"{API}/deep_link?session_hash=abc", "/nothing",
]  # fmt: skip

CLOSED_OF_GRADIO = {
    "/docs", "/docs/oauth2-redirect", "/redoc", "/openapi.json", "/login", "/logout", "/{page}", "/{page}/",
    "/gradio_api/deep_link", "/pwa_icon", "/pwa_icon/{size}", "/monitoring", "/monitoring/summary", "/monitoring/{key}",
    f"{API}/token", f"{API}/dev/reload", f"{API}/runs",
    f"{API}/custom_component/{{id}}/{{environment}}/{{type}}/{{file_name}}",
    f"{API}/proxy={{url_path:path}}", f"{API}/stream/{{event_id}}", f"{API}/stream/{{event_id}}/close",
    f"{API}/stream/{{session_hash}}/{{run}}/{{component_id}}/playlist.m3u8",
    f"{API}/stream/{{session_hash}}/{{run}}/{{component_id}}/{{segment_id}}.{{ext}}",
    f"{API}/stream/{{session_hash}}/{{run}}/{{component_id}}/playlist-file", f"{API}/file/{{path:path}}",
    f"{API}/process_recording", f"{API}/vibe-edit", f"{API}/undo-vibe-edit", f"{API}/vibe-code",
    f"{API}/vibe-starter-queries",
}  # fmt: skip


@pytest.mark.parametrize("route", CLOSED)
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
def test_what_the_page_does_not_need_is_not_there(intruder, method, route):
    assert intruder.http.request(method, route).status_code == 404


def test_every_route_of_gradio_was_decided_on(studio_home, monkeypatch):
    """A newer gradio's new routes are closed until somebody has looked at them."""
    seen, close = [], studio.ui.app.gr.Blocks.close
    monkeypatch.setattr(
        studio.ui.app.gr.Blocks, "close", lambda self, verbose: seen.append(self) or close(self, verbose)
    )
    served = studio.ui.app.serve(port=0)
    served.close()
    paths = {route.path for route in _flat(seen[0].app.routes)}
    closed = {path.rstrip("/") or "/" for path in paths if not is_open(re.sub(r"\{[^}]*\}", "x", path))}
    assert closed == {path.rstrip("/") for path in CLOSED_OF_GRADIO} & closed, closed - CLOSED_OF_GRADIO
    assert len(paths) > 60


def _flat(routes):
    for route in routes:
        inner = getattr(route, "routes", None) or getattr(getattr(route, "original_router", None), "routes", None)
        if inner and not hasattr(route, "endpoint"):
            yield from _flat(inner)
        elif hasattr(route, "path"):
            yield route


@pytest.fixture(scope="module")
def kept(intruder):
    """Files of every folder of STUDIO_HOME, and links out of exports."""
    for folder in ("jobs/x", "datasets", "uploads", "models", "run", "templates", "cache", "exports", "exports/model"):
        (intruder.home / folder).mkdir(parents=True, exist_ok=True)
        (intruder.home / folder / "kept.txt").write_text(MARKER)
    (intruder.home / "exports" / "link.txt").symlink_to(intruder.world / "outside" / "secret")
    (intruder.home / "exports" / "linked").symlink_to(intruder.world / "outside")
    (intruder.home / "exports" / "page.html").write_text("<script>document.title = 'taken over'</script>")
    (intruder.home / "exports" / "circle").symlink_to(intruder.home / "exports" / "circle")
    return intruder.home


def files(home, world):
    here = str(home)
    yield from (f"{here}/{each}/kept.txt" for each in ("jobs/x", "datasets", "uploads", "models", "run", "templates"))
    yield from (
        f"{here}/run/ui.log",
        f"{here}/run/chat.json",
        f"{here}/cache/kept.txt",
        f"{here}/exports",
        f"{here}/exports/",
    )
    yield from (f"{here}/exports/link.txt", f"{here}/exports/linked/secret", f"{here}/exports/circle")
    yield from (f"{here}/exports/../jobs/x/kept.txt", f"{here}/exports/./../../outside/secret", f"{here}/exports-no")
    yield from (f"{here}/run/uploads/../ui.log", f"{PLOTLY}/../../__init__.py", str(PLOTLY.parent / "datasets"))
    yield from (f"{world}/outside/secret", f"//{str(world)[1:]}/outside/secret", "outside/secret", "../outside/secret")
    yield from (
        "/etc/passwd",
        "/proc/self/environ",
        "~/.ssh/id_rsa",
        "/home/somebody/.ssh/id_rsa",
        ".env",
        "pyproject.toml",
    )
    yield from (
        "~/.cache/huggingface/token",
        "/home/somebody/.cache/huggingface/token",
        "README.md",
        "studio/__init__.py",
    )
    yield from (
        "http://127.0.0.1:9/x",
        "https://example.org/x",
        "file:///etc/passwd",
        "HTTP://127.0.0.1/x",
        "\\etc\\passwd",
    )
    yield from ("/etc/passwd\0.txt", f"{here}/exports/\0", "/etc/passwd%00", "", "/", ".", "C:\\Windows\\win.ini")


@pytest.mark.parametrize(
    "encode", [str, quote, lambda path: quote(path, safe=""), lambda path: quote(quote(path, safe=""))]
)
def test_no_file_but_exports_comes_out(intruder, kept, encode):
    for path in files(kept, intruder.world):
        url = f"{API}/file={encode(path)}"
        if "\0" in url:
            continue
        answer = intruder.http.get(url)
        assert answer.status_code in (403, 404), path
        assert MARKER not in answer.text and "root:" not in answer.text


def test_an_export_comes_out_as_a_file_to_save_that_may_do_nothing(intruder, kept):
    for name in ("kept.txt", "model/kept.txt", "page.html"):
        answer = intruder.http.get(f"{API}/file={kept}/exports/{name}")
        assert answer.status_code == 200
        assert answer.headers["content-disposition"].startswith("attachment")
        assert "sandbox" in answer.headers["content-security-policy"]


def test_the_drawing_library_comes_out_and_nothing_beside_it(intruder):
    assert intruder.http.get(f"{API}/file={PLOTLY}").status_code == 200
    assert intruder.http.get(f"{API}/file={PLOTLY.parent}/__init__.py").status_code == 403


def test_an_answer_never_repeats_the_headers_of_its_request(intruder, kept):
    headers = {"range": "bytes=0-3", "cookie": "studio-session=stolen"}
    answer = intruder.http.get(f"{API}/file={kept}/exports/kept.txt", headers=headers)
    assert "stolen" not in str(answer.headers)


@pytest.mark.parametrize("path", ["../../etc/passwd", "..%2f..%2fetc%2fpasswd", "%2e%2e/%2e%2e/etc/passwd",
                                  "....//....//etc/passwd", "/etc/passwd", "..\\..\\etc\\passwd"])  # fmt: skip
@pytest.mark.parametrize("folder", ["/assets/", "/static/", "/svelte/", "/"])
def test_no_way_leads_up_from_the_page_s_own_folders(intruder, folder, path):
    answer = intruder.http.get(folder + path)
    assert answer.status_code in (403, 404) and "root:" not in answer.text


def test_the_page_says_nothing_of_links_shares_history_or_reports(intruder):
    config = intruder.config()
    assert config["analytics_enabled"] is False
    assert config["run_history"] is False
    assert not config.get("share_url") and not config.get("is_space") and not config.get("mcp_server")
