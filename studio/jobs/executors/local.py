"""Runs a worker on this machine as a detached process. Not here: whether it may run (studio.jobs.control)."""

import os
import subprocess
import sys
import threading
from typing import BinaryIO

from studio.hardware import thread_environment
from studio.home import CHECKOUT, home
from studio.jobs.folder import JobFolder

SECRET_MARKS = ("TOKEN", "SECRET", "PASSWORD", "API_KEY", "CREDENTIAL")


def start(folder: JobFolder) -> None:
    """Start `python -m studio.jobs.worker FOLDER`, its output at the end of the job's log."""
    with folder.log.open("ab") as log:
        detach("studio.jobs.worker", str(folder.path), log=log)


def detach(module: str, *arguments: str, log: BinaryIO) -> subprocess.Popen[bytes]:
    """Run a module in a process that outlives us: own session, no pipes, no secrets.

    Raises: OSError, ValueError: it cannot be started.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd=CHECKOUT,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=log,  # never PIPE: one that nobody drains stops the training after 64 kB
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    # an ended child stays a zombie until somebody has asked for its status
    threading.Thread(target=process.wait, name=f"reaper of {module}", daemon=True).start()
    return process


def environment() -> dict[str, str]:
    """Of a process that computes: ours, with the home made explicit and without what looks like a secret.

    HF_TOKEN alone is passed, for the hub.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if name == "HF_TOKEN" or not any(mark in name.upper() for mark in SECRET_MARKS)
    }
    return kept | thread_environment() | {"STUDIO_HOME": str(home().path), "PYTHONUNBUFFERED": "1"}
