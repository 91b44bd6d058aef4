"""Start the chat server, and talk to it: several conversations at once, streamed.

Without importing torch; the page and the shell use this. Any OpenAI-compatible server could stand at the address.
Not here: the server (studio.serving.server).
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import httpx
from filelock import FileLock, Timeout

from studio.errors import ServingError
from studio.home import home
from studio.jobs.executors.local import detach
from studio.serving import address as addresses
from studio.serving.address import Address
from studio.specs import Sampling

LOAD_S = 600.0
"""A base that has not loaded after this long is given up."""

SILENCE_S = 30.0
"""A server that loads and does not answer for this long is not there. Its imports can hold it for seconds."""

END_S = 30.0
"""How long an ending server may take to let go of its memory."""


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
    try:
        with FileLock(home().run / "ensure.lock", timeout=LOAD_S):
            address, process = running(), None
            if address is None or (address.base, address.quantization) != (base, quantization):
                stop()  # also one that failed, and only lingers to say why
                tell("start")
                process = _spawn(base, quantization)
            return _wait_until_ready(tell, process)
    except Timeout as error:
        raise ServingError(f"Another base has been loading for {LOAD_S:.0f} s. Try again in a moment.") from error


def running() -> Address | None:
    """The address of the server that is alive now, or None."""
    address = addresses.read()
    state = _health(address) if address else None
    return address if state and not state["error"] else None


def stop() -> None:
    """End the server, if one runs, and wait until its memory is free."""
    address = addresses.read()
    if address is None:
        return
    with suppress(httpx.HTTPError, httpx.InvalidURL):  # it may have gone already
        httpx.post(f"{address.url}/shutdown", headers=address.headers, timeout=10, trust_env=False)
    _wait_for_lock()


def models(address: Address) -> list[str]:
    """Names that can be asked: base, runs, and checkpoints as RUN@STEP."""
    try:
        answer = httpx.get(f"{address.url}/v1/models", headers=address.headers, timeout=30, trust_env=False)
        return [entry["id"] for entry in answer.json()["data"]]
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, LookupError, TypeError) as error:
        raise ServingError(f"The chat server at {address.url} does not answer. Send the message again.") from error


async def stream(
    address: Address, requests: Sequence[tuple[str, list[dict[str, str]]]], sampling: Sampling
) -> AsyncIterator[Delta]:
    """Ask all (model, messages) at once and yield what comes, interleaved, until every column is done.

    Closing the iterator cancels the requests on the server.
    """
    arrivals: asyncio.Queue[Delta | BaseException] = asyncio.Queue()

    def pass_on_a_bug(task: asyncio.Task[None]) -> None:
        # a column that ends without its last word would leave the reader waiting for ever
        if not task.cancelled() and (error := task.exception()):
            arrivals.put_nowait(error)

    limits = httpx.Timeout(LOAD_S, connect=10)
    async with httpx.AsyncClient(headers=address.headers, timeout=limits, trust_env=False) as client:
        tasks = [
            asyncio.create_task(_ask(client, address, column, model, messages, sampling, arrivals))
            for column, (model, messages) in enumerate(requests)
        ]
        for task in tasks:
            task.add_done_callback(pass_on_a_bug)
        try:
            left = len(tasks)
            while left:
                delta = await arrivals.get()
                if isinstance(delta, BaseException):
                    raise delta
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
    arrivals: asyncio.Queue[Delta | BaseException],
) -> None:
    began, first, tokens, whole = time.perf_counter(), None, 0, False
    body = {"model": model, "messages": messages, "stream": True} | sampling.model_dump(exclude_none=True)

    def delta(**values: Any) -> Delta:
        return Delta(column, tokens=tokens, seconds=time.perf_counter() - began, first_token_s=first, **values)

    try:
        async with client.stream("POST", f"{address.url}/v1/chat/completions", json=body) as answer:
            if answer.status_code != 200:
                await answer.aread()
                raise ServingError(_message(answer.text))
            async for line in answer.aiter_lines():
                if not line.startswith("data: "):
                    continue
                if line == "data: [DONE]":
                    whole = True
                    break
                chunk = json.loads(line.removeprefix("data: "))
                if "error" in chunk:
                    raise ServingError(chunk["error"]["message"])
                first = first if first is not None else time.perf_counter() - began
                tokens = (chunk.get("usage") or {}).get("completion_tokens", tokens)
                # other servers end with a chunk without choices, and write null for "no new text"
                for choice in chunk["choices"]:
                    arrivals.put_nowait(delta(text=choice["delta"].get("content") or ""))
        if not whole:
            raise ServingError(f"The chat server at {address.url} ended in the middle. Send the message again.")
        arrivals.put_nowait(delta(done=True))
    except ServingError as error:
        arrivals.put_nowait(delta(done=True, error=str(error)))
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        text = f"The chat server at {address.url} went away ({type(error).__name__}). Send the message again."
        arrivals.put_nowait(delta(done=True, error=text))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        text = f"The answer of {address.url} is not that of a chat server ({type(error).__name__}: {error})."
        arrivals.put_nowait(delta(done=True, error=text))


def _message(text: str) -> str:
    try:
        return json.loads(text)["error"]["message"]
    except (ValueError, LookupError, TypeError):
        return text[:300] or "The chat server refused the request."


def _spawn(base: str, quantization: str) -> subprocess.Popen[bytes]:
    _wait_for_lock()
    arguments = (f"--base={base}", f"--quantization={quantization}")
    try:
        with addresses.log_file().open("wb") as log:
            return detach("studio.serving.server", *arguments, log=log)
    except (OSError, ValueError) as error:
        raise ServingError(f"The chat server could not be started: {error}.") from error


def _wait_for_lock() -> None:
    """Until no server holds the lock, so that two bases are never in memory at once."""
    try:
        with FileLock(addresses.lock_file(), timeout=END_S):
            pass
    except Timeout as error:
        raise ServingError("An earlier chat server does not end. Its log is " + str(addresses.log_file())) from error


def _wait_until_ready(tell: Callable[[str], None], process: subprocess.Popen[bytes] | None) -> Address:
    """process: the server's, if it was started here; its early end is then seen at once."""
    until, heard_at = time.monotonic() + LOAD_S, time.monotonic()
    while time.monotonic() < until:
        ended = process is not None and process.poll() is not None
        address = addresses.read()
        state = _health(address) if address else None
        if state and state["error"]:
            raise ServingError(state["error"])
        if address and state and state["ready"]:
            return address
        if state:
            heard_at = time.monotonic()
            tell(state["phase"])
        elif ended:
            raise ServingError(f"The chat server ended while it was starting. Its log is {addresses.log_file()}.")
        elif time.monotonic() - heard_at > SILENCE_S:
            raise ServingError(f"The chat server does not answer. Its log is {addresses.log_file()}.")
        time.sleep(0.2)
    raise ServingError(f"The base did not load within {LOAD_S:.0f} s. The log is {addresses.log_file()}.")


def _health(address: Address) -> dict[str, Any] | None:
    """ready, phase and error; None if nobody answers, or somebody who is no chat server."""
    try:
        answer = httpx.get(f"{address.url}/health", headers=address.headers, timeout=5, trust_env=False)
        state = answer.json() if answer.status_code == 200 else None
    except (httpx.HTTPError, httpx.InvalidURL, ValueError):
        return None
    return state if isinstance(state, dict) and {"ready", "phase", "error"} <= state.keys() else None
