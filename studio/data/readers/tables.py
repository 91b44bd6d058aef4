"""Tables as text: .csv with quoting, separated by commas, semicolons or tabs, and .tsv without.

The first record is a header unless it looks like data, that is, unless one of its cells

- stands again in the same column within the next 200 records,
- is a number,
- is longer than 80 characters,
- ends in a full stop, a question mark or an exclamation mark, or
- is blank, other than the first one, which is left blank over an index.

Without a header the columns are called `column 1`, `column 2`, and no record is lost. Not here: what a cell means; all
cells are text.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from itertools import chain
from typing import NamedTuple

from studio.data.example import Row
from studio.data.readers import lines
from studio.data.readers.encodings import NOT_UTF8
from studio.errors import DataError

SAMPLE = 200
"""Records that tell whether the first one is a header."""
_SAMPLE_BYTES = 4 * 1024**2
_LONGEST_NAME = 80
_NUMBER = re.compile(r"\s*[-+]?[\d.,]*\d[\d.,]*(?:[eE][-+]?\d+)?\s*%?\s*")
_SENTENCE_ENDS = (".", "!", "?", "。", "！", "？", "…")
_NUL = "holds a NUL character. Remove it."

csv.field_size_limit(lines.MAX_LINE)  # one limit for the process; its default of 131,072 is one long answer


class Record(NamedTuple):
    """One record: its cells, or its fault. raw: the text of one with a fault."""

    cells: list[str]
    fault: str = ""
    raw: str = ""


def rows(chunks: Iterator[bytes], name: str, *, tabs: bool) -> Iterator[Row]:
    """The rows of UTF-8 text; a row's number does not count the header.

    Raises: DataError: a column name is there twice.
    """
    batches = lines.batches(chunks)
    first = next(batches, [])
    every = chain(first, chain.from_iterable(batches))
    records = _tabbed(every) if tabs else _quoted(every, _delimiter(first))
    sample = _sample(records)
    header = next((record for record in sample if not record.fault), None)
    if header is None:
        return _rows(chain(sample, records), [])
    if has_header([record.cells for record in sample if not record.fault]):
        names = _names(header.cells, name)
        sample.remove(header)
    else:
        names = [f"column {index}" for index in range(1, len(header.cells) + 1)]
    return _rows(chain(sample, records), names)


def has_header(records: list[list[str]]) -> bool:
    """Whether the first of some records names the columns, by the rule at the top of this file."""
    first, others = records[0], records[1 : SAMPLE + 1]
    for index, cell in enumerate(first):
        text = cell.strip()
        if not text and index == 0 and len(first) > 1 and any(each.strip() for each in first[1:]):
            continue
        if not text or len(text) > _LONGEST_NAME or text.endswith(_SENTENCE_ENDS) or _NUMBER.fullmatch(text):
            return False
        if any(index < len(other) and other[index] == cell for other in others):
            return False
    return True


def delimiter_of(line: str) -> str:
    """What separates a line's cells most often: a comma, or what some spreadsheets write instead."""
    return max(",;\t", key=line.count)


def _rows(records: Iterator[Record], names: list[str]) -> Iterator[Row]:
    width = len(names)
    for number, (cells, fault, raw) in enumerate(records, 1):
        if fault:
            yield Row(number, None, fault, raw=raw)
        elif len(cells) != width:
            fault = f"has {len(cells)} cells, but there are {width} columns."
            yield Row(number, None, fault, raw=", ".join(cells)[: lines.RAW])
        else:
            yield Row(number, dict(zip(names, cells, strict=True)))


def _names(cells: list[str], name: str) -> list[str]:
    names = [cell.strip() or f"column {index}" for index, cell in enumerate(cells, 1)]
    if len(set(names)) != len(names):
        twice = next(each for each in names if names.count(each) > 1)
        raise DataError(f"{name}: the column '{twice}' is there twice. Rename one in the first line.")
    return names


def _sample(records: Iterator[Record]) -> list[Record]:
    sample, size = [], 0
    for record in records:
        sample.append(record)
        size += sum(map(len, record.cells))
        if len(sample) > SAMPLE or size > _SAMPLE_BYTES:
            break
    return sample


def _delimiter(first: list[bytes]) -> str:
    line = next((line for line in first if line.strip()), b"")
    return delimiter_of(line.decode("utf-8", "replace"))


# --- records


def _tabbed(every: Iterator[bytes]) -> Iterator[Record]:
    """Tab-separated text has no quoting (IANA): a cell may start with a quotation mark and mean it."""
    for line in every:
        text, fault = _decoded(line)
        if fault:
            yield Record([], fault, lines.text(line))
        elif text.strip(" "):
            yield Record(text.split("\t"))


def _quoted(every: Iterator[bytes], delimiter: str) -> Iterator[Record]:
    """Quoted cells may hold line breaks, quotation marks and the delimiter (RFC 4180). Blank lines are no records."""
    feed = _Lines(every)
    reader = csv.reader(feed, delimiter=delimiter, strict=True)
    while True:
        feed.begin()
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            fault = feed.fault() or f"is not a valid table row (line {feed.number}): {error}."
            yield Record([], fault, feed.raw())
            feed.rewind()
            continue
        if fault := feed.fault():
            yield Record([], fault, feed.raw())
        elif len(cells) > 1 or (cells and cells[0].strip(" ")):
            yield Record(cells)


class _Lines:
    """What the csv module reads: lines as text, of which those of the record that is being read are kept.

    A quotation mark that is never closed swallows what follows. So after a fault reading goes on with the record's
    second line; `_budget` keeps the time that this takes within what reading everything once more would take.
    """

    def __init__(self, every: Iterator[bytes]):
        self._every = every
        self._again: list[tuple[str, str]] = []
        self._record: list[tuple[str, str]] = []
        self._size = 0
        self._budget = lines.MAX_LINE
        self.number = 0

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        if self._again:
            line = self._again.pop()
        else:
            line = _decoded(next(self._every))
            self._budget += len(line[0])
        self.number += 1
        self._record.append(line)
        self._size += len(line[0]) + 1
        if self._size > lines.MAX_LINE:
            raise csv.Error(f"it is longer than {lines.MAX_LINE:,} characters")
        return line[0] + "\n"

    def begin(self) -> None:
        """A new record starts with the next line."""
        self._record, self._size = [], 0

    def fault(self) -> str:
        """The fault of the first line of the record that cannot be read."""
        return next((fault for _, fault in self._record if fault), "") if self._record else ""

    def raw(self) -> str:
        """How the record begins."""
        return "\n".join(text[: lines.RAW] for text, _ in self._record[:20])[: lines.RAW]

    def rewind(self) -> None:
        """Read the lines after the record's first one again."""
        later = self._record[1:]
        if later and self._size <= self._budget:
            self._budget -= self._size
            self.number -= len(later)
            self._again += reversed(later)


def _decoded(line: bytes) -> tuple[str, str]:
    """A line's text without its end, and why it cannot be read, if so."""
    if isinstance(line, lines.Overlong):
        return "", f"is longer than {lines.MAX_LINE:,} bytes."
    try:
        text = line.decode().removesuffix("\r")
    except UnicodeDecodeError:
        return line.decode("utf-8", "replace"), NOT_UTF8
    return text, _NUL if "\0" in text else ""
