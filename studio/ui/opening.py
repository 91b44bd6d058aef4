"""What is written into the page on its way out: which language to show, and what has it opened sooner.

Left alone, gradio 6.31 would show zh-TW and plain zh in English while Python answers in Chinese, and could not follow
`?lang=zh` in the address. It asks navigator.language before it runs any script of ours, so the choice is written into
the page's own head. Not here: the rule (studio.ui.texts.preferred), and what opening.js changes.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qs

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from studio.ui.texts import LOCALES, preferred

_LANGUAGE = '<script>Object.defineProperty(navigator, "language", {{get: () => "{locale}"}})</script>'
_SOONER = f"<script>{Path(__file__).with_suffix('.js').read_text(encoding='utf-8')}</script>"


class Opening:
    """ASGI middleware that touches only the page itself."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        locale = _locale(scope)
        await self.app(scope, receive, _Page(send, locale) if locale else send)


def _locale(scope: Scope) -> str | None:
    if scope["type"] != "http" or scope["method"] != "GET" or scope["path"] != "/":
        return None
    asked = parse_qs(scope["query_string"].decode("latin-1")).get("lang", [""])[-1]
    return LOCALES[preferred(asked, Headers(scope=scope).get("accept-language"))]


class _Page:
    """Collects one response and sends it with the language in front of everything else in its head, and opening.js
    after gradio's configuration, which it changes."""

    def __init__(self, send: Send, locale: str):
        self._send = send
        self._locale = locale
        self._start: Message = {}
        self._body = b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._start = message
            return
        self._body += message.get("body", b"")
        if message.get("more_body"):
            return
        body = self._body.replace(b"<head>", b"<head>" + _LANGUAGE.format(locale=self._locale).encode(), 1)
        body = body.replace(b"</head>", _SOONER.encode() + b"</head>", 1)
        headers = [(name, value) for name, value in self._start["headers"] if name.lower() != b"content-length"]
        headers.append((b"content-length", str(len(body)).encode()))
        await self._send(self._start | {"headers": headers})
        await self._send({"type": "http.response.body", "body": body})
