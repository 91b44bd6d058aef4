"""What the page and the chat server both stand behind: a check of Host and of Origin, and bounds of what is sent.

A site that a user visits can send requests to 127.0.0.1, or point its own name there; the browser then tells on it in
its headers. Not here: who may come in (studio.ui.login, the chat server's token), and encryption.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
from collections.abc import Callable
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})

BODY_PAUSE_S = 60.0
"""A body of which nothing more comes for this long is given up."""


class SameSite:
    """ASGI middleware that refuses requests for another host (400) or from another origin (403), web sockets too.

    hosts: the names that this server goes by. addresses: whether it also goes by any IP address, which nobody can point
    elsewhere, unlike a name. homes: paths that a link on another site may open.
    """

    def __init__(
        self,
        app: ASGIApp,
        hosts: frozenset[str] = LOOPBACK,
        addresses: bool = False,
        homes: frozenset[str] = frozenset(),
    ):
        self.app = app
        self._hosts = hosts
        self._addresses = addresses
        self._homes = homes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._refusal(scope) if scope["type"] in ("http", "websocket") else None
        if refusal is None:
            await self.app(scope, receive, send)
        else:
            await refuse(*refusal, scope, receive, send)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        headers = Headers(scope=scope)
        hosts, origins = headers.getlist("host"), headers.getlist("origin")
        name = _name(hosts[0]) if len(hosts) == 1 else ""
        if name not in self._hosts and not (self._addresses and _is_address(name)):
            return 400, "This page does not go by that name. STUDIO_HOSTS can hold further names, with commas between."
        if any(_site(origin) != hosts[0].lower() for origin in origins):
            return 403, "Requests from another site are refused."
        # a plain GET has no Origin; where it comes from is then in a header of its own
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and not self._is_link(scope, headers):
            return 403, "Requests from another site are refused."
        return None

    def _is_link(self, scope: Scope, headers: Headers) -> bool:
        whole = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
        return whole and scope.get("method") in ("GET", "HEAD") and scope["path"] in self._homes


class Bounded:
    """ASGI middleware that refuses bodies which are too large (413) or come too slowly (408).

    limit(path): bytes of one body.
    """

    def __init__(self, app: ASGIApp, limit: Callable[[str], int], pause_s: float = BODY_PAUSE_S):
        self.app = app
        self._limit = limit
        self._pause_s = pause_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        limit = self._limit(scope["path"])
        told = Headers(scope=scope).get("content-length", "0")
        if not (told.isdecimal() and len(told) < 20 and int(told) <= limit):
            await refuse(413, _too_much(limit), scope, receive, send)
            return
        await self.app(scope, _Body(receive, limit, self._pause_s), send)


class _Body:
    """A `receive` that counts. What is behind the body, such as a reader that goes away, may take its time."""

    def __init__(self, receive: Receive, limit: int, pause_s: float):
        self._receive = receive
        self._limit = limit
        self._pause_s = pause_s
        self._taken = 0
        self._whole = False

    async def __call__(self) -> Message:
        if self._whole:
            return await self._receive()
        try:
            message = await asyncio.wait_for(self._receive(), self._pause_s)
        except TimeoutError as error:
            raise HTTPException(408, f"Nothing more came for {self._pause_s:.0f} s.") from error
        self._whole = message["type"] != "http.request" or not message.get("more_body")
        self._taken += len(message.get("body", b""))
        if self._taken > self._limit:
            raise HTTPException(413, _too_much(self._limit))
        return message


async def refuse(status: int, text: str, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request, or close a web socket, with a sentence."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": text})
    else:
        await PlainTextResponse(text, status_code=status)(scope, receive, send)


def _too_much(limit: int) -> str:
    return f"At most {limit:,} bytes are taken at once."


def _site(origin: str) -> str:
    """Name and port of an origin; empty for null, and if it is malformed."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def _name(host: str) -> str:
    """The name in a Host header, without port and brackets; empty if it is malformed."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server bound to the host."""
    return host.strip("[]").lower() in LOOPBACK


def names(host: str) -> frozenset[str]:
    """The names that a server bound to this host goes by.

    Loopback's, those of STUDIO_HOSTS, and, where it can be reached by others, the host and this machine's own name.
    """
    own = {host.strip("[]").lower(), socket.gethostname().lower()} if not is_loopback(host) else set()
    return LOOPBACK | own | _further_names()


def is_private(host: str) -> bool:
    """Whether a page bound to this host is meant for this machine alone, and may do without a password."""
    return is_loopback(host) and not _further_names()


def _further_names() -> set[str]:
    return {each.strip().lower() for each in os.environ.get("STUDIO_HOSTS", "").split(",")} - {""}
