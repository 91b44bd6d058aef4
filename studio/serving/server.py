"""The chat server: an OpenAI-compatible HTTP server over one base and its adapters, in a process of its own.

`python -m studio.serving.server --base NAME`. It answers on the loopback interface unless told otherwise, asks for the
token that it wrote into its address file, takes nothing from web pages, and, as the page starts it, ends by itself when
nobody has asked for a while. Routes: /health, /v1/models, /v1/chat/completions, /v1/completions, /shutdown. Not here:
what a request may hold and how answers are written (protocol); decoding (studio.engine.chat); who starts it (client).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import uvicorn
from filelock import FileLock, Timeout
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

from studio import specs
from studio.errors import ServingError, StudioError
from studio.home import write_atomically
from studio.serving import gate, protocol
from studio.serving.address import Address, address_file, lock_file
from studio.serving.gate import Bounded, SameSite
from studio.serving.scheduler import Answer, Scheduler

IDLE_S = 1800.0
"""The server gives its memory back after this many seconds without a request."""

BODY_BYTES = 4 * 1024**2
"""What is taken in one request: more than the longest conversation of any model."""

CONNECTIONS = 64
"""More at once are told to come again (503)."""

PARTING_S = 3
"""Open connections are given this long to take their last words."""


def main() -> int:
    """As the page starts it. Returns: 3 where a chat server is running already."""
    options = _options()
    try:
        serve(options.base, options.quantization, idle_s=IDLE_S)
    except ServingError as error:
        print(error, file=sys.stderr)
        return 3
    return 0


def serve(
    base: str,
    quantization: str = "none",
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    token: str | None = None,
    idle_s: float | None = None,
    told: Callable[[Address, Scheduler], None] = lambda address, scheduler: None,
) -> None:
    """Serve until asked to end, idle for long, or unable to load.

    port: 0 for any free one. token: None for a new one. idle_s: seconds without a request until it ends; None: never.
    told: called once its address is known. Raises: ServingError: another chat server is running, the address cannot be
    had, or the base cannot be loaded.
    """
    os.umask(0o077)  # from its first byte on, the file with the token is its owner's alone
    lock = FileLock(lock_file())
    try:
        lock.acquire(timeout=5)
    except Timeout as error:
        raise ServingError("A chat server is running already.") from error
    with lock, _listening(host, port) as listener:
        shown = "127.0.0.1" if host in ("0.0.0.0", "::") else host
        address = Address(
            url=f"http://{f'[{shown}]' if ':' in shown else shown}:{listener.getsockname()[1]}",
            token=token or secrets.token_urlsafe(24),
            base=base,
            quantization=quantization,
        )
        scheduler = Scheduler(base, quantization)
        config = uvicorn.Config(
            application(scheduler, address.token, host),
            log_level="warning",
            timeout_graceful_shutdown=PARTING_S,
            limit_concurrency=CONNECTIONS,
            proxy_headers=False,
        )
        server = uvicorn.Server(config)
        scheduler.on_end = lambda: setattr(server, "should_exit", True)
        if idle_s is not None:
            threading.Thread(target=_watch_idle, args=(scheduler, idle_s), daemon=True).start()
        write_atomically(address_file(), address.to_json())
        try:
            scheduler.start()
            told(address, scheduler)
            server.run(sockets=[listener])
            scheduler.join(PARTING_S)
        finally:
            address_file().unlink(missing_ok=True)
    if scheduler.error:
        raise ServingError(scheduler.error)


def _listening(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise ServingError(f"{host}:{port} cannot be listened on: {error.strerror}. Choose another port.") from error


def application(scheduler: Scheduler, token: str, host: str = "127.0.0.1") -> Starlette:
    """The routes over a scheduler, each behind the token. host: the address that it listens on."""

    def guarded(endpoint: Any) -> Any:
        async def checked(request: Request) -> Any:
            given = request.headers.get("authorization", "").removeprefix("Bearer ")
            if not secrets.compare_digest(given.encode(), token.encode()):
                return _error("The token is missing or wrong.", 401)
            try:
                return await endpoint(request)
            except StudioError as error:
                return _error(str(error), 400)

        return checked

    async def health(request: Request) -> JSONResponse:
        return JSONResponse({"ready": scheduler.ready, "phase": scheduler.phase, "error": scheduler.error})

    async def models(request: Request) -> JSONResponse:
        return JSONResponse(
            {
                "object": "list",
                "data": [{"id": name, "object": "model", "owned_by": "studio"} for name in scheduler.names],
            }
        )

    async def shutdown(request: Request) -> JSONResponse:
        scheduler.end()
        return JSONResponse({"ending": True})

    async def chat(request: Request) -> Any:
        return await _answered(request, protocol.Chat)

    async def text(request: Request) -> Any:
        return await _answered(request, protocol.Text)

    async def _answered(request: Request, kind: type[protocol.Form]) -> Any:
        form = kind(await _body(request))
        loop = asyncio.get_running_loop()
        answers = [scheduler.ask(wanted, loop) for wanted in form.wanted]
        if form.stream:
            return StreamingResponse(_events(form, answers), media_type="text/event-stream")
        return await _whole(form, answers, request)

    return Starlette(
        routes=[
            Route("/health", guarded(health)),
            Route("/v1/models", guarded(models)),
            Route("/v1/chat/completions", guarded(chat), methods=["POST"]),
            Route("/v1/completions", guarded(text), methods=["POST"]),
            Route("/shutdown", guarded(shutdown), methods=["POST"]),
        ],
        middleware=[
            Middleware(SameSite, hosts=gate.names(host), addresses=not gate.is_loopback(host)),
            Middleware(Bounded, limit=lambda path: BODY_BYTES),
        ],
    )


async def _events(form: protocol.Form, answers: Sequence[Answer]) -> AsyncIterator[str]:
    """Server-sent events as OpenAI writes them. A reader that goes away cancels its request."""
    try:
        for chunk in form.opening():
            yield _event(chunk)
        async for index, piece in _interleaved(answers):
            yield _event(form.chunk(index, piece))
        for chunk in form.closing():
            yield _event(chunk)
        yield "data: [DONE]\n\n"
    except StudioError as error:
        yield _event({"error": {"message": str(error)}})
    finally:
        for answer in answers:
            answer.cancel()


def _event(chunk: Any) -> str:
    return f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n"


async def _whole(form: protocol.Form, answers: Sequence[Answer], request: Request) -> JSONResponse:
    watch = asyncio.create_task(_cancel_when_gone(request, answers))
    try:
        async for index, piece in _interleaved(answers):
            form.chunk(index, piece)
    finally:
        watch.cancel()
        for answer in answers:
            answer.cancel()
    return JSONResponse(form.whole())


async def _interleaved(answers: Sequence[Answer]) -> AsyncIterator[tuple[int, Any]]:
    """The pieces of all answers as they come, each with the number of its answer. Raises: StudioError: one failed."""
    if len(answers) == 1:
        async for piece in answers[0]:
            yield 0, piece
        return
    arrivals: asyncio.Queue[tuple[int, Any]] = asyncio.Queue()

    async def follow(index: int, answer: Answer) -> None:
        try:
            async for piece in answer:
                arrivals.put_nowait((index, piece))
        except StudioError as error:
            arrivals.put_nowait((index, error))

    tasks = [asyncio.create_task(follow(*pair)) for pair in enumerate(answers)]
    try:
        left = len(answers)
        while left:
            index, piece = await arrivals.get()
            if isinstance(piece, StudioError):
                raise piece
            left -= bool(piece.finish)
            yield index, piece
    finally:
        for task in tasks:
            task.cancel()


async def _cancel_when_gone(request: Request, answers: Sequence[Answer]) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    for answer in answers:
        answer.cancel()


async def _body(request: Request) -> dict[str, Any]:
    try:
        body = await request.json()
    except (ValueError, RecursionError) as error:
        raise ServingError("The request's body is not JSON.") from error
    if not isinstance(body, dict):
        raise ServingError("The request's body must be an object.")
    return body


def _error(text: str, status: int) -> JSONResponse:
    return JSONResponse({"error": {"message": text, "type": "invalid_request_error"}}, status_code=status)


def _watch_idle(scheduler: Scheduler, idle_s: float) -> None:
    while scheduler.idle_s < idle_s:
        time.sleep(5)
    scheduler.end()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Serve one base model and its adapters on the loopback interface.")
    parser.add_argument("--base", default=specs.BUNDLED_MODEL)
    parser.add_argument("--quantization", default="none", choices=["none", "nf4", "fp4", "int8"])
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
