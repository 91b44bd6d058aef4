"""Rows on disk, written once: read from any row on, searched, and known by the hash of their content.

One line a row. An object is a readable row that follows on the one before it; any other row, and each STRIDE-th, is
an array [file, number, values, fault, raw]. Beside the lines lies an index with the offset of each STRIDE-th row, so a
page out of a million rows is read without the others. Not here: where rows come from (intake), what they mean
(formats).
"""

from __future__ import annotations

import hashlib
import json
import mmap
import re
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

from studio.data.example import Row
from studio.errors import DataError

SUFFIX = ".rows"
STRIDE = 256
"""Rows from one entry of the index to the next."""
_BUFFER = 1024**2
_OBJECT, _SPACE = ord("{"), ord(" ")


class Writer:
    """Writes a store. rows and sha256 are those of what was written so far; close() makes it whole."""

    def __init__(self, path: Path):
        self.path = path
        self._file = path.open("xb")
        self._hash = hashlib.sha256()
        self._lines: list[bytes] = []
        self._flushed = self._waiting = 0
        self._index = array("Q")
        self._until_entry = 0
        self._name, self._following = "", 1

    @property
    def rows(self) -> int:
        return len(self._index) * STRIDE - self._until_entry

    def write(self, row: Row) -> Row:
        """Add a row. Returns it as it will be read again: one that is nested too deeply to be written is a fault."""
        number, values, fault, name, raw = row
        try:
            if fault is None and number == self._following and name == self._name and self._until_entry:
                line = _dumped(values)
            else:
                line = _dumped([name, number, values, fault, raw])
        except RecursionError:
            row = Row(number, None, "is nested too deeply to be read.", name, raw)
            line = _dumped([name, number, None, row.fault, raw])
        if self._until_entry == 0:
            self._index.append(self._flushed + self._waiting)
            self._until_entry = STRIDE
        self._until_entry -= 1
        self._name, self._following = name, number + 1
        self._lines.append(line)
        self._waiting += len(line) + 1
        if self._waiting >= _BUFFER:
            self._flush()
        return row

    @property
    def sha256(self) -> str:
        self._flush()
        return self._hash.hexdigest()

    def close(self) -> None:
        """Finish the lines, and write the index beside them."""
        self._flush()
        self._file.close()
        index_of(self.path).write_bytes(self._index.tobytes())

    def abandon(self) -> None:
        """Delete what was written."""
        with suppress(OSError):  # a full disk, which takes what is still in the buffer no more than what came before
            self._file.close()
        delete(self.path)

    def _flush(self) -> None:
        if self._lines:
            chunk = b"\n".join([*self._lines, b""])
            self._hash.update(chunk)
            self._file.write(chunk)
            self._flushed += self._waiting
            self._lines, self._waiting = [], 0


def index_of(path: Path) -> Path:
    return path.with_suffix(".index")


def delete(path: Path) -> None:
    path.unlink(missing_ok=True)
    index_of(path).unlink(missing_ok=True)


def move(path: Path, target: Path) -> None:
    """Give a store its place for good. The index goes first: lines without one would have to be read whole."""
    index_of(path).replace(index_of(target))
    path.replace(target)


def read(path: Path, start: int = 0) -> Iterator[Row]:
    """The rows from the one at `start` (counted from 0) on. Raises: DataError: the store is gone or damaged."""
    try:
        with path.open("rb", buffering=_BUFFER) as file:
            file.seek(_offset(path, start))
            yield from islice(_rows(path, file), start % STRIDE, None)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error


def rows_at(path: Path, positions: Iterable[int]) -> list[Row]:
    """The rows at some positions, in their order."""
    return [next(read(path, position)) for position in positions]


def search(path: Path, text: str, *, start: int = 0, count: int = 20) -> tuple[list[tuple[int, Row]], int | None]:
    """Rows that hold a text in one of their values, from a position on, whatever the case of Latin letters.

    Returns: (position, row) for at most `count` rows, and where to search on, or None at the end.
    """
    if not text:
        return [], None
    needle = re.compile(re.escape(orjson.dumps(text)[1:-1]), re.IGNORECASE)
    found: list[tuple[int, Row]] = []
    try:
        with path.open("rb") as file:
            if file.seek(0, 2) == 0:
                return [], None
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                offsets = _offsets(path)
                place = _line_start(data, offsets, start)
                while (hit := needle.search(data, place)) is not None:
                    position = _position(data, offsets, hit.start())
                    row = next(read(path, position))
                    if _holds(row.values if row.fault is None else row.raw, text.casefold()):
                        if len(found) == count:
                            return found, position
                        found.append((position, row))
                    end = data.find(b"\n", hit.start())
                    place = len(data) if end < 0 else end + 1
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
    return found, None


# --- lines


def _dumped(value: Any) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError:
        # whole numbers beyond 64 bits, and deep nesting; the space tells the reader to take the module that can
        return b" " + json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _rows(path: Path, lines: Iterable[bytes]) -> Iterator[Row]:
    name, number = "", 0
    loads = orjson.loads
    try:
        for line in lines:
            if line[0] == _OBJECT:
                number += 1
                yield Row(number, loads(line), None, name)
                continue
            value = json.loads(line) if line[0] == _SPACE else loads(line)
            if isinstance(value, dict):
                number += 1
                yield Row(number, value, None, name)
                continue
            name, number, values, fault, raw = value
            yield Row(number, values, fault, name, raw)
    except ValueError as error:
        raise DataError(f"{path} is damaged near row {number}. Remove the dataset and add it again.") from error


def _holds(value: Any, text: str) -> bool:
    if isinstance(value, str):
        return text in value.casefold()
    if isinstance(value, dict):
        return any(_holds(each, text) for each in value.values())
    if isinstance(value, list):
        return any(_holds(each, text) for each in value)
    return value is not None and text in str(value).casefold()


# --- the index


def _offsets(path: Path) -> array[int]:
    """Where each STRIDE-th row begins. Made again from the lines if the index is gone."""
    try:
        offsets = array("Q", index_of(path).read_bytes())
    except (OSError, ValueError):
        offsets = array("Q")
        with path.open("rb", buffering=_BUFFER) as file:
            place = 0
            for count, line in enumerate(file):
                if count % STRIDE == 0:
                    offsets.append(place)
                place += len(line)
        index_of(path).write_bytes(offsets.tobytes())
    return offsets


def _offset(path: Path, position: int) -> int:
    if position < STRIDE:
        return 0
    offsets = _offsets(path)
    entry = position // STRIDE
    return offsets[entry] if entry < len(offsets) else path.stat().st_size


def _line_start(data: mmap.mmap, offsets: array[int], position: int) -> int:
    """Where the line of a position begins."""
    entry = position // STRIDE
    if entry >= len(offsets):
        return len(data)
    place = offsets[entry]
    for _ in range(position % STRIDE):
        place = data.find(b"\n", place) + 1
        if place == 0:
            return len(data)
    return place


def _position(data: mmap.mmap, offsets: array[int], place: int) -> int:
    """The position of the row whose line holds a byte."""
    entry = bisect_right(offsets, place) - 1
    return entry * STRIDE + data[offsets[entry] : place].count(b"\n")
