"""The thread of the chat server that owns the model: takes requests as they come, and writes all answers side by side.

A request that arrives while others are being answered reads its prompt at once and shares their steps from then on. Not
here: HTTP (server).
"""

from __future__ import annotations

import asyncio
import queue
import re
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from studio.data.example import Message
from studio.errors import ServingError, StudioError
from studio.jobs import folder as folders
from studio.specs import ModelSpec, QuantizationSpec, Sampling, TrainSpec

GATHER_S = 0.03
"""How long a first request waits for its neighbours: two columns of one page arrive within milliseconds. One that comes
while others are answered waits for nobody."""

STEP = re.compile(r"[0-9]{1,9}")
ENDING = "The chat server is ending. Send the message again in a moment."


@dataclass(frozen=True)
class Wanted:
    """What is asked for: an answer to a conversation, or what follows a text. Fields as studio.engine.chat.Turn has."""

    model: str
    messages: Sequence[Message] = ()
    sampling: Sampling = field(default_factory=Sampling)
    prompt: str | Sequence[int] | None = None
    stop: Sequence[str] = ()
    logprobs: int | None = None


@dataclass
class Answer:
    """The pieces of one request, to be iterated in the event loop that asked."""

    wanted: Wanted
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

    def ask(self, wanted: Wanted, loop: asyncio.AbstractEventLoop) -> Answer:
        """Queue a request. Raises: ServingError: the base is not loaded."""
        if self._ending.is_set():
            raise ServingError(ENDING)
        if self.error or not self.ready:
            raise ServingError(self.error or f"{self._base} is still loading ({self.phase}). Try again in a moment.")
        self._last = time.monotonic()
        answer = Answer(wanted, loop)
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
        speaking: dict[int, Answer] = {}
        while not self._ending.is_set():
            asked = self._gather(busy=bool(speaking))
            prepared = [(answer, request) for answer in asked if (request := self._prepared(answer))]
            try:
                if prepared:
                    numbers = self._chat.begin([request for _, request in prepared])
                    speaking |= dict(zip(numbers, (answer for answer, _ in prepared), strict=True))
                for piece in self._chat.step() if speaking else ():
                    self._last = time.monotonic()
                    answer = speaking[piece.turn]
                    answer.put(piece if piece.error is None else _told(piece.error))
                    if piece.finish:
                        del speaking[piece.turn]
            except Exception as error:  # noqa: BLE001 - each reader is told; the server goes on with the next request
                told = _told(error)
                for answer in {id(each): each for each in (*speaking.values(), *(one for one, _ in prepared))}.values():
                    answer.put(told)
                speaking.clear()
                self._chat.forget()
        for answer in [*speaking.values(), *self._gather(busy=True)]:
            answer.put(ServingError(ENDING))

    def _gather(self, *, busy: bool) -> list[Answer]:
        """Those who wait. busy: whether others are being answered, so that nobody is waited for."""
        found: list[Answer | None] = []
        with suppress(queue.Empty):
            found.append(self._waiting.get(block=not busy))
            until = time.monotonic() + (0.0 if busy else GATHER_S)
            while True:
                found.append(self._waiting.get(timeout=max(0.0, until - time.monotonic())))
        return [answer for answer in found if answer is not None]

    def _prepared(self, answer: Answer) -> Any:
        """What the model needs to answer. None if it cannot: a fault of one request is told to its reader alone."""
        from studio.engine.chat import Turn

        wanted = answer.wanted
        try:
            model = wanted.model if wanted.model == "base" else self._add(wanted.model)
            turn = Turn(
                model,
                wanted.messages,
                wanted.sampling,
                lambda: answer.cancelled,
                prompt=wanted.prompt,
                stop=wanted.stop,
                logprobs=wanted.logprobs,
            )
            return self._chat.request(turn)
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


def _told(error: Exception) -> ServingError:
    """The text for the reader. What is not meant for one is in the log, whole."""
    if isinstance(error, StudioError):
        return ServingError(str(error))
    traceback.print_exception(error)
    return ServingError(f"The model failed: {type(error).__name__}: {error}")
