"""Read the rows of a file, one at a time: JSON, JSON lines, tables, parquet, Arrow and plain text, packed or not.

A row that cannot be read is a Row with a fault and the others go on; a file that cannot be read is a DataError. A file
may be larger than memory. Not here: which files (studio.data.sources), what a row means (studio.data.formats).
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from studio.data import compression
from studio.data.example import Row
from studio.data.readers import arrow, encodings, json_document, json_lines, parquet, plain_text, tables
from studio.data.readers.plain_text import Unit
from studio.data.readers.sniffing import Sniffed, sniff
from studio.data.sources import KINDS, SUFFIXES, open_checked
from studio.errors import DataError, unknown

__all__ = ["KINDS", "Row", "Sniffed", "Unit", "read", "sha256", "sniff"]

Tell = Callable[[int], None]


def read(path: Path, *, kind: str | None = None, unit: Unit = "line", tell: Tell | None = None) -> Iterator[Row]:
    """The rows of a file, lazily.

    Args: kind: how to read it, such as `csv`, instead of what `sniff` finds. unit: what a row of plain text is. tell:
        called about every MiB with the bytes of the file that were read; what it raises ends the reading.
    Raises: DataError: the file cannot be read at all, or unfolds to more than the stated bounds.
    """
    if kind is not None and kind not in SUFFIXES.values():
        raise DataError(unknown("kind of file", kind, set(SUFFIXES.values())))
    sniffed = sniff(path)
    try:
        with open_checked(path) as file:
            yield from _rows(file, path.name, kind or sniffed.kind, sniffed.compression, unit, tell)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error


def sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hex. Raises: DataError: the file cannot be read."""
    try:
        with open_checked(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error


def _rows(
    file: BinaryIO, name: str, kind: str, packing: compression.Compression, unit: Unit, tell: Tell | None
) -> Iterator[Row]:
    size = os.fstat(file.fileno()).st_size
    if not size:
        return
    if kind in ("parquet", "arrow"):
        yield from _columnar(file, name, kind, packing, size, tell)
        return
    text = encodings.utf8(compression.chunks(file, packing, name=name, size=size, tell=tell), name)
    if kind == "jsonl":
        yield from json_lines.rows(text)
    elif kind == "json":
        yield from json_document.rows(text, name)
    elif kind == "txt":
        yield from plain_text.rows(text, unit)
    else:
        yield from tables.rows(text, name, tabs=kind == "tsv")


def _columnar(
    file: BinaryIO, name: str, kind: str, packing: compression.Compression, size: int, tell: Tell | None
) -> Iterator[Row]:
    read_rows = parquet.rows if kind == "parquet" else arrow.rows
    if not packing:
        yield from read_rows(file, name, size, tell)
        return
    # these are read from several places at once, so they are unpacked beforehand
    with tempfile.TemporaryFile() as unpacked:
        for chunk in compression.chunks(file, packing, name=name, size=size, tell=tell):
            unpacked.write(chunk)
        unpacked.flush()
        if length := unpacked.tell():
            unpacked.seek(0)
            yield from read_rows(unpacked, name, length, None)
