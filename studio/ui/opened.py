"""Rows that a browser looks at before it registers them, and the pass over them that is under way, each by a token.

Only the token travels to the page's session; the rows stay in their store. Not here: reading (studio.data.intake).
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from studio.data.intake import Intake, Progress, Watch
from studio.data.readers import Unit
from studio.errors import DataError
from studio.ui.waiting import while_working

Result = TypeVar("Result")


@dataclass
class Opened:
    """What one browser has open.

    files: to read again in another unit of plain text; empty for rows of the hub. by_hand: the reading was chosen.
    """

    files: tuple[str, ...] = ()
    unit: Unit = "line"
    by_hand: bool = False
    intake: Intake | None = None
    progress: Progress | None = None
    stopping: threading.Event = field(default_factory=threading.Event)

    def tell(self, progress: Progress) -> None:
        self.progress = progress


_lock = threading.Lock()
_all: dict[str, Opened] = {}
"""Under the lock: entries come and go; an Opened itself is changed only by the one pass over it."""


def start(files: Sequence[str] = ()) -> str:
    """A place for new rows. Returns: its token."""
    token = secrets.token_hex(16)
    with _lock:
        _all[token] = Opened(tuple(files))
    return token


def get(token: str) -> Opened:
    """What is open under a token. Raises: DataError: nothing is, any more."""
    with _lock:
        found = _all.get(token)
    if found is None:
        raise DataError("This file is not open any more. Choose it again.")
    return found


def rows(token: str) -> Intake:
    """The rows that were taken in. Raises: DataError: none were, or they are not open any more."""
    found = get(token).intake
    if found is None:
        raise DataError("The file was not read to its end. Choose it again.")
    return found


def is_open(token: str) -> bool:
    with _lock:
        return token in _all


def has_rows(token: str) -> bool:
    """Whether rows were taken in and are still open."""
    with _lock:
        found = _all.get(token)
    return found is not None and found.intake is not None


def stop(token: str) -> None:
    """Let the pass under way end."""
    with _lock:
        found = _all.get(token)
    if found is not None:
        found.stopping.set()


def forget(token: str) -> None:
    """End what is under way, and delete rows that were not registered."""
    with _lock:
        found = _all.pop(token, None)
    if found is None:
        return
    found.stopping.set()
    if found.intake is not None:
        found.intake.discard()


def passing(
    token: str, work: Callable[[Watch], Result], told: Callable[[Progress | None, float], Any]
) -> Generator[Any, None, Result]:
    """Do something that watches, in a thread, while the page tells how far it is: told(progress, seconds so far).

    A browser that goes away ends the work. Raises: StudioError: what the work raised; Stopped: by `stop`.
    """
    here = get(token)
    here.stopping.clear()
    here.progress = None
    watch = Watch(tell=here.tell, stopping=here.stopping.is_set)
    try:
        return (yield from while_working(lambda: work(watch), lambda seconds: told(here.progress, seconds)))
    except GeneratorExit:
        here.stopping.set()
        raise
