"""Runs a worker on this machine as a detached process. Not here: whether it may run (studio.jobs.control)."""

import os
import subprocess
import sys
import threading

from studio.hardware import thread_environment
from studio.home import CHECKOUT, home
from studio.jobs.folder import JobFolder

SECRET_MARKS = ("TOKEN", "SECRET", "PASSWORD", "API_KEY", "CREDENTIAL")


def start(folder: JobFolder) -> None:
    """Start `python -m studio.jobs.worker FOLDER`. It outlives us: own session, no pipes, its output in the log."""
    command = [sys.executable, "-m", "studio.jobs.worker", str(folder.path)]
    with folder.log.open("ab") as log:
        # PIPE is never used: a pipe that nobody drains stops the training after 64 kB
        worker = subprocess.Popen(
            command,
            cwd=CHECKOUT,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    # an ended child stays a zombie until somebody has asked for its status
    threading.Thread(target=worker.wait, name=f"reaper of {folder.id}", daemon=True).start()


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
