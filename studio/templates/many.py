"""Encode very many examples: in processes beside this one, one for each core, in the order in which they come.

Each process is confined (studio.sandbox.limits), so a stranger's template is written there like any other, and what
does not end is ended. Few examples are encoded right here, where that is done before a process would be ready. Not
here: what an example becomes (encoding), what is kept of it on disk (studio.engine.rows.conversations).
"""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import TypeVar

import orjson

from studio.data.example import Example
from studio.errors import StudioError
from studio.hardware import usable_cores
from studio.home import CHECKOUT
from studio.sandbox import frames
from studio.templates.confined import KEPT, LIMIT_S, MEMORY_MIB, START_S, Unfinished
from studio.templates.encoding_process import BROKEN, DONE, READY
from studio.templates.packed import Packed, pack, request
from studio.templates.rendering import Template
from studio.templates.supervision import Policy
from studio.templates.tokenizer import TextTokenizer

BATCH = 256
"""Examples that go to a process at once: some 50 ms of work, beside which the way there and back is nothing."""
BATCH_CHARACTERS = 2_000_000
"""Fewer go at once where they are long."""
FEW = 2000
"""Up to so many examples are encoded in this process: it would take a second until others are ready."""
MOST_PROCESSES = 32
"""Each holds a tokenizer, which is a few hundred MiB."""
MOST_UNFINISHED = 3
"""After so many examples that took too long or too much memory there is no hope for the others."""
BATCH_LIMIT_S = 15.0
CHARACTERS_PER_S = 200_000
"""A tenth of what one slow core tokenizes: a long example gets so much more time."""


_TUNED = {
    # the processes themselves are what takes all cores
    "TOKENIZERS_PARALLELISM": "false",
    # a tokenizer takes and returns thousands of small pieces of memory a row: kept at hand they cost a tenth less time
    # in all; only Linux with glibc knows this
    "GLIBC_TUNABLES": "glibc.malloc.tcache_count=4000",
}


@dataclass(frozen=True)
class Limits:
    """What one example may take, and a batch of them before each of it is tried alone. memory_mib: of a process."""

    example_s: float = LIMIT_S
    batch_s: float = BATCH_LIMIT_S
    memory_mib: int = MEMORY_MIB

    def of(self, examples: Sequence[Example]) -> float:
        """Seconds for these."""
        return (self.batch_s if len(examples) > 1 else self.example_s) + sum(
            map(characters, examples)
        ) / CHARACTERS_PER_S


Tag = TypeVar("Tag")


def batches(rows: Iterable[tuple[Tag, Example]]) -> Iterator[tuple[list[Tag], list[Example]]]:
    """Examples in batches of a good size, with whatever is to be known of each."""
    tags: list[Tag] = []
    examples: list[Example] = []
    length = 0
    for tag, example in rows:
        tags.append(tag)
        examples.append(example)
        length += characters(example)
        if len(examples) == BATCH or length >= BATCH_CHARACTERS:
            yield tags, examples
            tags, examples, length = [], [], 0
    if examples:
        yield tags, examples


class Encoder:
    """Encodes batches of examples. A context: afterwards no process is left, whatever happened.

    Where more than `ahead` batches wait, take the oldest before you submit another: more keep no process busier.
    """

    def __init__(
        self,
        template: Template,
        tokenizer: TextTokenizer,
        policy: Policy,
        *,
        examples: int,
        measured: bool = False,
        processes: int | None = None,
        limits: Limits = Limits(),
    ):
        """examples: about how many will come. measured: as pack(). processes: 0 is none; None: as many as make sense.

        The processes start at once, and get ready while the first batches are read.
        """
        self._template, self._tokenizer, self._policy = template, tokenizer, policy
        self._measured, self._limits = measured, limits
        self._count = _wanted(examples, template) if processes is None else processes
        self._unfinished = 0
        self._counting = threading.Lock()  # of _unfinished
        self._closed = False
        self._idle: queue.SimpleQueue[_Process] = queue.SimpleQueue()
        self._processes: list[_Process] = []
        self._threads = ThreadPoolExecutor(self._count, "encoding") if self._count else None
        if self._count:
            setup = _setup(template, tokenizer, policy, measured)
            for _ in range(self._count):
                self._processes.append(_Process(setup, limits.memory_mib))
                self._idle.put(self._processes[-1])

    def __enter__(self) -> Encoder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def ahead(self) -> int:
        """How many batches may wait, as far as that is of use."""
        return 3 * self._count

    def submit(self, examples: Sequence[Example]) -> Future[Packed]:
        """Encode a batch; the result may raise Unfinished: too many examples did not finish."""
        if self._threads is None:
            found: Future[Packed] = Future()
            found.set_result(self._here(examples))
            return found
        return self._threads.submit(self._there, examples)

    def close(self) -> None:
        """End the processes, whatever they do."""
        self._closed = True
        for process in self._processes:
            process.end()
        if self._threads is not None:
            self._threads.shutdown(wait=True, cancel_futures=True)
        for process in self._processes:  # one that was started meanwhile
            process.end()

    @property
    def pids(self) -> list[int]:
        return [process.pid for process in self._processes if process.pid]

    def _here(self, examples: Sequence[Example]) -> Packed:
        packed = pack(
            examples,
            self._template,
            self._tokenizer,
            self._policy,
            measured=self._measured,
            most_unfinished=MOST_UNFINISHED,
        )
        self._count_unfinished(packed)
        return packed

    def _there(self, examples: Sequence[Example]) -> Packed:
        process = self._idle.get()
        try:
            found = self._asked(process, examples)
            if found is None:
                # one of them is guilty
                found = Packed.joined([self._alone(process, each) for each in examples])
            else:
                self._count_unfinished(found)
            return found
        finally:
            self._idle.put(process)

    def _alone(self, process: _Process, example: Example) -> Packed:
        found = self._asked(process, [example])
        if found is None:
            found = Packed.refused(self._why(process))
        self._count_unfinished(found)
        return found

    def _asked(self, process: _Process, examples: Sequence[Example]) -> Packed | None:
        """None where there is no answer, because the process was ended."""
        if self._closed:
            raise CancelledError
        answer = process.ask(request(examples, (limit_s := self._limits.of(examples)) + 5), limit_s)
        if self._closed:
            raise CancelledError
        return None if answer is None else Packed.from_bytes(answer)

    def _count_unfinished(self, packed: Packed) -> None:
        if not packed.unfinished:
            return
        with self._counting:
            self._unfinished += len(packed.unfinished)
            hopeless = self._unfinished >= MOST_UNFINISHED
        if hopeless:
            said = packed.refusals[packed.unfinished[-1]]
            raise Unfinished(f"{said} It was so for {MOST_UNFINISHED} rows, so the others were not tried.")

    def _why(self, process: _Process) -> str:
        name = self._template.name
        if process.took_too_long:
            return (
                f"Template '{name}' did not finish within {self._limits.example_s:g} s: it may hold a loop without "
                "end. Look at its loops and macros, or choose another template."
            )
        return (
            f"Template '{name}' ended the process that wrote it, because it nests too deeply or needs more than "
            f"{self._limits.memory_mib:,} MiB of memory. Look for macros that call themselves and for texts that grow, "
            "or choose another template."
        )


