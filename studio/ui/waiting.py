"""Do something in a thread while the page tells that it goes on. Not here: anything longer than a minute, which is a
job (studio.jobs)."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, TypeVar

Result = TypeVar("Result")

PATIENCE_S = 0.6
"""Seconds before the first word, and between words: what is quicker shows no progress, so nothing flickers."""


def while_working(work: Callable[[], Result], told: Callable[[float], Any]) -> Generator[Any, None, Result]:
    """Yield told(seconds so far) now and then until the work is done. Returns its result, or raises what it raised."""
    pool = ThreadPoolExecutor(1)
    try:
        began, doing = time.monotonic(), pool.submit(work)
        while not wait([doing], timeout=PATIENCE_S).done:
            yield told(time.monotonic() - began)
        return doing.result()
    finally:
        pool.shutdown(wait=False)
