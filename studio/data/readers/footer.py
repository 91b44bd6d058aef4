"""The footer of a parquet file, read by ourselves, as far as the bounds need it.

pyarrow 26 ends the whole process on some damaged footers when it is asked about a column (an exception of its C++
library that nobody catches), while its reader raises on the same ones. Not here: rows (parquet).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

_MAX_DEPTH = 24
_DELTA_BYTE_ARRAY = 7


class Chunk(NamedTuple):
    """One column of one row group, as the footer declares it. repeats: a text may repeat the one before it."""

    values: int
    unfolded: int
    repeats: bool


def row_groups(file: BinaryIO) -> list[list[Chunk]]:
    """What the footer says of each row group's columns.

    Raises: ValueError, LookupError, TypeError: it is no footer.
    """
    end = file.seek(-8, 2)
    length = int.from_bytes(file.read(4), "little")
    if length > end:
        raise ValueError("its footer is longer than the file")
    file.seek(end - length)
    about = _Compact(file.read(length)).struct()
    # Source of the numbers: parquet-format's parquet.thrift
    return [[_chunk(column[3]) for column in group[1]] for group in about[4]]


def _chunk(about: dict[int, Any]) -> Chunk:
    values, unfolded, encodings = about[5], about[6], about[2]
    if min(values, unfolded) < 0:
        raise ValueError("its footer declares less than nothing")
    return Chunk(values, unfolded, _DELTA_BYTE_ARRAY in encodings)


class _Compact:
    """Thrift's compact protocol. A struct becomes a dictionary of field numbers."""

    def __init__(self, data: bytes):
        self._data = data
        self._place = 0
        self._depth = 0

    def struct(self) -> dict[int, Any]:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise ValueError("its footer is nested too deeply")
        fields: dict[int, Any] = {}
        number = 0
        while header := self._byte():
            number = number + (header >> 4) if header >> 4 else self._signed()
            fields[number] = header & 15 == 1 if header & 15 in (1, 2) else self._value(header & 15)
        self._depth -= 1
        return fields

    def _value(self, kind: int) -> Any:
        match kind:
            case 1 | 2 | 3:
                return self._byte()
            case 4 | 5 | 6:
                return self._signed()
            case 7:
                return self._bytes(8)
            case 8:
                return self._bytes(self._unsigned())
            case 9 | 10:
                return list(self._elements())
            case 12:
                return self.struct()
        raise ValueError("its footer holds an unknown type")

    def _elements(self) -> Iterator[Any]:
        header = self._byte()
        size = self._unsigned() if header >> 4 == 15 else header >> 4
        if size > len(self._data):
            raise ValueError("its footer holds a list that is longer than itself")
        return (self._value(header & 15) for _ in range(size))

    def _byte(self) -> int:
        self._place += 1
        return self._data[self._place - 1]

    def _bytes(self, length: int) -> bytes:
        self._place += length
        if self._place > len(self._data):
            raise ValueError("its footer ends too early")
        return self._data[self._place - length : self._place]

    def _unsigned(self) -> int:
        value = shift = 0
        while (byte := self._byte()) & 0x80:
            value |= (byte & 0x7F) << shift
            shift += 7
            if shift > 63:
                raise ValueError("its footer holds a number without end")
        return value | byte << shift

    def _signed(self) -> int:
        value = self._unsigned()
        return (value >> 1) ^ -(value & 1)
