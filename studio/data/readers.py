"""Read the rows of a file, one at a time: .json, .jsonl, .csv, .tsv and .parquet.

A row that cannot be read is a Row with a fault and the others go on; a file that cannot be read is a DataError. Where
a .json or .jsonl file holds the other of the two, its content decides. Not here: what a row means (formats).
"""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from studio.data import decoding
from studio.errors import DataError

MAX_ROWS = 5_000_000
MAX_LINE = 64 * 1024**2
"""Characters of one JSON line or one cell."""
MAX_JSON_BYTES = 512 * 1024**2
"""A JSON array is parsed in memory; a larger one belongs into JSON lines."""
MAX_PARQUET_BYTES = 4 * 1024**3
"""What a parquet file may unfold to, by what it declares and by what really comes out of it."""

KINDS = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet")

csv.field_size_limit(MAX_LINE)  # the module has one limit for the process; its default of 131,072 is one long answer


@dataclass(frozen=True)
class Row:
    """One row. number: from 1; for JSON lines the line, for tables without the header. values or fault is None."""

    number: int
    values: dict[str, Any] | None
    fault: str | None = None


def read(path: Path) -> Iterator[Row]:
    """The rows of a file, lazily.

    Raises: DataError: the file cannot be read at all, or is larger than the stated bounds.
    """
    suffix = path.suffix.lower()
    if suffix not in KINDS:
        raise DataError(f"{path.name}: files of kind '{suffix}' cannot be read. Known: {', '.join(KINDS)}.")
    try:
        for count, row in enumerate(_rows(path, suffix), 1):
            if count > MAX_ROWS:
                raise DataError(f"{path.name} has more than {MAX_ROWS:,} rows. Split the file.")
            yield row
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path.name} is not UTF-8 text{decoding.guess(path)}. Save it as UTF-8.") from error


def sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hex. Raises: DataError: the file cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error


def _rows(path: Path, suffix: str) -> Iterator[Row]:
    if suffix == ".parquet":
        return _parquet(path)
    if decoding.is_utf16_without_mark(path):
        raise DataError(f"{path.name} is not UTF-8 text{decoding.guess(path)}. Save it as UTF-8.")
    if suffix in (".csv", ".tsv"):
        return _table(path, tabs=suffix == ".tsv")
    return _json(path) if _holds_one_document(path, suffix) else _json_lines(path)


def _text(path: Path, newline: str | None = None) -> IO[str]:
    return io.open(path, encoding=decoding.encoding(path), newline=newline)  # noqa: UP020


# --- JSON ---


def _holds_one_document(path: Path, suffix: str) -> bool:
    """Whether a file is one JSON value rather than one a line. An array of rows starts with [, lines of rows with {."""
    with _text(path) as file:
        start = file.read(4096).lstrip()
        if start.startswith("["):
            # One row a line may wrongly be a list; a list of objects is an array under another name
            return suffix == ".json" or bool(re.match(r"\[\s*([{\]]|$)", start))
        if suffix != ".json":
            return False
        file.seek(0)
        lines = [line for line in itertools.islice(file, 64) if line.strip()][:2]
    # Two lines that each are an object of their own are JSON lines under another name
    return not (len(lines) == 2 and all(isinstance(decoding.parse(line.strip()).value, dict) for line in lines))


def _json_lines(path: Path) -> Iterator[Row]:
    with _text(path) as file:
        for number in itertools.count(1):
            line = file.readline(MAX_LINE)
            if not line:
                return
            if len(line) == MAX_LINE and not line.endswith("\n"):
                while (rest := file.readline(MAX_LINE)) and not rest.endswith("\n"):
                    pass
                yield Row(number, None, f"is longer than {MAX_LINE:,} characters.")
            elif line.strip():
                yield _row(number, decoding.parse(line.strip()))


def _json(path: Path) -> Iterator[Row]:
    if path.stat().st_size > MAX_JSON_BYTES:
        raise DataError(
            f"{path.name} has more than {MAX_JSON_BYTES // 1024**2} MiB, too much for one JSON value. "
            "Write one row a line and call it .jsonl."
        )
    with _text(path) as file:
        text = file.read()
    start = len(text) - len(text.lstrip())
    if text.startswith("{", start):
        return _rows_of_object(path, text)
    return (_row(number, parsed) for number, parsed in enumerate(decoding.elements(text, start), 1))


