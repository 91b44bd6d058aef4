"""Plays recorded events into a job's folder instead of training, so that every page can be tried in a second.

A thread of this process stands in for the worker: it holds the lock, honours the stop file, and writes the events in
order, `speed` times as fast as they were recorded. Not here: any computation.
"""

import threading
import time
from collections.abc import Iterable

from filelock import FileLock

from studio.events import Ended, Event, Started
from studio.jobs.folder import JobFolder
from studio.jobs.journal import Journal, last_attempt


class Replay:
    """An executor with the same `start` as the real ones."""

    def __init__(self, events: Iterable[Event], speed: float = 20.0):
        self._events = list(events)
        self._speed = speed

    def start(self, folder: JobFolder) -> None:
        thread = threading.Thread(target=self._play, args=(folder,), name=f"replay {folder.id}", daemon=True)
        thread.start()

    def _play(self, folder: JobFolder) -> None:
        with FileLock(folder.lock):
            journal = Journal(folder.events, last_attempt(folder.events) + 1)
            journal.append(Started(pid=0, host="replay"))
            previous = None
            for event in self._events:
                if folder.stop.exists():
                    journal.append(Ended(state="stopped"))
                    return
                if previous is not None:
                    time.sleep(max(0.0, event.time - previous) / self._speed)
                previous = event.time
                journal.append(event.model_copy(update={"time": time.time()}))
