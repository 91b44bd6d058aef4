"""Start the chat server, and talk to it: several conversations at once, streamed.

Without importing torch; the page and the shell use this. Any OpenAI-compatible server could stand at the address.
Not here: the server (studio.serving.server).
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import httpx
from filelock import FileLock, Timeout

from studio.errors import ServingError
from studio.hardware import thread_environment
from studio.home import CHECKOUT, home
from studio.serving import address as addresses
from studio.serving.address import Address
from studio.specs import Sampling

LOAD_S = 600.0
"""A base that has not loaded after this long is given up."""


@dataclass(frozen=True)
class Delta:
    """New text of one column. tokens: written so far. seconds: since the request. error: what went wrong, if it did."""

    column: int
    text: str = ""
    done: bool = False
    tokens: int = 0
    seconds: float = 0.0
    first_token_s: float | None = None
    error: str | None = None

    @property
    def tokens_per_s(self) -> float | None:
        """From the first token to this one."""
        writing = self.seconds - (self.first_token_s or 0.0)
        return (self.tokens - 1) / writing if self.tokens > 1 and writing > 0 else None


def ensure(base: str, *, quantization: str = "none", on_phase: Callable[[str], None] | None = None) -> Address:
    """The address of a chat server that holds this base; started, or put in the place of another one, if need be.

    on_phase: told what the server is doing while it loads. Raises: ServingError: it cannot load, with the reason.
    """
    tell = on_phase or (lambda phase: None)
    with FileLock(home().run / "ensure.lock", timeout=LOAD_S):
        address = running()
        if address is not None and (address.base, address.quantization) != (base, quantization):
            stop()
            address = None
        if address is None:
            tell("start")
            _spawn(base, quantization)
        return _wait_until_ready(tell)


def running() -> Address | None:
    """The address of the server that is alive now, or None."""
    address = addresses.read()
    if address is None:
        return None
    try:
        answer = httpx.get(f"{address.url}/health", headers=address.headers, timeout=5, trust_env=False)
        return address if answer.status_code == 200 and not answer.json()["error"] else None
    except (httpx.HTTPError, ValueError, KeyError):
        return None


def stop() -> None:
    """End the server, if one runs, and wait until its memory is free."""
    address = addresses.read()
    if address is None:
        return
    with suppress(httpx.HTTPError):  # it may have gone already
        httpx.post(f"{address.url}/shutdown", headers=address.headers, timeout=10, trust_env=False)
    _wait_for_lock()


def models(address: Address) -> list[str]:
    """Names that can be asked: base, runs, and checkpoints as RUN@STEP."""
    try:
        answer = httpx.get(f"{address.url}/v1/models", headers=address.headers, timeout=30, trust_env=False)
        return [entry["id"] for entry in answer.json()["data"]]
    except (httpx.HTTPError, ValueError, KeyError) as error:
        raise ServingError(f"The chat server at {address.url} does not answer. Send the message again.") from error


async def stream(
    address: Address, requests: Sequence[tuple[str, list[dict[str, str]]]], sampling: Sampling
) -> AsyncIterator[Delta]:
    """Ask all (model, messages) at once and yield what comes, interleaved, until every column is done.

    Closing the iterator cancels the requests on the server.
    """
    arrivals: asyncio.Queue[Delta] = asyncio.Queue()
    limits = httpx.Timeout(LOAD_S, connect=10)
    async with httpx.AsyncClient(headers=address.headers, timeout=limits, trust_env=False) as client:
        tasks = [
            asyncio.create_task(_ask(client, address, column, model, messages, sampling, arrivals))
            for column, (model, messages) in enumerate(requests)
        ]
        try:
            left = len(tasks)
            while left:
                delta = await arrivals.get()
                left -= delta.done
                yield delta
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _ask(
    client: httpx.AsyncClient,
    address: Address,
    column: int,
    model: str,
    messages: list[dict[str, str]],
    sampling: Sampling,
    arrivals: asyncio.Queue[Delta],
) -> None:
    began, first, tokens = time.perf_counter(), None, 0
    body = {"model": model, "messages": messages, "stream": True} | sampling.model_dump(exclude_none=True)

    def delta(**values: Any) -> Delta:
        return Delta(column, tokens=tokens, seconds=time.perf_counter() - began, first_token_s=first, **values)

    try:
        async with client.stream("POST", f"{address.url}/v1/chat/completions", json=body) as answer:
            if answer.status_code != 200:
                await answer.aread()
                raise ServingError(_message(answer.text))
            async for line in answer.aiter_lines():
                if not line.startswith("data: ") or line == "data: [DONE]":
                    continue
                chunk = json.loads(line.removeprefix("data: "))
                if "error" in chunk:
                    raise ServingError(chunk["error"]["message"])
                first = first if first is not None else time.perf_counter() - began
                tokens = (chunk.get("usage") or {}).get("completion_tokens", tokens)
                arrivals.put_nowait(delta(text=chunk["choices"][0]["delta"].get("content", "")))
        arrivals.put_nowait(delta(done=True))
    except ServingError as error:
        arrivals.put_nowait(delta(done=True, error=str(error)))
    except (httpx.HTTPError, ValueError, KeyError) as error:
        text = f"The chat server at {address.url} went away ({type(error).__name__}). Send the message again."
        arrivals.put_nowait(delta(done=True, error=text))


def _message(text: str) -> str:
    try:
        return json.loads(text)["error"]["message"]
    except (ValueError, KeyError, TypeError):
        return text[:300] or "The chat server refused the request."


def _spawn(base: str, quantization: str) -> None:
    _wait_for_lock()
    command = [sys.executable, "-m", "studio.serving.server", "--base", base, "--quantization", quantization]
    with addresses.log_file().open("wb") as log:
        subprocess.Popen(
            command,
            cwd=CHECKOUT,
            env=os.environ | thread_environment() | {"STUDIO_HOME": str(home().path), "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _wait_for_lock() -> None:
    """Until no server holds the lock, so that two bases are never in memory at once."""
    try:
        with FileLock(addresses.lock_file(), timeout=30):
            pass
    except Timeout as error:
        raise ServingError("An earlier chat server does not end. Its log is " + str(addresses.log_file())) from error


def _wait_until_ready(tell: Callable[[str], None]) -> Address:
    until, asked_at = time.monotonic() + LOAD_S, time.monotonic()
    while time.monotonic() < until:
        address = addresses.read()
        state = _health(address) if address else None
        if state and state["error"]:
            raise ServingError(state["error"])
        if address and state and state["ready"]:
            return address
        if state is None and time.monotonic() - asked_at > 30:
            raise ServingError(f"The chat server did not start. Its log is {addresses.log_file()}.")
        if state:
            tell(state["phase"])
        time.sleep(0.2)
    raise ServingError(f"The base did not load within {LOAD_S:.0f} s. The log is {addresses.log_file()}.")


def _health(address: Address) -> dict[str, Any] | None:
    try:
        answer = httpx.get(f"{address.url}/health", headers=address.headers, timeout=5, trust_env=False)
        return answer.json() if answer.status_code == 200 else None
    except (httpx.HTTPError, ValueError):
        return None
