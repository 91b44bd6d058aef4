"""Keeps other web sites out of a page that listens on this machine: a check of Host and of Origin, and the password.

A site that a user visits can send requests to 127.0.0.1, or point its own name there; the browser then tells on it in
these two headers. Not here: encryption. Away from loopback the page belongs behind a reverse proxy with TLS.
"""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from studio.errors import StudioError

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


class SameSite:
    """ASGI middleware that refuses requests for another host (400) or from another origin (403), web sockets too.

    hosts: the names this page goes by; None allows any, for a page that asks for a password.
    """

    def __init__(self, app: ASGIApp, hosts: frozenset[str] | None = LOOPBACK):
        self.app = app
        self.hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = _refusal(Headers(scope=scope), self.hosts) if scope["type"] in ("http", "websocket") else None
        if refusal is None:
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": refusal[1]})
        else:
            await PlainTextResponse(refusal[1], status_code=refusal[0])(scope, receive, send)


def _refusal(headers: Headers, hosts: frozenset[str] | None) -> tuple[int, str] | None:
    host = headers.get("host", "")
    if hosts is not None and _name(host) not in hosts:
        return 400, "This page does not go by that name."
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
        return 403, "Requests from another site are refused."
    if origin is None and headers.get("sec-fetch-site") == "cross-site" and headers.get("sec-fetch-mode") != "navigate":
        return 403, "Requests from another site are refused."
    return None


def _name(host: str) -> str:
    """The name in a Host header, without port and brackets; empty if it is malformed."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def hosts_for(host: str) -> frozenset[str] | None:
    """The names a page bound to this host goes by. None away from loopback, where a password guards it."""
    return LOOPBACK if host.strip("[]") in LOOPBACK else None


def credentials(host: str) -> tuple[str, str] | None:
    """User and password that the page asks for: none on loopback, unless STUDIO_PASSWORD is set.

    Raises: StudioError: the host can be reached from other machines and there is no password.
    """
    password = os.environ.get("STUDIO_PASSWORD")
    if password:
        return "studio", password
    if hosts_for(host) is None:
        raise StudioError(
            f"{host} can be reached from other machines, and whoever opens the page can run training on this one. "
            "Set STUDIO_PASSWORD (the user is studio), or leave --host at 127.0.0.1."
        )
    return None
