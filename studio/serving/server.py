"""The chat server: an OpenAI-compatible HTTP server over one base and its adapters, in a process of its own.

`python -m studio.serving.server --base NAME`. It answers on the loopback interface only, asks for the token that it
wrote into its address file, takes nothing from web pages, and ends by itself when nobody has asked for a while. Routes:
/health, /v1/models, /v1/chat/completions (streaming or not), /shutdown. Not here: decoding (studio.engine.chat); who
starts it (client).
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
from collections.abc import AsyncIterator
from typing import Any

import uvicorn
from filelock import FileLock, Timeout
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

from studio import specs
from studio.data.example import Message
from studio.errors import ServingError, StudioError
from studio.home import write_atomically
from studio.serving.address import Address, address_file, lock_file
from studio.serving.gate import Bounded, SameSite
from studio.serving.scheduler import Answer, Scheduler
from studio.specs import Sampling

IDLE_S = 1800.0
"""The server gives its memory back after this many seconds without a request."""

BODY_BYTES = 4 * 1024**2
"""What is taken in one request: more than the longest conversation of any model."""

CONNECTIONS = 64
"""More at once are told to come again (503)."""

PARTING_S = 3
"""Open connections are given this long to take their last words."""


def main() -> int:
    """Serve until asked to end, idle for long, or unable to load."""
    options = _options()
    os.umask(0o077)  # from its first byte on, the file with the token is its owner's alone
    lock = FileLock(lock_file())
    try:
        lock.acquire(timeout=5)
    except Timeout:
        print("A chat server is running already.", file=sys.stderr)
        return 3
    with lock, socket.create_server(("127.0.0.1", 0)) as listener:
        address = Address(
            url=f"http://127.0.0.1:{listener.getsockname()[1]}",
            token=secrets.token_urlsafe(24),
            base=options.base,
            quantization=options.quantization,
        )
        scheduler = Scheduler(options.base, options.quantization)
        config = uvicorn.Config(
            application(scheduler, address.token),
            log_level="warning",
            timeout_graceful_shutdown=PARTING_S,
            limit_concurrency=CONNECTIONS,
            proxy_headers=False,
        )
        server = uvicorn.Server(config)
        scheduler.on_end = lambda: setattr(server, "should_exit", True)
        threading.Thread(target=_watch_idle, args=(scheduler,), daemon=True).start()
        write_atomically(address_file(), address.to_json())
        try:
            scheduler.start()
            server.run(sockets=[listener])
            scheduler.join(PARTING_S)
        finally:
            address_file().unlink(missing_ok=True)
    return 0


def application(scheduler: Scheduler, token: str) -> Starlette:
    """The routes over a scheduler, each behind the token."""

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

    async def completions(request: Request) -> Any:
        body = await _body(request)
        answer = scheduler.ask(_model(body), _messages(body), _sampling(body), asyncio.get_running_loop())
        name = f"chatcmpl-{secrets.token_hex(8)}"
        if body.get("stream"):
            return StreamingResponse(_events(name, _model(body), answer), media_type="text/event-stream")
        return await _whole(name, _model(body), answer, request)

    return Starlette(
        routes=[
            Route("/health", guarded(health)),
            Route("/v1/models", guarded(models)),
            Route("/v1/chat/completions", guarded(completions), methods=["POST"]),
            Route("/shutdown", guarded(shutdown), methods=["POST"]),
        ],
        middleware=[Middleware(SameSite), Middleware(Bounded, limit=lambda path: BODY_BYTES)],
    )


async def _events(name: str, model: str, answer: Answer) -> AsyncIterator[str]:
    """Server-sent events as OpenAI writes them. A reader that goes away cancels its request."""
    try:
        async for piece in answer:
            delta = {"content": piece.text} if piece.text else {}
            choice = {"index": 0, "delta": delta, "finish_reason": piece.finish}
            chunk = {"id": name, "object": "chat.completion.chunk", "created": int(time.time()), "model": model}
            chunk |= {"choices": [choice], "usage": _usage(piece)}
            yield f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n"
        yield "data: [DONE]\n\n"
    except StudioError as error:
        yield f"data: {json.dumps({'error': {'message': str(error)}}, ensure_ascii=False)}\n\n"
    finally:
        answer.cancel()


async def _whole(name: str, model: str, answer: Answer, request: Request) -> JSONResponse:
    text, last = "", None
    watch = asyncio.create_task(_cancel_when_gone(request, answer))
    try:
        async for piece in answer:
            text += piece.text
            last = piece
    finally:
        watch.cancel()
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": last.finish if last else "stop"}
    reply = {"id": name, "object": "chat.completion", "created": int(time.time()), "model": model, "choices": [choice]}
    return JSONResponse(reply | {"usage": _usage(last)})


async def _cancel_when_gone(request: Request, answer: Answer) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    answer.cancel()


def _usage(piece: Any) -> dict[str, int] | None:
    if piece is None:
        return None
    total = piece.prompt_tokens + piece.tokens
    return {"prompt_tokens": piece.prompt_tokens, "completion_tokens": piece.tokens, "total_tokens": total}


async def _body(request: Request) -> dict[str, Any]:
    try:
        body = await request.json()
    except (ValueError, RecursionError) as error:
        raise ServingError("The request's body is not JSON.") from error
    if not isinstance(body, dict):
        raise ServingError("The request's body must be an object.")
    return body


def _model(body: dict[str, Any]) -> str:
    name = body.get("model", "base")
    if not isinstance(name, str) or not _is_whole(name):
        raise ServingError("model must be a text.")
    return name


def _messages(body: dict[str, Any]) -> list[Message]:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise ServingError("messages must be a list with at least one message.")
    for number, message in enumerate(messages, start=1):
        if not isinstance(message, dict) or message.get("role") not in ("system", "user", "assistant"):
            raise ServingError(f"Message {number} needs a role: system, user or assistant.")
        if not isinstance(message.get("content"), str):
            raise ServingError(f"Message {number} needs a content that is text.")
        if not _is_whole(message["content"]):
            raise ServingError(f"Message {number} holds half a character (a lone surrogate). Remove it.")
    return [Message(message["role"], message["content"]) for message in messages]


def _is_whole(text: str) -> bool:
    """Whether it can be written as UTF-8. JSON can hold half of a character, and no tokenizer takes that."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _sampling(body: dict[str, Any]) -> Sampling:
    values = {name: body[name] for name in Sampling.model_fields if body.get(name) is not None}
    if body.get("max_completion_tokens") is not None:
        values["max_tokens"] = body["max_completion_tokens"]
    return specs.parse(Sampling, values)


def _error(text: str, status: int) -> JSONResponse:
    return JSONResponse({"error": {"message": text, "type": "invalid_request_error"}}, status_code=status)


def _watch_idle(scheduler: Scheduler) -> None:
    while scheduler.idle_s < IDLE_S:
        time.sleep(5)
    scheduler.end()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Serve one base model and its adapters on the loopback interface.")
    parser.add_argument("--base", default=specs.BUNDLED_MODEL)
    parser.add_argument("--quantization", default="none", choices=["none", "nf4", "fp4", "int8"])
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
