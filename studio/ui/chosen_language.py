"""Tells the browser's side of the page which language to show: the same that Python chooses.

Left alone, gradio 6.31 would show zh-TW and plain zh in English while Python answers in Chinese, and could not follow
`?lang=zh` in the address. It asks navigator.language before it runs any script of ours, so the choice is written into
the page's own head on its way out. Not here: the rule (studio.ui.texts.preferred).
"""

from __future__ import annotations

from urllib.parse import parse_qs

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from studio.ui.texts import LOCALES, preferred

_SCRIPT = '<script>Object.defineProperty(navigator, "language", {{get: () => "{locale}"}})</script>'


class ChosenLanguage:
    """ASGI middleware that touches only the page itself."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        locale = _locale(scope)
        await self.app(scope, receive, _Page(send, _SCRIPT.format(locale=locale).encode()) if locale else send)


def _locale(scope: Scope) -> str | None:
    if scope["type"] != "http" or scope["method"] != "GET" or scope["path"] != "/":
        return None
    asked = parse_qs(scope["query_string"].decode("latin-1")).get("lang", [""])[-1]
    return LOCALES[preferred(asked, Headers(scope=scope).get("accept-language"))]


class _Page:
    """Collects one response and sends it with the script in front of everything else in its head."""

    def __init__(self, send: Send, script: bytes):
        self._send = send
        self._script = script
        self._start: Message = {}
        self._body = b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._start = message
            return
        self._body += message.get("body", b"")
        if message.get("more_body"):
            return
        body = self._body.replace(b"<head>", b"<head>" + self._script, 1)
        headers = [(name, value) for name, value in self._start["headers"] if name.lower() != b"content-length"]
        headers.append((b"content-length", str(len(body)).encode()))
        await self._send(self._start | {"headers": headers})
        await self._send({"type": "http.response.body", "body": body})
