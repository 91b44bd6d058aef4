"""The thread of the chat server that owns the model: takes requests, decodes those that come together in one batch.

Requests that arrive while others are being answered start at once, in turn with them. Not here: HTTP (server).
"""

from __future__ import annotations

import asyncio
import queue
import re
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from studio.data.example import Message
from studio.errors import ServingError, StudioError
from studio.jobs import folder as folders
from studio.specs import ModelSpec, QuantizationSpec, Sampling, TrainSpec

GATHER_S = 0.03
"""How long a first request waits for its neighbours: two columns of one page arrive within milliseconds."""

STEP = re.compile(r"[0-9]{1,9}")
ENDING = "The chat server is ending. Send the message again in a moment."


@dataclass
class Answer:
    """The pieces of one request, to be iterated in the event loop that asked."""

    model: str
    messages: list[Message]
    sampling: Sampling
    loop: asyncio.AbstractEventLoop
    pieces: asyncio.Queue[Any] = field(default_factory=asyncio.Queue)
    _cancelled: threading.Event = field(default_factory=threading.Event)

    def cancel(self) -> None:
        self._cancelled.set()

    @property
    def cancelled(self) -> bool:
        return self._cancelled.is_set()

    def put(self, item: Any) -> None:
        """From the scheduler's thread. A loop that has closed has no reader left."""
        try:
            self.loop.call_soon_threadsafe(self.pieces.put_nowait, item)
        except RuntimeError:
            self.cancel()

    async def __aiter__(self) -> Any:
        while True:
            item = await self.pieces.get()
            if isinstance(item, Exception):
                raise item
            yield item
            if item.finish:
                return


