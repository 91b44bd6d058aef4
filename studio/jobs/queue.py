"""Training runs that wait for their turn: one at a time on this machine, in an order that can be changed.

A job waits while its folder holds a file `queued` with its place, so the queue lives as long as the folders do. Whoever
is there starts the next one: a worker that ends, the page, a shell that follows. Not here: what may be queued
(studio.jobs.control).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from filelock import FileLock, Timeout

from studio.errors import JobError
from studio.home import home, write_atomically
from studio.jobs import folder as folders
from studio.jobs.folder import JobFolder


@contextmanager
def submitting() -> Iterator[None]:
    """One start, or change of the queue, at a time: two starts at once make one run."""
    try:
        with FileLock(home().jobs / ".submit", timeout=30):
            yield
    except Timeout as error:
        raise JobError("Another start has been going on for 30 s. Look at the list of jobs, then try again.") from error


def waiting() -> list[JobFolder]:
    """Those that wait, the next one first."""
    found = [(_place(folder), folder.id, folder) for folder in folders.every() if folder.queued.is_file()]
    return [folder for _, _, folder in sorted(found, key=lambda each: each[:2])]


def enter(folder: JobFolder) -> None:
    """Wait behind all others. To be called within `submitting`."""
    last = max((_place(each) for each in waiting()), default=0.0)
    write_atomically(folder.queued, str(int(last) + 1))


def leave(folder: JobFolder) -> None:
    """Wait no longer."""
    folder.queued.unlink(missing_ok=True)


def move(job_id: str, to: int) -> list[JobFolder]:
    """Put a waiting job at a place, counted from 1. Returns: the new order. Raises: JobError: it does not wait."""
    with submitting():
        order = waiting()
        moved = next((folder for folder in order if folder.id == job_id), None)
        if moved is None:
            raise JobError(f"{folders.find(job_id).id} does not wait in the queue.")
        order.remove(moved)
        order.insert(max(0, to - 1), moved)
        for place, folder in enumerate(order, start=1):
            write_atomically(folder.queued, str(place))
        return order


def _place(folder: JobFolder) -> float:
    try:
        return float(folder.queued.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # gone by now, or damaged: behind the others
        return float(2**31)