def _rows_of_object(path: Path, text: str) -> Iterator[Row]:
    """The rows under the one key that holds a list of objects, or the object itself as the only row."""
    parsed = decoding.parse(text.strip())
    if not isinstance(parsed.value, dict):
        raise DataError(f"{path.name} {parsed.fault}")
    lists = [each for each in parsed.value.values() if isinstance(each, list) and each and isinstance(each[0], dict)]
    if len(lists) == 1 and not {"messages", "conversations", "conversation", "history"} & set(parsed.value):
        return (_row(n, decoding.Parsed(each, decoding.unfit(each))) for n, each in enumerate(lists[0], 1))
    return iter([_row(1, parsed)])


def _row(number: int, parsed: decoding.Parsed) -> Row:
    if parsed.fault:
        return Row(number, None, parsed.fault)
    if not isinstance(parsed.value, dict):
        return Row(number, None, f"must be an object with columns, but is {decoding.shown(parsed.value)}.")
    return Row(number, parsed.value)


# --- Tables ---


def _table(path: Path, *, tabs: bool) -> Iterator[Row]:
    with _text(path, newline="") as file:
        header_line = file.readline()
        file.seek(0)
        delimiter = "\t" if tabs else _delimiter(header_line)
        # Tab-separated text has no quoting (IANA): a cell may start with a quotation mark and mean it
        quoting = csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL
        records = csv.reader(file, delimiter=delimiter, quoting=quoting, strict=True)
        header = _header(path, records)
        if header is None:
            return
        number = 0
        while True:
            number += 1
            try:
                cells = next(records)
            except StopIteration:
                return
            except csv.Error as error:
                yield Row(number, None, f"is not a valid table row (line {records.line_num}): {error}.")
                continue
            if not cells:
                number -= 1  # a blank line is no row
                continue
            yield _table_row(number, header, cells)


def _header(path: Path, records: Any) -> list[str] | None:
    try:
        cells = next(records, None)
    except csv.Error as error:
        raise DataError(f"{path.name}: the header line is not valid: {error}.") from error
    if cells is None:
        return None
    names = [cell.strip() or f"column {index}" for index, cell in enumerate(cells, 1)]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"{path.name}: the column '{twice}' is there twice. Rename one in the first line.")
    return names


def _table_row(number: int, header: list[str], cells: list[str]) -> Row:
    if len(cells) != len(header):
        return Row(number, None, f"has {len(cells)} cells, but the header has {len(header)}.")
    values = dict(zip(header, cells, strict=True))
    fault = decoding.unfit(values)
    return Row(number, None, fault) if fault else Row(number, values)


def _delimiter(header: str) -> str:
    """What separates the header's cells most often: a comma, or what some spreadsheets write instead."""
    return max(",;\t", key=header.count)


# --- Parquet ---


def _parquet(path: Path) -> Iterator[Row]:
    import pyarrow as arrow  # here, because the page starts faster without it
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            yield from _parquet_rows(path, file)
    except (arrow.ArrowException, ValueError, OverflowError) as error:
        raise DataError(
            f"{path.name} is not a readable parquet file: {str(error)[:200]}. Write it again, or convert it to .jsonl."
        ) from error


def _parquet_rows(path: Path, file: Any) -> Iterator[Row]:
    about = file.metadata
    groups = [about.row_group(index) for index in range(about.num_row_groups)]
    if about.num_rows > MAX_ROWS:
        raise DataError(f"{path.name} declares {about.num_rows:,} rows; at most {MAX_ROWS:,} are read. Split the file.")
    if sum(group.total_byte_size for group in groups) > MAX_PARQUET_BYTES:
        raise DataError(f"{path.name} unfolds to more than {MAX_PARQUET_BYTES // 1024**3} GiB. Split the file.")
    unfolded, number = 0, 0
    for batch in file.iter_batches(batch_size=_batch_rows(groups)):
        # A repeated value is stored once, so a file can unfold to far more than it declares
        unfolded += batch.nbytes
        names = batch.schema.names
        if unfolded > MAX_PARQUET_BYTES:
            raise DataError(f"{path.name} unfolds to more than {MAX_PARQUET_BYTES // 1024**3} GiB. Split the file.")
        for index in range(batch.num_rows):
            number += 1
            values = {name: column[index].as_py() for name, column in zip(names, batch.columns, strict=True)}
            fault = decoding.unfit(values)
            yield Row(number, None, fault) if fault else Row(number, values)


def _batch_rows(groups: list[Any]) -> int:
    """Rows per batch, so that even if every cell is as large as its whole column, a batch stays near 64 MiB."""
    columns = [group.column(index) for group in groups for index in range(group.num_columns)]
    largest = max((column.total_uncompressed_size for column in columns), default=1)
    return max(1, min(1024, 64 * 1024**2 // max(largest, 1)))
