"""Contenders that take turns, each run a process of its own, and what their figures come to over the runs.

A B C A B C, so that whatever else the machine does falls on all of them. A process tells its figures as one JSON object
in its last line. Not here: what is run, and which figures it tells.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import psutil

from studio.home import CHECKOUT

Figures = dict[str, Any]
_KEPT_LINES = 12
"""Lines of a failed process that are told."""
_GONE_S = 5
"""For which what a killed process had started is waited for. An orphan whose status nobody asks for never goes."""


class RunFailed(Exception):
    """A process ended badly, took too long, or told nothing. The text says which, with its last lines."""


@dataclass(frozen=True)
class Contender:
    """environment: on top of ours. timeout_s: after which a run is ended."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float = 3600


@dataclass(frozen=True)
class Taken:
    """The figures of every run by contender, and why a contender is not there."""

    runs: dict[str, list[Figures]]
    failed: dict[str, str]


def take_turns(
    contenders: Sequence[Contender],
    rounds: int,
    *,
    told: Callable[[str, Figures], None] = lambda name, figures: None,
    until: float = float("inf"),
    around: Callable[[], AbstractContextManager[Figures]] = lambda: nullcontext({}),
) -> Taken:
    """Run all of them, one after the other, so many rounds. Who fails once is left out of the rounds that follow.

    told: called after each run. until: by time.monotonic(), no run starts later, and none goes on. around: entered for
    each run, and what it gives has further figures afterwards.
    """
    taken = Taken({}, {})
    for contender in (each for _ in range(rounds) for each in contenders):
        if contender.name in taken.failed:
            continue
        try:
            with around() as further:
                figures = run(contender, timeout_s=min(contender.timeout_s, until - time.monotonic()))
            figures |= further
        except RunFailed as error:
            taken.failed[contender.name] = str(error)
            told(contender.name, {"failed": str(error)})
            continue
        taken.runs.setdefault(contender.name, []).append(figures)
        told(contender.name, figures)
    return taken


def run(contender: Contender, *, timeout_s: float) -> Figures:
    """What the process tells. Raises: RunFailed."""
    if timeout_s <= 0:
        raise RunFailed("the time of the whole benchmark was up")
    with tempfile.TemporaryDirectory() as home, tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(
            contender.command,
            cwd=CHECKOUT,
            env=os.environ | _apart(home) | dict(contender.environment),
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
        )
        try:
            status = process.wait(timeout=timeout_s)
        except subprocess.TimeoutExpired as error:
            raise RunFailed(f"was ended after {timeout_s:.0f} s; {_end(said)}") from error
        finally:
            _end_all(process)
        return _figures(status, said)


def _apart(home: str) -> dict[str, str]:
    """Of a process that reaches for no hub, and whose home and caches are empty."""
    return {"STUDIO_HOME": home, "HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": f"{home}/cache", "DO_NOT_TRACK": "1"}


def leave_nothing_running() -> None:
    """From now on a request of the system to end also ends the run that is going on."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))


def _end_all(process: subprocess.Popen[bytes]) -> None:
    """The process, and whatever it has started, which may be in a session of its own as the studio's workers are."""
    if process.poll() is None:
        whole = psutil.Process(process.pid)
        begun = whole.children(recursive=True)
        for each in [whole, *begun]:
            each.kill()
        process.wait()
        psutil.wait_procs(begun, timeout=_GONE_S)


def _figures(status: int, said: Any) -> Figures:
    said.seek(0)
    lines = [line for line in said.read().splitlines() if line.strip()]
    try:
        figures = json.loads(lines[-1]) if lines and not status else None
    except ValueError:
        figures = None
    if not isinstance(figures, dict):
        raise RunFailed(f"ended with status {status} and no figures; {_end(said)}")
    return figures


def _end(said: Any) -> str:
    said.seek(0)
    return "it said last:\n" + "\n".join(said.read().splitlines()[-_KEPT_LINES:])


def spread(values: Iterable[float | None]) -> dict[str, float] | None:
    """Median, least and most; None where a run has no such figure."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    return {"median": statistics.median(known), "min": min(known), "max": max(known)}


def ratios(medians: Mapping[str, float], pairs: Iterable[tuple[str, str]]) -> dict[str, float]:
    """The median of one over that of the other, under `one/other`, for pairs of contenders that both have one."""
    known = (pair for pair in pairs if set(pair) <= set(medians))
    return {f"{one}/{other}": round(medians[one] / medians[other], 3) for one, other in known}
