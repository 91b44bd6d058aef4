"""What the page is behind, from outside to inside: names, bounds, the log-in, the open routes, and headers.

Not here: each of them (studio.serving.gate, studio.ui.login), and encryption. Away from loopback the page belongs
behind a reverse proxy with TLS.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from studio.serving.gate import Bounded, SameSite, is_loopback, names, refuse
from studio.ui.login import Login

UPLOAD = "/gradio_api/upload"
OPEN = re.compile(
    r"/|/config/?|/theme\.css|/favicon\.ico|/robots\.txt|/manifest\.json"
    r"|/(assets|static|svelte)/.+"
    r"|/gradio_api/(theme\.css|startup-events|app_id/?|info/?|openapi\.json|login_check/?|user/?)"
    r"|/gradio_api/(queue/(join|data|status)|call/.+|run/.+|api/.+|cancel|reset/?|heartbeat/[^/]+)"
    r"|/gradio_api/(component_server/?|upload|upload_progress|file=.+)"
)
"""Routes of gradio 6.31 that the page and its clients need. What else there is, or is new, answers 404."""

FILE = "/gradio_api/file="

BODY_BYTES = 32 * 1024**2
"""What is taken in one request that uploads no file."""
FILES_PER_UPLOAD = 4
"""One request may hold so many of the largest files, or many more small ones."""
DISK_RESERVE = 1024**3
"""An upload leaves this much of the disk free."""
FIELD_BYTES = 64 * 1024
"""Parts of an upload that are no files, which gradio 6.31 keeps in memory."""

HEADERS = {
    "content-security-policy": "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; object-src 'none'; "
    "base-uri 'self'; form-action 'self'; frame-ancestors 'none'",
    "x-frame-options": "DENY",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
"""gradio needs scripts in the page and functions made of text; nothing may come from, or go to, another site."""


_DOWNLOAD = {"content-security-policy": "sandbox; default-src 'none'"}
"""A file is a stranger's text: it is saved, and where a browser shows it nevertheless, it may do nothing."""


class Routes:
    """ASGI middleware that knows only the open routes, and looks into uploads and at which file is asked for.

    folders: whose files are handed out. script: the one other file that is, and the only one that may run.
    """

    def __init__(self, app: ASGIApp, folders: Sequence[Path], script: Path):
        self.app = app
        self._folders = [each.resolve() for each in folders]
        self._script = script.resolve()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        path, headers = scope["path"], HEADERS
        if scope["type"] != "http" or not is_open(path, scope["query_string"]):
            await refuse(404, "There is nothing here.", scope, receive, send)
            return
        if path.startswith(FILE):
            file = _resolved(path.removeprefix(FILE))
            if file is None or not (file == self._script or any(map(file.is_relative_to, self._folders))):
                await refuse(403, "This file is not handed out.", scope, receive, send)
                return
            headers = HEADERS if file == self._script else HEADERS | _DOWNLOAD
            # gradio 6.31 answers a range with all headers of the request, the cookie too
            scope = {**scope, "headers": [each for each in scope["headers"] if each[0] != b"range"]}
        if path == UPLOAD:
            receive = _Fields(receive, Headers(scope=scope).get("content-type", ""))
        await self.app(scope, receive, partial(_with_headers, send, headers))


def is_open(path: str, query: bytes = b"") -> bool:
    """Whether the page has this route. A deep link would keep a session on disk for whoever has the link."""
    return bool(OPEN.fullmatch(path)) and b"deep_link" not in query


def _resolved(path: str) -> Path | None:
    """Where a path leads, links and dots followed; None if it is no absolute path."""
    try:
        return Path(path).resolve() if Path(path).is_absolute() else None
    except (OSError, ValueError, RuntimeError):  # NUL bytes, links in a circle
        return None


async def _with_headers(send: Send, headers: Mapping[str, str], message: Message) -> None:
    if message["type"] == "http.response.start":
        sent = MutableHeaders(scope=message)
        for name, value in headers.items():
            sent[name] = value
        if "sandbox" in headers["content-security-policy"]:
            sent["content-disposition"] = sent.get("content-disposition", "").replace("inline", "attachment", 1)
    await send(message)


class _Fields:
    """A `receive` that counts what of an upload is no file, and refuses too much of it."""

    def __init__(self, receive: Receive, content_type: str):
        self._receive = receive
        self._bytes = 0
        self._is_file = False
        self._name = self._value = b""
        kind, options = parse_options_header(content_type)
        calls = {
            "on_part_begin": self._begin,
            "on_header_field": self._read_name,
            "on_header_value": self._read_value,
            "on_header_end": self._end_header,
            "on_part_data": self._count,
        }
        known = kind == b"multipart/form-data" and options.get(b"boundary")
        self._parser = MultipartParser(options[b"boundary"], calls) if known else None

    async def __call__(self) -> Message:
        message = await self._receive()
        if self._parser is not None and message["type"] == "http.request":
            try:
                self._parser.write(message.get("body", b""))
            except MultipartParseError as error:
                raise HTTPException(400, "This is no upload of files.") from error
        return message

    def _begin(self) -> None:
        self._is_file = False

    def _read_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _read_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        if self._name.lower() == b"content-disposition":
            self._is_file = b"filename" in parse_options_header(self._value)[1]
        self._name = self._value = b""

    def _count(self, data: bytes, start: int, end: int) -> None:
        self._bytes += 0 if self._is_file else end - start
        if self._bytes > FIELD_BYTES:
            raise HTTPException(413, f"An upload holds files, and at most {FIELD_BYTES:,} bytes beside them.")


def middleware(
    host: str, password: str | None, *, uploads: Path, upload_bytes: int, exports: Path, script: Path
) -> list[Middleware]:
    """What stands before the page. uploads: the folder they go to. upload_bytes: of one file. script: see Routes."""

    def limit(path: str) -> int:
        if path != UPLOAD:
            return BODY_BYTES
        return max(0, min(FILES_PER_UPLOAD * upload_bytes, shutil.disk_usage(uploads).free - DISK_RESERVE))

    return [
        Middleware(
            SameSite, hosts=names(host), addresses=not is_loopback(host), homes=frozenset({"/", "/login", "/logout"})
        ),
        Middleware(Bounded, limit=limit),
        *([Middleware(Login, password=password)] if password else []),
        Middleware(Routes, folders=[exports, uploads], script=script),
    ]