class Scheduler:
    """Loads the base in its own thread, then answers. `end` stops it; `on_end` is called when it stops."""

    def __init__(self, base: str, quantization: str):
        self._base = base
        self._quantization = quantization
        self._waiting: queue.Queue[Answer | None] = queue.Queue()
        self._ending = threading.Event()
        self._last = time.monotonic()
        self._chat: Any = None
        self.phase = "start"
        self.error: str | None = None
        self.on_end: Callable[[], None] = lambda: None
        self._thread = threading.Thread(target=self._run, name="scheduler", daemon=True)

    @property
    def ready(self) -> bool:
        return self._chat is not None

    @property
    def names(self) -> list[str]:
        """base, and every run and checkpoint on this base."""
        found = ["base"]
        for folder in folders.every():
            try:
                if folder.read_about()["kind"] != "train" or folder.read_spec().model.name != self._base:
                    continue
            except StudioError:
                continue
            steps = folder.checkpoint_steps()
            if steps or folder.adapter.is_dir():
                found += [folder.id, *(f"{folder.id}@{step}" for step in steps)]
        return found

    @property
    def idle_s(self) -> float:
        """Seconds since the last request. Loading is not idle: a download can take hours."""
        return time.monotonic() - self._last if self.ready or self.error else 0.0

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        """Give up every answer at its next step; those who wait for one are told."""
        self._ending.set()
        self._waiting.put(None)  # wakes the thread
        if not self.ready:
            self.on_end()  # nothing can interrupt the loading, so nobody waits for it

    def join(self, timeout_s: float) -> None:
        """Wait until the thread has let go of the model."""
        self._thread.join(timeout_s)

    def ask(self, model: str, messages: list[Message], sampling: Sampling, loop: asyncio.AbstractEventLoop) -> Answer:
        """Queue a conversation. Raises: ServingError: the base is not loaded."""
        if self._ending.is_set():
            raise ServingError(ENDING)
        if self.error or not self.ready:
            raise ServingError(self.error or f"{self._base} is still loading ({self.phase}). Try again in a moment.")
        self._last = time.monotonic()
        answer = Answer(model, messages, sampling, loop)
        self._waiting.put(answer)
        return answer

    def _run(self) -> None:
        try:
            self._load()
            self._last = time.monotonic()
            self._serve()
        except StudioError as error:
            self._fail(str(error))
        except Exception as error:  # noqa: BLE001 - said on /health, whole in the log; the process cannot go on
            traceback.print_exc()
            self._fail(f"{type(error).__name__}: {error}")
        self.on_end()

    def _load(self) -> None:
        import studio.engine.stack  # noqa: F401  # seconds of imports, in this thread
        from studio.engine.chat import Chat

        def progress(name: str, *_: Any) -> None:
            self.phase = name

        self._chat = Chat(ModelSpec(name=self._base), QuantizationSpec(kind=self._quantization), progress)
        self.phase = "ready"

    def _fail(self, text: str) -> None:
        """Stay up long enough for the client to read why."""
        self._chat, self.error = None, text
        self._ending.wait(20)

    def _serve(self) -> None:
        active: list[_Batch] = []
        while not self._ending.is_set():
            asked = self._gather(block=not active)
            if asked:
                active.append(_Batch(asked, self._answer(asked)))
            active = [batch for batch in active if next(batch.work, self) is None]
            if active:
                self._last = time.monotonic()
        for answer in [*(answer for batch in active for answer in batch.answers), *self._gather(block=False)]:
            answer.put(ServingError(ENDING))

    def _gather(self, *, block: bool) -> list[Answer]:
        try:
            batch = [self._waiting.get(block=block)]
        except queue.Empty:
            return []
        until = time.monotonic() + GATHER_S
        while (left := until - time.monotonic()) > 0:
            try:
                batch.append(self._waiting.get(timeout=left))
            except queue.Empty:
                break
        return [answer for answer in batch if answer is not None]

    def _answer(self, batch: list[Answer]) -> Iterator[None]:
        """Decode a batch, one piece per `next`, so that batches take turns."""
        prepared = [(answer, request) for answer in batch if (request := self._prepared(answer))]
        try:
            for piece in self._chat.answer([request for _, request in prepared]) if prepared else ():
                prepared[piece.turn][0].put(piece)
                yield
        except Exception as error:  # noqa: BLE001 - each reader is told; the server goes on with the next request
            told = _told(error)
            for answer, _ in prepared:
                answer.put(told)

    def _prepared(self, answer: Answer) -> Any:
        """What the model needs to answer. None if it cannot: a fault of one request is told to its reader alone."""
        from studio.engine.chat import Turn

        try:
            model = answer.model if answer.model == "base" else self._add(answer.model)
            return self._chat.request(Turn(model, answer.messages, answer.sampling, lambda: answer.cancelled))
        except Exception as error:  # noqa: BLE001 - a damaged folder must not end the server
            answer.put(_told(error))
            return None

    def _add(self, model: str) -> str:
        """Load RUN or RUN@STEP and return the name it is held by: a running run's name means another step each time."""
        run, _, step = model.partition("@")
        folder = folders.find(run)
        spec = folder.read_spec()
        if not isinstance(spec, TrainSpec) or (step and not STEP.fullmatch(step)):
            raise ServingError(f"{model} is not a training run or a checkpoint RUN@STEP of one.")
        if spec.model.name != self._base:
            raise ServingError(f"{run} was trained on {spec.model.name}, but this server holds {self._base}.")
        adapter = folder.adapter_at(int(step) if step else None)
        name = run if adapter == folder.adapter else f"{run}@{adapter.name.removeprefix('checkpoint-')}"
        self._chat.add(name, adapter, spec)
        return name


@dataclass(frozen=True)
class _Batch:
    """Answers that are written together. work: one piece of one of them per `next`."""

    answers: list[Answer]
    work: Iterator[None]


def _told(error: Exception) -> ServingError:
    """The text for the reader. What is not meant for one is in the log, whole."""
    if isinstance(error, StudioError):
        return ServingError(str(error))
    traceback.print_exception(error)
    return ServingError(f"The model failed: {type(error).__name__}: {error}")
