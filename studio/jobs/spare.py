"""A worker that imports the engine before there is a job for it: `python -m studio.jobs.spare`.

Lines come on stdin: an empty one says that a job may still come, any other is the folder of the job whose worker this
process becomes. It ends without one when stdin does, as it does however the process that started it ends, or when
nothing has come for PATIENCE_S, so that its memory is given back. Not here: what a worker does (studio.jobs.worker),
and who starts a spare one (studio.jobs.executors.local).
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import threading
from pathlib import Path
from queue import Empty, SimpleQueue

from studio import secret

PATIENCE_S = 300.0
"""Seconds without a sign that a job may come."""
NICE = 10
"""How far the imports stand back, because it is started with the page, which needs the cores itself."""
SIGN = b" "
IMPORTED = "studio.engine.stack"


def main() -> int:
    """Wait, and be a job's worker. Returns: its exit status."""
    secret.scrub_output()
    lines: SimpleQueue[bytes | None] = SimpleQueue()
    threading.Thread(target=_listen, args=(lines,), name="listening", daemon=True).start()
    from studio.jobs import worker

    worker.versions()  # imports what a worker needs before the engine, so that two threads never import the same
    importing = threading.Thread(target=_import, name="importing", daemon=True)
    importing.start()
    line: bytes | None = SIGN
    while line == SIGN:
        line = _next(lines, PATIENCE_S)
    status = worker.main(_with_its_log(os.fsdecode(line))) if line else 0
    if importing.is_alive():  # Python cannot end in the middle of an import
        os._exit(status)
    return status


def _listen(lines: SimpleQueue[bytes | None]) -> None:
    """Put each line of stdin, and None at its end. Not by way of sys.stdin, which Python could not close then."""
    rest = b""
    while chunk := os.read(0, 65_536):
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            lines.put(line or SIGN)
    lines.put(None)


def _next(lines: SimpleQueue[bytes | None], patience_s: float) -> bytes | None:
    """The next line; empty when none came for so long, None when none can come any more."""
    try:
        return lines.get(timeout=patience_s)
    except Empty:
        return b""


def _import() -> None:
    if sys.platform == "linux":  # where each thread has its own; those that compute come from another
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
    with contextlib.suppress(Exception):  # the worker imports it again, and tells what is wrong
        importlib.import_module(IMPORTED)


def _with_its_log(path: str) -> str:
    """The folder itself, with what is printed from now on at the end of its log."""
    from studio.jobs.folder import JobFolder

    with JobFolder(Path(path)).log.open("ab") as log:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(log.fileno(), stream.fileno())
    return path


if __name__ == "__main__":
    sys.exit(main())
