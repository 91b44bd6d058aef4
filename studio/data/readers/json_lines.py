"""JSON lines: one object a line.

Not here: one JSON value that is the whole file (json_document).
"""

from __future__ import annotations

from collections.abc import Iterator

from studio.data import decoding
from studio.data.example import Row
from studio.data.readers import lines
from studio.data.readers.encodings import NOT_UTF8

_WHITE = b" \t\r\n"


def rows(chunks: Iterator[bytes]) -> Iterator[Row]:
    """The rows of UTF-8 text; a row's number is that of its line. Blank lines are no rows."""
    number, quick = 0, decoding.quick
    for batch in lines.batches(chunks):
        for line in batch:
            number += 1
            values = quick(line)
            if values is not None:
                yield Row(number, values)
            elif row := _doubtful(number, line):
                yield row


def of_parsed(number: int, parsed: decoding.Parsed, raw: str) -> Row:
    """The row that a JSON value is, or the fault in its place. raw: the text that it was."""
    if parsed.fault:
        return Row(number, None, parsed.fault, raw=raw[: lines.RAW])
    if not isinstance(parsed.value, dict):
        fault = f"must be an object with columns, but is {decoding.shown(parsed.value)}."
        return Row(number, None, fault, raw=raw[: lines.RAW])
    return Row(number, parsed.value)


def _doubtful(number: int, line: bytes) -> Row | None:
    if isinstance(line, lines.Overlong):
        return Row(number, None, f"is longer than {lines.MAX_LINE:,} bytes.", raw=lines.text(line))
    line = line.strip(_WHITE)
    if not line:
        return None
    try:
        text = line.decode()
    except UnicodeDecodeError:
        return Row(number, None, NOT_UTF8, raw=lines.text(line))
    return of_parsed(number, decoding.parse(text), text)
