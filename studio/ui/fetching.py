"""Fetch the bundled model in a process of its own, so that the page never imports torch, and tell how far it is.

The process outlives a closed page, and a second one waits for the first. Not here: fetching (studio.engine.models).
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from studio.errors import ModelError
from studio.home import home
from studio.jobs.executors.local import environment
from studio.specs import BUNDLED_MODEL

COMMAND = (sys.executable, "-m", "studio.engine.models.bundled")
LOOK_S = 0.5

PHASES = ("Downloading", "Unpacking", "Converting", "Saving", "Another process")
"""How the lines begin that the process prints, in the order of `template.fetching` in the page's texts."""
KEYS = ("download", "unpack", "convert", "save", "wait")


def fetch(command: Sequence[str] = COMMAND) -> Iterator[str]:
    """Run the command, yielding its newest line whenever there is another. Raises: ModelError: it failed."""
    log = home().run / f"fetch-{BUNDLED_MODEL}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    last = ""
    while process.poll() is None:
        line = newest_line(log)
        if line != last:
            yield line
            last = line
        time.sleep(LOOK_S)
    if process.returncode:
        raise ModelError(newest_line(log) or f"Fetching {BUNDLED_MODEL} failed. The log is {log}.")


def newest_line(log: Path) -> str:
    """The last line that is whole."""
    lines = log.read_text(encoding="utf-8", errors="replace").rpartition("\n")[0].splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def phase(line: str) -> tuple[str | None, str]:
    """Which of KEYS a line tells of, and how far it is, such as `30 % of 93 MB`; None for a line that is not known."""
    key = next((key for start, key in zip(PHASES, KEYS, strict=True) if line.startswith(start)), None)
    share = re.search(r"\d+ % of \d+ MB", line)
    return key, share[0] if share else ""
