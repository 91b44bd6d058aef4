"""The thread of the chat server that owns the model: takes requests, decodes those that come together in one batch.

Requests that arrive while others are being answered start at once, in turn with them. Not here: HTTP (server).
"""

from __future__ import annotations

import asyncio
import queue
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
    """Loads the base in its own thread, then answers. `end` stops it; `on_end` is called once when it stops."""

    def __init__(self, base: str, quantization: str):
        self._base = base
        self._quantization = quantization
        self._waiting: queue.Queue[Answer] = queue.Queue()
        self._ending = threading.Event()
        self._last = time.monotonic()
        self._chat: Any = None
        self.phase = "start"
        self.error: str | None = None
        self.on_end: Callable[[], None] = lambda: None

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
        return time.monotonic() - self._last

    def start(self) -> None:
        threading.Thread(target=self._run, name="scheduler", daemon=True).start()

    def end(self) -> None:
        self._ending.set()

    def ask(self, model: str, messages: list[Message], sampling: Sampling, loop: asyncio.AbstractEventLoop) -> Answer:
        """Queue a conversation. Raises: ServingError: the base is not loaded."""
        if self.error or not self.ready:
            raise ServingError(self.error or f"{self._base} is still loading ({self.phase}). Try again in a moment.")
        self._last = time.monotonic()
        answer = Answer(model, messages, sampling, loop)
        self._waiting.put(answer)
        return answer

    def _run(self) -> None:
        try:
            self._load()
            self._serve()
        except StudioError as error:
            self._fail(str(error))
        except Exception as error:  # noqa: BLE001 - said on /health, whole in the log; the process cannot go on
            traceback.print_exc()
            self._fail(f"{type(error).__name__}: {error}")
        self.on_end()

    def _load(self) -> None:
        from studio.engine.chat import Chat  # seconds of imports, in this thread

        def progress(name: str, *_: Any) -> None:
            self.phase = name

        self._chat = Chat(ModelSpec(name=self._base), QuantizationSpec(kind=self._quantization), progress)
        self.phase = "ready"

    def _fail(self, text: str) -> None:
        """Stay up long enough for the client to read why."""
        self._chat, self.error = None, text
        self._ending.wait(20)

    def _serve(self) -> None:
        active: list[Iterator[None]] = []
        while not self._ending.is_set():
            batch = self._gather(block=not active)
            if batch:
                active.append(self._answer(batch))
            active = [work for work in active if next(work, self) is None]
            if active:
                self._last = time.monotonic()

    def _gather(self, *, block: bool) -> list[Answer]:
        try:
            batch = [self._waiting.get(block=block, timeout=0.5 if block else None)]
        except queue.Empty:
            return []
        until = time.monotonic() + GATHER_S
        while (left := until - time.monotonic()) > 0:
            try:
                batch.append(self._waiting.get(timeout=left))
            except queue.Empty:
                break
        return batch

    def _answer(self, batch: list[Answer]) -> Iterator[None]:
        """Decode a batch, one step per `next`, so that batches take turns."""
        from studio.engine.chat import Turn

        ready = [answer for answer in batch if self._has_model(answer)]
        turns = [
            Turn(answer.model, answer.messages, answer.sampling, lambda answer=answer: answer.cancelled)
            for answer in ready
        ]
        try:
            for piece in self._chat.answer(turns) if turns else ():
                ready[piece.turn].put(piece)
                yield
        except Exception as error:  # noqa: BLE001 - each reader is told; the server goes on with the next request
            traceback.print_exc()
            text = (
                str(error) if isinstance(error, StudioError) else f"The model failed: {type(error).__name__}: {error}"
            )
            for answer in ready:
                answer.put(ServingError(text))

    def _has_model(self, answer: Answer) -> bool:
        """Load the adapter that a request names, the first time. A wrong name is told to its reader alone."""
        try:
            if answer.model != "base":
                answer.model = self._add(answer.model)
        except StudioError as error:
            answer.put(ServingError(str(error)))
            return False
        return True

    def _add(self, model: str) -> str:
        """Load RUN or RUN@STEP and return the name it is held by: a running run's name means another step each time."""
        run, _, step = model.partition("@")
        folder = folders.find(run)
        spec = folder.read_spec()
        if not isinstance(spec, TrainSpec) or (step and not step.isdigit()):
            raise ServingError(f"{model} is not a training run or a checkpoint RUN@STEP of one.")
        if spec.model.name != self._base:
            raise ServingError(f"{run} was trained on {spec.model.name}, but this server holds {self._base}.")
        adapter = folder.adapter_at(int(step) if step else None)
        name = run if adapter == folder.adapter else f"{run}@{adapter.name.removeprefix('checkpoint-')}"
        self._chat.add(name, adapter, spec)
        return name
