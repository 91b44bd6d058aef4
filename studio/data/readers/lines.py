"""Lines of UTF-8 text out of chunks, many at a time, each of a bounded length.

Not here: what a line means.
"""

from __future__ import annotations

from collections.abc import Iterator

MAX_LINE = 64 * 1024**2
"""Bytes of one line, one element of a JSON array, or one record of a table."""
RAW = 2000
"""Characters that are kept of a row that cannot be read, to be shown."""


class Overlong(bytes):
    """Stands, empty, for a line that is too long. start: how the line begins."""

    start = b""


def batches(chunks: Iterator[bytes]) -> Iterator[list[bytes]]:
    """The lines of a text in order, without their \\n. A text whose lines end in \\r alone is read, too."""
    end, begun = b"\n", _Begun()
    for index, chunk in enumerate(chunks):
        if index == 0 and b"\n" not in chunk and b"\r" in chunk[:-1]:
            end = b"\r"
        lines = chunk.split(end)
        begun.add(lines[0])
        if len(lines) > 1:
            lines[0] = begun.line()
            begun.add(lines.pop())
            yield [_bounded(line) for line in lines] if len(chunk) > MAX_LINE else lines
    last = begun.line()
    if last or isinstance(last, Overlong):
        yield [last]


class _Begun:
    """A line of which more may come. Of one that is too long only the start is kept."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._length = 0

    def add(self, part: bytes) -> None:
        self._length += len(part)
        if self._length <= MAX_LINE or len(self._parts) < 2:
            self._parts.append(part[: MAX_LINE + 1])
        else:
            self._parts[1:] = []

    def line(self) -> bytes:
        """The line, which ends here; the next one begins."""
        line = _bounded(b"".join(self._parts), self._length)
        self._parts, self._length = [], 0
        return line


def _bounded(line: bytes, length: int = 0) -> bytes:
    if max(len(line), length) <= MAX_LINE:
        return line
    overlong = Overlong()
    overlong.start = line[: 4 * RAW]
    return overlong


def text(line: bytes) -> str:
    """How a row that cannot be read begins."""
    start = line.start if isinstance(line, Overlong) else line
    return start[: 4 * RAW].decode("utf-8", "replace")[:RAW].rstrip("\r\n")
