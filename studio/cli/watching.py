"""A pass over rows on a terminal: its progress on stderr, and Ctrl-C as a clean stop. Not here: jobs (follow)."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from studio.cli import output

if TYPE_CHECKING:
    from studio.data.intake import Progress, Watch

QUIET_S = 1.0
"""A pass that takes less than this many seconds says nothing."""
STOPPED = 2
_CLEAR = "\r\x1b[K"


@contextmanager
def watching(*, as_json: bool) -> Iterator[Watch]:
    """A Watch that says how far the pass is. The first Ctrl-C asks it to stop, the second ends the command."""
    from studio.data.intake import Stopped, Watch

    asked = False

    def interrupted(*_: Any) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True

    shown = _Shown()
    previous = signal.signal(signal.SIGINT, interrupted)
    try:
        yield Watch(tell=shown.tell, stopping=lambda: asked)
    except Stopped as stopped:
        shown.clear()
        if as_json:
            output.emit({"error": str(stopped)})
        output.note(str(stopped))
        raise typer.Exit(STOPPED) from stopped
    finally:
        shown.clear()
        signal.signal(signal.SIGINT, previous)


def told(progress: Progress) -> str:
    """How far a pass is: rows, MB of how many, and per cent where the whole is known."""
    rows = f"{progress.rows:,} rows"
    if not progress.total:
        return rows
    share = 100 * progress.done // progress.total
    return f"{rows}, {progress.done / 1e6:.1f} of {progress.total / 1e6:.1f} MB ({share} %)"


class _Shown:
    """One line that is written over on a terminal; elsewhere a line now and then."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._pause_s = 0.2 if self._terminal else 5.0
        self._next = time.monotonic() + QUIET_S
        self._dirty = False

    def tell(self, progress: Progress) -> None:
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + self._pause_s
        if self._terminal:
            sys.stderr.write(_CLEAR + told(progress))
            sys.stderr.flush()
            self._dirty = True
        else:
            output.note(told(progress))

    def clear(self) -> None:
        if self._dirty:
            sys.stderr.write(_CLEAR)
            sys.stderr.flush()
            self._dirty = False
