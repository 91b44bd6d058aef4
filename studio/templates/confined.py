"""Have strangers' templates written in processes of their own, which hold to limits of time and memory.

A process is started when the first such template comes, kept for the next ones, and ended with the studio; one that
takes too long, or too much memory, is ended at once and another one takes its place. There are at most CHILDREN: with
one, a template that never ends would hold up everybody for LIMIT_S; with more, so many of them would take all cores of
a small machine. Not here: what a child does (studio.sandbox.child); whole data sets (studio.templates.many).
"""

from __future__ import annotations

import atexit
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from studio.errors import StudioError, TemplateError
from studio.home import CHECKOUT
from studio.sandbox import frames

LIMIT_S = 5.0
"""For one rendering. A long conversation takes some milliseconds, so this is a thousand times what is needed, and yet
short enough to wait for."""
MEMORY_MIB = 1024
"""Of address space. A child needs 30 MiB, and the longest text that may be written about 400 more on its way out."""
CHILDREN = 2
START_S = 60.0
"""A child is ready after 0.1 s. On a machine that is very busy it may take long, which is no fault of the template."""

KEPT = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "SYSTEMROOT", "TZ")
"""What a child gets of the environment: what Python needs, and the time zone; no tokens, no secrets, no names."""


class Unfinished(TemplateError):
    """A template was ended because it took too long or too much memory; to try it again would take as long again."""


class Confined:
    """Processes that answer requests, some at a time."""

    def __init__(self, *, limit_s: float = LIMIT_S, memory_mib: int = MEMORY_MIB, children: int = CHILDREN):
        self.limit_s, self.memory_mib = limit_s, memory_mib
        self._room = threading.BoundedSemaphore(children)
        self._idle: list[_Child] = []  # list.append and list.pop are whole by themselves

    def ask(self, name: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """What studio.sandbox.jinja.answer says to a request. name: of the template, for what is told.

        Raises: Unfinished: it took too long or too much memory.
        """
        with self._room:
            child = self._child()
            try:
                found = child.ask(request, self.limit_s)
            except BaseException:  # whatever it is, its answer may still come, and would be taken for that of another
                child.end()
                raise
            if found is None or found.get("fault") == "memory":
                child.end()
            else:
                self._idle.append(child)
        if found is None:
            raise _ended(name, child.took_too_long, self.limit_s)
        if found.get("fault") == "memory":
            raise Unfinished(
                f"Template '{name}' needs more than {self.memory_mib:,} MiB of memory to be written, so it was ended. "
                "Look for texts or lists in it that grow in a loop, or choose another template."
            )
        return found

    def close(self) -> None:
        """End the processes that wait. Others may be started afterwards."""
        while self._idle:
            self._idle.pop().end()

    def pids(self) -> list[int]:
        """Of the processes that wait for work."""
        return [child.pid for child in self._idle]

    def _child(self) -> _Child:
        """One that waits, or a new one."""
        while True:
            try:
                child = self._idle.pop()
            except IndexError:
                return _Child(self.memory_mib * 1024**2, self.limit_s)
            if child.lives():
                return child
            child.end()


class _Child:
    """One process and the thread that reads what it answers, because waiting for a pipe has no portable time limit."""

    def __init__(self, memory_bytes: int, limit_s: float):
        """Raises: StudioError: it cannot be started."""
        self.took_too_long = False
        self._text = ""
        # a little more than whoever waits allows: it ends by itself if that one was killed
        arguments = [sys.executable, "-m", "studio.sandbox.child", str(memory_bytes), str(limit_s + 2)]
        try:
            self._process = subprocess.Popen(
                arguments,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd=CHECKOUT,
                env={key: os.environ[key] for key in KEPT if key in os.environ},
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
            )
        except OSError as error:
            raise _unstartable(error.strerror or str(error)) from error
        self.pid = self._process.pid
        self._answers: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        threading.Thread(target=self._read, name="template answers", daemon=True).start()
        if self._next(START_S) is None:
            self.end()
            raise _unstartable("it does not answer")

    def ask(self, request: Mapping[str, Any], limit_s: float) -> dict[str, Any] | None:
        """The answer; None where there is none, because the process ended or took too long."""
        text = request["text"]
        if text == self._text:
            request = {key: value for key, value in request.items() if key != "text"}
        self._text = text
        try:
            frames.send(self._process.stdin, request)
        except OSError:
            return None
        return self._next(limit_s)

    def lives(self) -> bool:
        return self._process.poll() is None

    def end(self) -> None:
        """End the process, whatever it does."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            with suppress(OSError):  # what was not yet written goes nowhere
                stream.close()

    def _next(self, limit_s: float) -> dict[str, Any] | None:
        try:
            return self._answers.get(timeout=limit_s)
        except queue.Empty:
            self.took_too_long = True
            return None

    def _read(self) -> None:
        with suppress(OSError, ValueError):  # it was ended in the middle of an answer, or does not answer in frames
            while (found := frames.receive(self._process.stdout)) is not None:
                self._answers.put(found)
        self._answers.put(None)


def _ended(name: str, took_too_long: bool, limit_s: float) -> Unfinished:
    if took_too_long:
        return Unfinished(
            f"Template '{name}' did not finish within {limit_s:g} s: it may hold a loop without end. Look at its loops "
            "and macros, or choose another template."
        )
    return Unfinished(
        f"Template '{name}' ended the process that wrote it, because it nests too deeply or needs too much memory. "
        "Look for macros that call themselves and for texts that grow, or choose another template."
    )


def _unstartable(reason: str) -> StudioError:
    return StudioError(
        f"The process in which strangers' templates are written cannot be started: {reason}. See that "
        f"{sys.executable} can be run and that memory is free, or choose a template that comes with the studio."
    )


shared = Confined()
"""The processes of this studio."""


def _forget() -> None:
    """After a fork the pipes belong to the parent."""
    global shared
    shared = Confined()


atexit.register(lambda: shared.close())
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
