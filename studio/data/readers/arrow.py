"""Arrow files and streams (.arrow, .feather, .ipc), a small batch of rows at a time.

Buffers may be compressed, and a stream of a few MB may unfold to hundreds of GB; so what each message declares is
looked at before Arrow unfolds it. Not here: what becomes of the values (cells).
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from studio.data.compression import allowed, bomb
from studio.data.example import Row
from studio.data.readers import cells
from studio.errors import DataError

FILE_MAGIC = b"ARROW1"
STREAM_MAGIC = b"\xff\xff\xff\xff"

_HEADER, _BODY_BUFFERS, _COMPRESSION = 2, 2, 3
"""Places of fields in the tables Message and RecordBatch. Source: Arrow's format/Message.fbs."""
_DICTIONARY_DATA = 1


def rows(file: BinaryIO, name: str, size: int, tell: Callable[[int], None] | None) -> Iterator[Row]:
    """The rows of an open file or stream.

    Raises: DataError: it is no Arrow file, is damaged, or declares more than a file of its size can hold.
    """
    import pyarrow as arrow  # here, because the page starts faster without it

    try:
        # mapped, because a batch of an Arrow file lies there as it is used, and may be larger than memory;
        # the mapping ends with the last array that points into it
        whole = arrow.py_buffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        yield from _rows(whole, cells.Cells(name, size), name, tell)
    except (arrow.ArrowException, OSError, ValueError, LookupError, OverflowError, TypeError, struct.error) as error:
        raise DataError(
            f"{name} is not a readable Arrow file: {str(error)[:200].rstrip('.')}. Write it again, or convert it to "
            ".jsonl."
        ) from error


def _rows(whole: Any, counted: cells.Cells, name: str, tell: Callable[[int], None] | None) -> Iterator[Row]:
    is_file = whole.slice(0, len(FILE_MAGIC)).to_pybytes() == FILE_MAGIC
    _check_messages(whole.slice(8) if is_file else whole, name, whole.size)
    for batch, done in _file_batches(whole) if is_file else _stream_batches(whole):
        batch.validate(full=True)  # offsets out of bounds would be read as they are
        yield from counted.rows(batch)
        if tell:
            tell(done)


def _file_batches(whole: Any) -> Iterator[tuple[Any, int]]:
    from pyarrow import ipc

    reader = ipc.open_file(whole)
    for index in range(reader.num_record_batches):
        yield reader.get_batch(index), whole.size * (index + 1) // reader.num_record_batches


def _stream_batches(whole: Any) -> Iterator[tuple[Any, int]]:
    import pyarrow as arrow
    from pyarrow import ipc

    source = arrow.BufferReader(whole)
    for batch in ipc.open_stream(source):
        yield batch, source.tell()


def _check_messages(messages: Any, name: str, size: int) -> None:
    """Add up what compressed buffers declare, before any of them is unfolded."""
    from pyarrow import ipc

    unfolded = 0
    for message in ipc.MessageReader.open_stream(messages):
        if message.type in ("record batch", "dictionary"):
            unfolded += _unfolded(message.metadata.to_pybytes(), message.body, dictionary=message.type == "dictionary")
            if unfolded > allowed(size):
                raise bomb(name, size, unfolded)


def _unfolded(metadata: bytes, body: Any, *, dictionary: bool) -> int:
    """Bytes that the buffers of one message declare. A compressed buffer starts with its length; -1 means as it is."""
    batch = _field(metadata, struct.unpack_from("<I", metadata)[0], _HEADER)
    batch = batch and batch + struct.unpack_from("<I", metadata, batch)[0]
    if batch and dictionary:
        batch = _field(metadata, batch, _DICTIONARY_DATA)
        batch = batch and batch + struct.unpack_from("<I", metadata, batch)[0]
    buffers = batch and _field(metadata, batch, _BODY_BUFFERS)
    if not batch or not buffers or not _field(metadata, batch, _COMPRESSION):
        return 0
    vector = buffers + struct.unpack_from("<I", metadata, buffers)[0]
    total = 0
    for index in range(struct.unpack_from("<I", metadata, vector)[0]):
        offset, length = struct.unpack_from("<qq", metadata, vector + 4 + 16 * index)
        if length >= 8:
            (declared,) = struct.unpack("<q", body.slice(offset, 8).to_pybytes())
            total += max(declared, length)
    return total


def _field(data: bytes, table: int, index: int) -> int:
    """Where a field of a flatbuffer's table is; 0 where it is left out."""
    vtable = table - struct.unpack_from("<i", data, table)[0]
    (length,) = struct.unpack_from("<H", data, vtable)
    place = 4 + 2 * index
    offset = struct.unpack_from("<H", data, vtable + place)[0] if place + 2 <= length else 0
    return table + offset if offset else 0
