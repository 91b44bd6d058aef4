"""How far an audit is, told in time, and the wish to stop it, seen in time. Not here: what is done in each stage."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from studio.events import Emit, Phase

EVERY_S = 0.5

Item = TypeVar("Item")


class Stopped(Exception):
    """Somebody wants the audit to end. Never leaves studio.data.audit."""


class Pace:
    """Counts through a stage. Looks at the clock at each item, and does the rest twice a second."""

    def __init__(self, emit: Emit, stopping: Callable[[], bool]):
        self._emit, self._stopping = emit, stopping

    def through(self, items: Iterable[Item], name: str, total: int) -> Iterator[Item]:
        """The items of a stage, as they are. Raises: Stopped."""
        clock = time.monotonic
        done, due = 0, 0.0
        for done, item in enumerate(items):
            if clock() >= due:
                self.tell(name, done, total)
                due = clock() + EVERY_S
            yield item
        self.tell(name, total, total)

    def check(self) -> None:
        """Raises: Stopped."""
        if self._stopping():
            raise Stopped

    def tell(self, name: str, done: int, total: int) -> None:
        """Raises: Stopped."""
        self.check()
        self._emit(Phase(name=name, done=done, total=total, unit="rows"))
