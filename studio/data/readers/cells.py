"""Record batches of Arrow as rows: only values that JSON has, and never more in memory than a small batch of them.

Dates, times and decimals become text, bytes null, NaN (a missing number in pandas) null, keys of maps text. Not here:
files (parquet, arrow).
"""

from __future__ import annotations

import datetime
import decimal
import math
import uuid
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from studio.data import decoding
from studio.data.compression import MAX_RATIO, allowed, bomb, readable
from studio.data.example import Row
from studio.data.readers import lines
from studio.errors import DataError

if TYPE_CHECKING:
    import pyarrow as arrow

MAX_BATCH = 24 * 1024**2
"""Bytes of values that are in memory at once; a row that alone has more is a fault."""
BATCH_ROWS = 1024
MIN_ROWS = 10_000_000
"""Rows, or values of a column, that any file may declare."""

Found = tuple[dict[str, Any] | None, str | None]


class Cells:
    """Turns batches of one file into rows and counts what they unfold to.

    Raises: DataError: the file unfolds to more than is allowed, or has a type of column that is not read.
    """

    def __init__(self, name: str, size: int):
        self._name, self._size, self._unfolded, self.number = name, size, 0, 0

    def declared(self, count: int, what: str) -> None:
        """Refuse more rows or values than a file of this size can honestly hold."""
        if count > max(MIN_ROWS, MAX_RATIO * self._size):
            raise DataError(
                f"{self._name} declares {count:,} {what}, but has only {readable(self._size)}: it is damaged, or made "
                "to fill the memory. Get the file again."
            )

    def rows(self, batch: arrow.RecordBatch) -> Iterator[Row]:
        """The rows of a batch, of which at most MAX_BATCH are Python values at once."""
        self.declared(self.number + batch.num_rows, "rows")
        for start in range(0, batch.num_rows, BATCH_ROWS):
            yield from self._within(batch.slice(start, BATCH_ROWS))

    def _within(self, batch: arrow.RecordBatch) -> Iterator[Row]:
        weight = sum(self._weight(column) for column in batch.columns)
        if weight > MAX_BATCH and batch.num_rows > 1:
            half = batch.num_rows // 2
            yield from self._within(batch.slice(0, half))
            yield from self._within(batch.slice(half))
            return
        self._unfolded += weight
        if self._unfolded > allowed(self._size):
            raise bomb(self._name, self._size)
        if weight > MAX_BATCH:
            self.number += 1
            yield Row(self.number, None, f"unfolds to more than {readable(MAX_BATCH)}.")
            return
        for values, fault in self._values(batch):
            self.number += 1
            if fault:
                raw = decoding.shown(values, lines.RAW) if values else ""
                yield Row(self.number, None, fault, raw=raw.encode("utf-8", "replace").decode())
            else:
                yield Row(self.number, values)

    def _values(self, batch: arrow.RecordBatch) -> Iterator[Found]:
        names = batch.schema.names
        try:
            decoded = [_decoded(column) for column in batch.columns]
            columns = [_listed(column) for column in decoded]
            doubtful = any(map(_is_doubtful, decoded))
        except _unreadable():
            for index in range(batch.num_rows):
                yield self._one(batch, index)
            return
        for cells in zip(*columns, strict=True) if columns else [()] * batch.num_rows:
            values = dict(zip(names, cells, strict=True))
            yield values, decoding.unfit(values) if doubtful else None

    def _one(self, batch: arrow.RecordBatch, index: int) -> Found:
        values: dict[str, Any] = {}
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            try:
                (values[name],) = _listed(_decoded(column.slice(index, 1)))
            except _unreadable() as error:
                return values, f"holds a value in the column '{name}' that cannot be read: {str(error)[:100]}."
        return values, decoding.unfit(values)

    def _weight(self, column: arrow.Array) -> int:
        """Bytes that a column's values would take in plain Arrow, where nothing is shared."""
        from pyarrow import types

        kind = column.type
        if types.is_dictionary(kind):
            if _is_plain_text(kind.value_type):
                return _looked_up(column) + 8 * len(column)
            return len(column) * (8 + self._weight(column.dictionary))
        if types.is_struct(kind):
            return sum(map(self._weight, column.flatten())) + len(column)
        if types.is_map(kind):
            entries = self._entries(column)
            return sum(map(self._weight, entries)) + 8 * len(column)
        if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
            return self._weight(column.flatten()) + 8 * len(column)
        if isinstance(column, _extension()):
            return self._weight(column.storage)
        if types.is_nested(kind) or types.is_run_end_encoded(kind):  # views and unions may repeat what they hold
            raise DataError(
                f"{self._name} has a column of type {str(kind)[:80]}, which is not read. "
                "Write it as lists, structs and plain values, or convert the file to .jsonl."
            )
        if _is_view(kind):
            return _viewed(column) + 16 * len(column)
        return column.nbytes + 8 * len(column) * types.is_null(kind)

    def _entries(self, column: arrow.Array) -> list[arrow.Array]:
        first, last = column.offsets[0].as_py() or 0, column.offsets[len(column)].as_py() or 0
        return [column.keys.slice(first, last - first), column.items.slice(first, last - first)]


