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

from studio.jobs import worker
from studio.jobs.folder import JobFolder

PATIENCE_S = 300.0
"""Seconds without a sign that a job may come."""
NICE = 10
"""How much the import gives way, because it begins when a page opens, which needs the cores itself."""
IMPORTED = ("studio.engine.train", "studio.engine.stages.sft")


def main() -> int:
    """Wait, and be a job's worker. Returns: its exit status."""
    worker.versions()  # imports what a worker needs before the engine, so that two threads never import the same
    lines: SimpleQueue[bytes | None] = SimpleQueue()
    importing = threading.Thread(target=_import, name="importing", daemon=True)
    for thread in (importing, threading.Thread(target=_listen, args=(lines,), name="listening", daemon=True)):
        thread.start()
    path = _job(lines)
    status = _work(os.fsdecode(path)) if path else 0
    if importing.is_alive():  # Python cannot end in the middle of an import
        os._exit(status)
    return status


def _listen(lines: SimpleQueue[bytes | None]) -> None:
    """Put each line of stdin, and None at its end. Not by way of sys.stdin, which Python could not close then."""
    rest = b""
    while chunk := os.read(0, 65_536):
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            lines.put(line)
    lines.put(None)


def _job(lines: SimpleQueue[bytes | None]) -> bytes | None:
    while True:
        try:
            line = lines.get(timeout=PATIENCE_S)
        except Empty:
            return None
        if line or line is None:
            return line


def _import() -> None:
    if sys.platform == "linux":  # where a thread has a priority of its own, which ends with it
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
    with contextlib.suppress(Exception):  # the worker imports it again, and tells what is wrong
        for name in IMPORTED:
            importlib.import_module(name)


def _work(path: str) -> int:
    """The job, with what is printed at the end of its log."""
    with JobFolder(Path(path)).log.open("ab") as log:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(log.fileno(), stream.fileno())
    return worker.main(path)


if __name__ == "__main__":
    sys.exit(main())
