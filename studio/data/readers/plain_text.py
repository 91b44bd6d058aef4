"""Plain text: a row for every line that is not blank, for every paragraph, or for the whole file.

Not here: markup, which is text like any other.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Literal

from studio.data.example import Row
from studio.data.readers import lines
from studio.data.readers.encodings import NOT_UTF8

Unit = Literal["line", "paragraph", "file"]

_NUL = "holds a NUL character. Remove it."


def rows(chunks: Iterator[bytes], unit: Unit) -> Iterator[Row]:
    """The rows of UTF-8 text, as {"text": …}. A row's number is that of its first line."""
    numbered = enumerate(chain.from_iterable(lines.batches(chunks)), 1)
    if unit == "line":
        return (_row(number, [line], len(line)) for number, line in numbered if _counts(line))
    return _gathered(numbered, whole=unit == "file")


def _gathered(numbered: Iterator[tuple[int, bytes]], *, whole: bool) -> Iterator[Row]:
    """Lines put together up to a blank one, or up to the end of the file."""
    first, parts, length = 0, [], 0
    for number, line in numbered:
        if not (whole and parts) and not _counts(line):
            if parts:
                yield _row(first, parts, length)
            parts, length = [], 0
            continue
        if not parts:
            first = number
        length += len(line) + 1
        if length <= lines.MAX_LINE or not parts:  # what goes beyond is counted and not kept
            parts.append(line)
    if parts:
        yield _row(first, parts, length)


def _row(number: int, parts: list[bytes], length: int) -> Row:
    raw = lines.text(parts[0])
    if length > lines.MAX_LINE + 1 or any(isinstance(part, lines.Overlong) for part in parts):
        fault = f"is longer than {lines.MAX_LINE:,} bytes. Split it, or read the file by lines."
        return Row(number, None, fault, raw=raw)
    try:
        text = b"\n".join(part.removesuffix(b"\r") for part in parts).decode()
    except UnicodeDecodeError:
        return Row(number, None, NOT_UTF8, raw=raw)
    if "\0" in text:
        return Row(number, None, _NUL, raw=raw)
    return Row(number, {"text": text})


def _counts(line: bytes) -> bool:
    return bool(line.strip()) or isinstance(line, lines.Overlong)
