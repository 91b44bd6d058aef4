"""Parquet files, a small batch of rows at a time.

A repeated value is stored once, in a dictionary, so a file of 477 bytes can hold 100 GB of text while it declares one
MB. So as few rows are taken at once as fit in memory if each were the whole dictionary; and texts within lists, of
which a single row may have any number, stay numbers into their dictionary until they are weighed. Not here: what
becomes of the values (cells).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any, BinaryIO

from studio.data.compression import allowed, bomb
from studio.data.example import Row
from studio.data.readers import cells, footer
from studio.errors import DataError

_BUFFER = 1024**2


def rows(file: BinaryIO, name: str, size: int, tell: Callable[[int], None] | None) -> Iterator[Row]:
    """The rows of an open file.

    Raises: DataError: it is no parquet file, is damaged, or declares more than a file of its size can hold.
    """
    import pyarrow as arrow  # here, because the page starts faster without it
    from pyarrow import parquet

    try:
        about = parquet.read_metadata(file)
        counted = cells.Cells(name, size)
        groups = footer.row_groups(file)
        _refuse_declared(about.num_rows, groups, counted, name, size)
        # buffer_size: pages are read one by one, however large a row group is
        texts = _texts(about, in_lists=True)
        reader = parquet.ParquetFile(file, metadata=about, read_dictionary=texts, buffer_size=_BUFFER)
        for group, chunks in enumerate(groups):
            rows_at_once = _rows_at_once(file, about, group, chunks)
            for batch in reader.iter_batches(rows_at_once, row_groups=[group], use_threads=False):
                yield from counted.rows(batch)
                if tell:
                    tell(size * counted.number // max(about.num_rows, 1))
    except (arrow.ArrowException, OSError, ValueError, LookupError, OverflowError, TypeError) as error:
        raise DataError(
            f"{name} is not a readable parquet file: {str(error)[:200].rstrip('.')}. Write it again, or convert it to "
            ".jsonl."
        ) from error


def _refuse_declared(rows: int, groups: list[list[footer.Chunk]], counted: cells.Cells, name: str, size: int) -> None:
    counted.declared(rows, "rows")
    unfolded = 0
    for chunk in chain.from_iterable(groups):
        counted.declared(chunk.values, "values in a column")
        unfolded += chunk.unfolded
        if unfolded > allowed(size):
            raise bomb(name, size, unfolded)


def _rows_at_once(file: BinaryIO, about: Any, group: int, chunks: list[footer.Chunk]) -> int:
    """Rows per batch, so that a batch fits in memory even if each of its texts is the column's longest."""
    row = sum(chunk.unfolded for chunk in chunks if chunk.repeats)
    row += sum(max(about.schema.column(index).length, 0) for index in range(len(about.schema)))
    row += sum(_longest_texts(file, about, group))
    return max(1, min(cells.BATCH_ROWS, cells.MAX_BATCH // max(row, 1)))


def _longest_texts(file: BinaryIO, about: Any, group: int) -> Iterator[int]:
    """Bytes of the longest entry in each column's dictionary. It is read with the first row, as it stands first."""
    from pyarrow import compute, parquet

    if not (texts := _texts(about, in_lists=False)):
        return
    reader = parquet.ParquetFile(file, metadata=about, read_dictionary=texts, buffer_size=_BUFFER)
    for batch in reader.iter_batches(1, row_groups=[group], columns=texts, use_threads=False):
        for column in batch.columns:
            if hasattr(column, "dictionary") and len(column.dictionary):
                yield compute.max(compute.binary_length(column.dictionary)).as_py() or 0
        return


def _texts(about: Any, *, in_lists: bool) -> list[str]:
    """The columns of texts, those within lists or those without."""
    columns = (about.schema.column(index) for index in range(len(about.schema)))
    return [
        column.path
        for column in columns
        if column.physical_type == "BYTE_ARRAY" and (column.max_repetition_level > 0) == in_lists
    ]
