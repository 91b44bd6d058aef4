"""Runs a worker on this machine as a detached process. Not here: whether it may run (studio.jobs.control)."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import IO

from studio import secret
from studio.errors import JobError
from studio.hardware import SPINS, detect, memory_kills, thread_environment
from studio.home import CHECKOUT, home, write_atomically
from studio.jobs.folder import JobFolder

NOT_OURS = (
    "GRADIO_",
    "HF_HUB_DISABLE_TELEMETRY",
    "HF_HUB_DISABLE_PROGRESS_BARS",
    "TRL_EXPERIMENTAL_SILENCE",
    "TOKENIZERS_PARALLELISM",
)
"""What libraries and the engine set in each process for themselves, the page's own too."""
SPARE_GIB = 8.0
"""A machine with less memory keeps no spare worker, which holds half a GiB."""


def start(folder: JobFolder) -> None:
    """Let the spare worker take the job, or start `python -m studio.jobs.worker FOLDER`.

    Its output goes to the end of the job's log.
    """
    if _computes(folder) and _spare.take(folder):
        return
    with folder.log.open("ab") as log:
        ended = _Ending(folder)
        detach("studio.jobs.worker", str(folder.path), log=log, spins=SPINS, ended=ended)


def warm() -> None:
    """Have a worker import the engine, so that the next job begins at once; say so again while one may come."""
    _spare.warm()


def _computes(folder: JobFolder) -> bool:
    """An audit needs nothing that a spare worker has imported."""
    try:
        return folder.read_about()["kind"] != "audit"
    except JobError:  # which the worker tells
        return False


class _Ending:
    """Notes in a job's folder how its worker ended, where it could not say so itself."""

    def __init__(self, folder: JobFolder | None = None):
        self.folder = folder
        self._kills = memory_kills()

    def __call__(self, status: int) -> None:
        """status: negative for the signal that ended the process."""
        if self.folder is None or status >= 0:
            return
        told = {"status": status, "memory": memory_kills() > self._kills}
        with suppress(OSError):  # a folder that is gone by now
            write_atomically(self.folder.exit, json.dumps(told))


class _Spare:
    """At most one process of studio.jobs.spare. Invariant, under the lock: `_process` is one that has no job."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._environment: dict[str, str] = {}
        self._ending = _Ending()

    def warm(self) -> None:
        with self._lock:
            if self._tell(b"\n") or detect().memory_gib < SPARE_GIB:
                return
            self._environment = _wanted()
            self._ending = _Ending()
            self._process = detach(
                "studio.jobs.spare", log=subprocess.DEVNULL, stdin=subprocess.PIPE, spins=SPINS, ended=self._ending
            )

    def take(self, folder: JobFolder) -> bool:
        """Hand the job over. Returns: whether there was a process that reads this."""
        with self._lock:
            taken = self._environment == _wanted() and self._tell(os.fsencode(folder.path) + b"\n")
            if taken:
                self._ending.folder = folder
            self._leave()
            return taken

    def _tell(self, line: bytes) -> bool:
        process = self._process
        if process is None or process.stdin is None or process.poll() is not None:
            return False
        try:
            process.stdin.write(line)
            process.stdin.flush()
        except OSError:
            return False
        return True

    def _leave(self) -> None:
        """Without a job it ends when its stdin does."""
        process, self._process = self._process, None
        if process is not None and process.stdin is not None:
            process.stdin.close()


def _wanted() -> dict[str, str]:
    """What a worker that starts now would find, but for what it sets itself."""
    found = environment(spins=SPINS)
    return {name: value for name, value in found.items() if not name.startswith(NOT_OURS)}


_spare = _Spare()


def detach(
    module: str,
    *arguments: str,
    log: IO[bytes] | int,
    stdin: int = subprocess.DEVNULL,
    spins: int = 0,
    ended: Callable[[int], None] = lambda status: None,
) -> subprocess.Popen[bytes]:
    """Run a module in a process that outlives us: own session, no pipes, no secrets.

    spins: of its waiting threads. ended: told its exit status, from a thread, if this process still is there then.
    Raises: OSError, ValueError: it cannot be started.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd=CHECKOUT,
        env=environment(spins=spins),
        stdin=stdin,
        stdout=log,  # never PIPE: one that nobody drains stops the training after 64 kB
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    # an ended child stays a zombie until somebody has asked for its status
    threading.Thread(target=lambda: ended(process.wait()), name=f"reaper of {module}", daemon=True).start()
    return process


def environment(*, spins: int = 0) -> dict[str, str]:
    """Of a process that computes: ours, with the home made explicit and without what looks like a secret.

    HF_TOKEN alone is passed, for the hub. spins: as thread_environment has them.
    """
    kept = {name: value for name, value in os.environ.items() if name == "HF_TOKEN" or not secret.is_secret(name)}
    return kept | thread_environment(spins=spins) | {"STUDIO_HOME": str(home().path), "PYTHONUNBUFFERED": "1"}