class _Process:
    """One process. It is asked by one thread at a time, and ended by any."""

    def __init__(self, setup: bytes, memory_mib: int):
        """Raises: StudioError: it cannot be started."""
        self._setup, self._memory_mib = setup, memory_mib
        self._lock = threading.Lock()  # held while the process is replaced or ended
        self._ended = self.took_too_long = self._ready = False
        self._process = self._started()

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, data: bytes, limit_s: float) -> bytes | None:
        """The answer; None where there is none, because the process ended or took too long. The next one is new.

        Raises: StudioError: it does not become ready. RuntimeError: what was wrong inside.
        """
        if not self._ready:
            self._get_ready()
        answer = self._exchanged(data, limit_s)
        if answer is None:
            self._replace()
        elif answer.startswith(BROKEN):
            raise RuntimeError(answer.removeprefix(BROKEN).decode())
        return answer and answer.removeprefix(DONE)

    def end(self) -> None:
        """End it for good."""
        with self._lock:
            self._ended = True
            _end(self._process)

    def _get_ready(self) -> None:
        answer = self._exchanged(self._setup, START_S)
        if answer is not None and answer.startswith(BROKEN):
            raise RuntimeError(answer.removeprefix(BROKEN).decode())
        if answer != READY and not self._ended:
            raise _unstartable("it does not answer")
        self._ready = True

    def _exchanged(self, data: bytes, limit_s: float) -> bytes | None:
        process = self._process
        late = threading.Event()

        def stop() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(limit_s, stop)
        timer.daemon = True
        timer.start()
        try:
            frames.send_bytes(process.stdin, data)
            return frames.receive_bytes(process.stdout)
        except (OSError, ValueError):  # it was ended in the middle, or its pipes are closed
            return None
        finally:
            timer.cancel()
            self.took_too_long = late.is_set()

    def _replace(self) -> None:
        with self._lock:
            _end(self._process)
            self._ready = False
            if not self._ended:
                self._process = self._started()

    def _started(self) -> subprocess.Popen[bytes]:
        environment = {key: os.environ[key] for key in (*KEPT, "STUDIO_HOME") if key in os.environ}
        arguments = [sys.executable, "-m", "studio.templates.encoding_process", str(self._memory_mib)]
        try:
            return subprocess.Popen(
                arguments,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd=CHECKOUT,
                env=environment | _TUNED,
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
            )
        except OSError as error:
            raise _unstartable(error.strerror or str(error)) from error


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        with contextlib.suppress(OSError):  # what was not yet written goes nowhere
            stream.close()


def _unstartable(reason: str) -> StudioError:
    return StudioError(
        f"The process in which rows are tokenised cannot be started: {reason}. See that {sys.executable} can be run "
        "and that memory is free."
    )


def _wanted(examples: int, template: Template) -> int:
    """How many processes are worth their start."""
    cores = usable_cores()
    if examples <= FEW or (cores == 1 and template.origin == "shipped"):
        return 0
    return min(cores, MOST_PROCESSES, -(-examples // BATCH))


def _setup(template: Template, tokenizer: TextTokenizer, policy: Policy, measured: bool) -> bytes:
    return orjson.dumps(
        {
            "tokenizer": tokenizer.backend.to_str(),
            "specials": tokenizer.specials,
            "chat_template": tokenizer.chat_template,
            "template": asdict(template),
            "policy": asdict(policy),
            "measured": measured,
        }
    )


def characters(example: Example) -> int:
    """About how long it is."""
    said = sum(len(turn.content) + len(turn.thought) for turn in example.messages)
    return said + len(example.text or "") + len(example.tools)
