"""One JSON value that is a whole file: an array of rows, an object with one list of rows, or an object that is a row.

The file is read through a window that slides over it, so an array may be larger than memory. An element that is broken
is a fault, and the next ones go on. Objects that simply follow each other are rows, too. Not here: one value a line
(json_lines), which is faster.
"""

from __future__ import annotations

from collections.abc import Iterator

from studio.data import decoding
from studio.data.example import Row
from studio.data.readers import lines
from studio.data.readers.encodings import NOT_UTF8
from studio.data.readers.json_lines import of_parsed
from studio.data.readers.window import Window, readable
from studio.errors import DataError

CONVERSATIONS = frozenset({"messages", "conversations", "conversation", "history"})
"""Keys that hold a row's turns, not rows."""

_ENDS_EARLY = "is missing: the file ends inside the array."


def rows(chunks: Iterator[bytes], name: str) -> Iterator[Row]:
    """The rows of UTF-8 text.

    Raises: DataError: one object that holds all rows is too large to be read at once.
    """
    window = Window(chunks)
    first = window.peek()
    if first == "[":
        window.place += 1
        yield from _elements(window, 1, closing="]")
    elif first:
        yield from _objects(window, name)


def _objects(window: Window, name: str) -> Iterator[Row]:
    """The only object of a file, or several that follow each other."""
    row = _element(window, 1, commas=False)
    if window.overlong:
        raise DataError(
            f"{name} holds more than {lines.MAX_LINE:,} characters in one JSON object, too many to be read at once. "
            "Write its rows one a line and call the file .jsonl, or write them as an array."
        )
    if window.peek():
        yield row
        yield from _elements(window, 2, closing="")
    else:
        yield from _rows_within(row)


def _rows_within(row: Row) -> Iterator[Row]:
    """The rows under the one key that holds a list of objects, or the row itself."""
    values = row.values or {}
    lists = [each for each in values.values() if isinstance(each, list) and each and isinstance(each[0], dict)]
    if len(lists) != 1 or CONVERSATIONS & set(values):
        yield row
        return
    for number, each in enumerate(lists[0], 1):
        yield of_parsed(number, decoding.Parsed(each), decoding.shown(each))


def _elements(window: Window, number: int, *, closing: str) -> Iterator[Row]:
    """Values up to the closing bracket, or where that is empty up to the end."""
    while (mark := window.peek()) != closing:
        if not mark:
            yield Row(number, None, _ENDS_EARLY)
            return
        yield _element(window, number, commas=bool(closing))
        number += 1
        if (mark := window.peek()) == "," or (mark == "]" and not closing):
            window.place += 1
    window.place += len(closing)
    if closing and window.peek():
        fault = "is not valid JSON: something follows the end of the array."
        yield Row(number, None, fault, raw=readable(window.text[window.place : window.place + lines.RAW]))


def _element(window: Window, number: int, *, commas: bool) -> Row:
    """The value that comes next. The window then stands at the comma or bracket after it."""
    start = window.text[window.place : window.place + lines.RAW]
    values = window.take_flat()
    text, fault = ("", "") if values is not None else window.take()
    if text is None:
        return Row(number, None, fault, raw=readable(start))
    after = window.peek()
    if after not in ("", ",", "]") and (commas or after != "{"):
        if after != "{":
            window.skip()
        return Row(number, None, "is not followed by a comma.", raw=readable(start))
    return Row(number, values) if values is not None else _checked(number, text)


def _checked(number: int, text: str) -> Row:
    try:
        values = decoding.quick(text.encode())
    except UnicodeEncodeError:  # broken bytes stand as lone surrogates in the window
        return Row(number, None, NOT_UTF8, raw=readable(text[: lines.RAW]))
    return Row(number, values) if values is not None else of_parsed(number, decoding.parse(text), text)
