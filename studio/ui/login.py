"""Who may open a page that others can reach: one password, a session in a cookie, and a limit on wrong guesses.

The page's scripts, its files, its events and its web sockets are all behind it. Not here: which names and routes there
are (studio.ui.security), and encryption: without TLS before the page the password can be read on its way.
"""

from __future__ import annotations

import html
import math
import os
import secrets
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from string import Template
from urllib.parse import parse_qs

from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from studio.serving.gate import refuse
from studio.ui.texts import preferred, table

WITHOUT = frozenset({"/gradio_api/startup-events"})
"""gradio 6.31 asks itself for this once while it starts, and it tells nothing."""

FORM_BYTES = 4096
SESSIONS = 256
SESSION_S = 24 * 3600.0
"""A session ends when it was not used for so long, when the server ends, or when SESSIONS were used since."""

WINDOW_S = 300.0
PER_ADDRESS, IN_ALL = 10, 60
"""Wrong guesses within the window, after which an address, or everyone, has to wait. In all, because whoever is behind
a proxy on this machine can give any address as theirs."""

_FORM = Template(Path(__file__).with_suffix(".html").read_text(encoding="utf-8"))
_FORM_HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cache-control": "no-store",
}


def password_for(*, private: bool) -> tuple[str | None, bool]:
    """The password that the page asks for, and whether it was made up here.

    That of STUDIO_PASSWORD; without one none for a private page, and a new one for a page that others can reach.
    """
    given = os.environ.get("STUDIO_PASSWORD")
    if given or private:
        return given or None, False
    return secrets.token_urlsafe(16), True


class Guesses:
    """Wrong passwords of late. It remembers as many as make everyone wait, so its memory is bounded."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._wrong: deque[tuple[float, str]] = deque(maxlen=IN_ALL)

    def wait_s(self, address: str) -> float:
        """How long this address has to wait before its next guess."""
        now = self._clock()
        recent = [(at, who) for at, who in self._wrong if now - at < WINDOW_S]
        own = [at for at, who in recent if who == address]
        last = own[-PER_ADDRESS] if len(own) >= PER_ADDRESS else None
        last = recent[0][0] if len(recent) == IN_ALL else last
        return 0.0 if last is None else last + WINDOW_S - now

    def add(self, address: str) -> None:
        self._wrong.append((self._clock(), address))


class Sessions:
    """Who has logged in, by the token in their cookie."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._used: dict[str, float] = {}

    def start(self) -> str:
        token = secrets.token_urlsafe(32)
        self._used[token] = self._clock()
        while len(self._used) > SESSIONS:
            del self._used[min(self._used, key=self._used.__getitem__)]
        return token

    def has(self, token: str) -> bool:
        used = self._used.pop(token, None)
        if used is None or self._clock() - used > SESSION_S:
            return False
        self._used[token] = self._clock()
        return True

    def end(self, token: str) -> None:
        self._used.pop(token, None)


class Login:
    """ASGI middleware that lets only requests of a session through."""

    def __init__(self, app: ASGIApp, password: str, clock: Callable[[], float] = time.monotonic):
        self.app = app
        self._password = _bytes(password)
        self._guesses = Guesses(clock)
        self._sessions = Sessions(clock)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or (scope["type"] == "http" and scope["path"] in WITHOUT):
            await self.app(scope, receive, send)
            return
        token = cookie_parser(Headers(scope=scope).get("cookie", "")).get(_cookie(scope), "")
        if scope["type"] == "http" and scope["path"].rstrip("/") == "/login" and scope["method"] == "POST":
            response = await self._guess(scope, receive)
        elif not self._sessions.has(token):
            response = _ask(scope, "", 401)
        elif scope["path"] == "/logout":
            self._sessions.end(token)
            response = RedirectResponse("./", 303)
            response.delete_cookie(_cookie(scope), httponly=True, samesite="strict")
        elif scope["path"] == "/login":
            response = RedirectResponse("./", 303)
        else:
            await self.app(scope, receive, send)
            return
        if scope["type"] == "websocket":
            await refuse(401, "Log in first.", scope, receive, send)
        else:
            await response(scope, receive, send)

    async def _guess(self, scope: Scope, receive: Receive) -> Response:
        """While an address has to wait not even the right password opens, so that a guess tells nothing."""
        form = await _form(receive)
        if form is None:
            return _ask(scope, "too_long", 413)
        address = (scope.get("client") or ("",))[0]
        wait_s = self._guesses.wait_s(address)
        if wait_s > 0:
            return _ask(scope, "wait", 429, wait_s)
        given = form.get("password", [""])[-1]
        if not secrets.compare_digest(_bytes(given), self._password):
            self._guesses.add(address)
            return _ask(scope, "wrong", 401)
        page = _accepts_pages(scope)
        response = RedirectResponse(f"./?lang={_language(scope)}", 303) if page else JSONResponse({"success": True})
        response.set_cookie(
            _cookie(scope), self._sessions.start(), httponly=True, samesite="strict", secure=scope["scheme"] == "https"
        )
        return response


def _ask(scope: Scope, problem: str, status: int, wait_s: float = 0.0) -> Response:
    """The form where a page is asked for, else a sentence. problem: a text's key."""
    words = table(_language(scope))
    text = words[f"login.{problem}"].format(seconds=math.ceil(wait_s)) if problem else ""
    more = {"retry-after": str(math.ceil(wait_s))} if wait_s else {}
    if not _accepts_pages(scope):
        return JSONResponse({"detail": text or "Log in first."}, status, headers=more)
    values = {"password": words["login.password"], "enter": words["login.enter"], "problem": text}
    page = _FORM.substitute({key: html.escape(value) for key, value in values.items()}, lang=_language(scope))
    return HTMLResponse(page, status, headers=_FORM_HEADERS | more)


async def _form(receive: Receive) -> dict[str, list[str]] | None:
    """The fields of the form; None if it is too long."""
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > FORM_BYTES:
            return None
        if not message.get("more_body"):
            return parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True)


def _accepts_pages(scope: Scope) -> bool:
    return scope["path"].rstrip("/") in ("", "/login") and "text/html" in Headers(scope=scope).get("accept", "")


def _language(scope: Scope) -> str:
    asked = parse_qs(scope["query_string"].decode("latin-1")).get("lang", [""])[-1]
    return preferred(asked, Headers(scope=scope).get("accept-language"))


def _cookie(scope: Scope) -> str:
    """Cookies do not tell ports apart, and there may be two studios on one machine."""
    return f"studio-session-{(scope.get('server') or ('', 0))[1]}"


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
