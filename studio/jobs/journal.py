"""A job's events.jsonl: append whole lines, and tail them from a byte offset.

Not here: what is made of the events (studio.jobs.monitor).
"""

import errno
import gc
import os
import time
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import ValidationError

from studio import secret
from studio.events import ADAPTER, Event

PATIENCE_S, WAIT_S = 600.0, 1.0
"""How long an event waits for room on a full disk, and how often it looks."""


class Journal:
    """Appends events of one attempt. Each is one write of one line, so readers never see a mixture of two; what an
    error of a library quotes is scrubbed.

    On a full disk an event waits for room, and the job with it, for up to PATIENCE_S.
    """

    def __init__(self, path: Path, attempt: int):
        self.attempt = attempt
        self._file = path.open("ab", buffering=0)
        if self._file.tell() and not _ends_with_newline(path):
            self._file.write(b"\n")  # a killed worker left half a line; ours must not be glued to it

    def append(self, event: Any) -> None:
        """Raises: OSError: there is still no room, or another reason not to write."""
        stamped = event.model_copy(update={"attempt": self.attempt})
        line = secret.scrubbed(stamped.model_dump_json(exclude_none=True)).encode() + b"\n"
        until = time.monotonic() + PATIENCE_S
        while not self._written(line, last=time.monotonic() > until):
            time.sleep(WAIT_S)

    def _written(self, line: bytes, *, last: bool) -> bool:
        """Whether all of it is in the file; else none of it is. last: do not bear that there is no room."""
        before = os.fstat(self._file.fileno()).st_size
        try:
            if self._file.write(line) == len(line):
                return True
            error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._file.name))
        except OSError as found:
            if found.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            error = found
        os.ftruncate(self._file.fileno(), before)
        if last:
            raise error
        return False

    def close(self) -> None:
        self._file.close()


END = 128 * 1024
"""Bytes at either end of a long file that tell what a list of jobs shows."""
_STEP = b'"type":"step"'
_HEAD = 100
"""Bytes at the start of a line that hold the type of its event. A quote inside a text is escaped, so it is no other."""


def tail(path: Path, offset: int = 0, *, last_steps: int | None = None) -> tuple[list[Event], int, int]:
    """Events after a byte offset, up to the last whole line.

    last_steps: of the steps only the first and so many of the last, which takes a tenth of the time; and of a long
    file only what lies near its ends.
    Returns: (events, the offset to go on from, how many torn or foreign lines were skipped).
    """
    try:
        with path.open("rb") as file:
            chunk, left_out = _ends(file, offset) if last_steps is not None else (_all(file, offset), 0)
    except FileNotFoundError:
        return [], offset, 0
    end = chunk.rfind(b"\n") + 1
    lines = chunk[:end].splitlines()
    events, skipped = _read(lines if last_steps is None else _outline(lines, last_steps))
    return events, offset + left_out + end, skipped


def _all(file: BinaryIO, offset: int) -> bytes:
    file.seek(offset)
    return file.read()


def _ends(file: BinaryIO, offset: int) -> tuple[bytes, int]:
    """Whole lines near both ends, and how many bytes between them are left out; all of what is not long."""
    size = os.fstat(file.fileno()).st_size
    if size - offset <= 3 * END:
        return _all(file, offset), 0
    file.seek(offset)
    head = file.read(END)
    head = head[: head.rfind(b"\n") + 1]
    file.seek(size - END)
    rest = file.read()
    rest = rest[rest.find(b"\n") + 1 :]
    return head + rest, size - offset - len(head) - len(rest)


def _read(lines: list[bytes]) -> tuple[list[Event], int]:
    events, skipped = [], 0
    collects = gc.isenabled()
    gc.disable()  # looking for garbage among a hundred thousand new events takes as long as reading them
    try:
        for line in lines:
            try:
                events.append(ADAPTER.validate_json(line))
            except ValidationError:
                skipped += bool(line.strip())
    finally:
        if collects:
            gc.enable()
    return events, skipped


def _outline(lines: list[bytes], last_steps: int) -> list[bytes]:
    steps = [number for number, line in enumerate(lines) if _STEP in line[:_HEAD]]
    left_out = set(steps[1:-last_steps])
    return [line for number, line in enumerate(lines) if number not in left_out]


def last_attempt(path: Path) -> int:
    """The number of the newest attempt, 0 if the job never started."""
    return max((event.attempt for event in tail(path)[0]), default=0)


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, 2)
        return file.read(1) == b"\n"