def _looked_up(column: arrow.Array) -> int:
    """Bytes of a dictionary's texts, each as often as it is used."""
    from pyarrow import compute

    lengths = compute.binary_length(column.dictionary)
    return compute.sum(lengths.take(column.indices)).as_py() or 0


def _viewed(column: arrow.Array) -> int:
    """Bytes of texts that are views, which may overlap. A view is 16 bytes, of which the first four are its length."""
    import numpy as np

    views = np.frombuffer(column.buffers()[1], dtype="<i4").reshape(-1, 4)
    lengths = views[column.offset : column.offset + len(column), 0]
    return int(np.where(lengths > 0, lengths, 0).sum(dtype="int64"))


def _listed(column: arrow.Array) -> list[Any]:
    """A decoded column's values as Python's, all of kinds that JSON has."""
    convert = _converter(column.type)
    cells = column.to_pylist(maps_as_pydicts="lossy")
    return cells if convert is None else [None if cell is None else convert(cell) for cell in cells]


def _decoded(column: arrow.Array) -> arrow.Array:
    """Dictionaries looked up at once, because that is many times faster than value by value; times in µs."""
    import pyarrow as arrow
    from pyarrow import types

    if types.is_timestamp(column.type):
        column = column.cast(arrow.timestamp("us", column.type.tz), safe=False)
        # in UTC, because the zone's name may be one that this machine does not know
        return column.cast(arrow.timestamp("us", "UTC")) if column.type.tz else column
    if types.is_duration(column.type):
        return column.cast(arrow.duration("us"), safe=False)
    plain = _without_dictionaries(column.type)
    if plain == column.type:
        return column
    # a cast looks up whatever a slice was cut from; what was taken has nothing around it
    return (column if types.is_dictionary(column.type) else column.take(arrow.array(range(len(column))))).cast(plain)


def _without_dictionaries(kind: Any) -> Any:
    import pyarrow as arrow
    from pyarrow import types

    if types.is_dictionary(kind):
        return _without_dictionaries(kind.value_type)
    if types.is_list(kind):
        return arrow.list_(kind.value_field.with_type(_without_dictionaries(kind.value_type)))
    if types.is_large_list(kind):
        return arrow.large_list(kind.value_field.with_type(_without_dictionaries(kind.value_type)))
    if types.is_struct(kind):
        fields = (kind.field(index) for index in range(kind.num_fields))
        return arrow.struct([field.with_type(_without_dictionaries(field.type)) for field in fields])
    return kind


def _converter(kind: Any) -> Callable[[Any], Any] | None:
    """What turns a value of a type that is not null into one that JSON has; None if it is one already."""
    from pyarrow import types

    if types.is_boolean(kind) or types.is_integer(kind) or types.is_null(kind) or _is_string(kind):
        return None
    if types.is_floating(kind):
        return _number
    if types.is_struct(kind) and not any(_converter(kind.field(index).type) for index in range(kind.num_fields)):
        return None
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        inner = _converter(kind.value_type)
        return inner and (lambda value: [None if each is None else inner(each) for each in value])
    return _plain


def _plain(value: Any) -> Any:
    """Any value that Arrow makes, as one that JSON has."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, dict):
        return {key if isinstance(key, str) else str(_plain(key)): _plain(each) for key, each in value.items()}
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, bytes):
        return None
    if isinstance(value, decimal.Decimal | datetime.timedelta | uuid.UUID) or hasattr(value, "_fields"):
        return str(value)
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return str(value)


def _number(value: Any) -> float | None:
    number = float(value)
    return None if math.isnan(number) else number


def _is_doubtful(column: arrow.Array) -> bool:
    """Whether a NUL or an infinite number may be in a column; only then is every one of its values looked at."""
    from pyarrow import compute, types

    kind = column.type
    if _is_string(kind) and not _is_view(kind):
        return bool(compute.any(compute.match_substring(column, "\0")).as_py())
    if types.is_floating(kind) and kind.bit_width > 16:
        return bool(compute.any(compute.is_inf(column)).as_py())
    if types.is_struct(kind):
        return any(map(_is_doubtful, column.flatten()))
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return _is_doubtful(column.flatten())
    return not (types.is_boolean(kind) or types.is_integer(kind) or types.is_null(kind) or types.is_temporal(kind))


def _is_string(kind: Any) -> bool:
    from pyarrow import types

    return types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)


def _is_plain_text(kind: Any) -> bool:
    from pyarrow import types

    return types.is_string(kind) or types.is_large_string(kind) or types.is_binary(kind) or types.is_large_binary(kind)


def _is_view(kind: Any) -> bool:
    from pyarrow import types

    return types.is_string_view(kind) or types.is_binary_view(kind)


def _extension() -> type:
    import pyarrow as arrow

    return arrow.ExtensionArray


def _unreadable() -> tuple[type[Exception], ...]:
    """What Arrow raises for a value that Python does not have, such as a date after the year 9999."""
    import pyarrow as arrow

    return (arrow.ArrowException, ValueError, OverflowError, TypeError)
