"""Reading the columns of a row, with faults that name the place and what was found there.

A column is a path: `answer`, `meta.answer`, `instances[0].output`; `lines[]` joins a list of texts by newlines. A key
that is spelt like a path wins over it. Not here: turns of a conversation (studio.data.turns), which columns a format
has (studio.data.formats).
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from studio.data import decoding
from studio.data.example import RowFault, Values

MAX_PATH = 200
"""Characters of a column that is still read as a path."""

_PATH = re.compile(r"[^.\[\]]+(?:\.[^.\[\]]+|\[[0-9]{0,6}\])*")
_STEP = re.compile(r"\[([0-9]*)\]|([^.\[\]]+)")

_BRIEF = reprlib.Repr()
_BRIEF.maxstring = _BRIEF.maxlong = _BRIEF.maxother = 60
_BRIEF.maxlevel = 2  # plain repr fails on what is nested a thousand deep

_KINDS = {
    "NoneType": "nothing",
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "list": "a list",
    "dict": "an object",
}


def at(values: Values, column: str) -> Any:
    """What a column holds; None where it is absent.

    Raises: RowFault: the column is a list to be joined, and is no list of texts.
    """
    value = values.get(column)
    if value is not None or column in values:
        return value
    path = _path(column)
    return None if path is None else _follow(values, path, column)


def optional_text(values: Values, column: str | None) -> str:
    """The text of a column, or "" where the column, or its value in this row, is absent.

    Raises: RowFault: the value is not text.
    """
    if not column:
        return ""
    value = values.get(column)
    if isinstance(value, str):
        return value
    value = at(values, column)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise RowFault(column, f"must be text, but is {kind(value)}: {shown(value)}.")
    return value


def needed_text(values: Values, column: str, part: str) -> str:
    """The text of a column that must be there and must not be blank. part: what it is for, such as `response`.

    Raises: RowFault.
    """
    text = optional_text(values, column)
    if not text or text.isspace():
        raise RowFault(column, lack(values, column, part))
    return text


def lack(values: Values, column: str, part: str) -> str:
    """Why a column without text cannot play a part, and which columns of the row could."""
    if at(values, column) is not None:
        return f"is empty. The {part} needs text."
    others = [name for name, value in values.items() if name != column and isinstance(value, str) and value.strip()]
    hint = f" (columns with text in this row: {', '.join(others[:8])})" if others else ""
    return f"is missing. Fill it in, or map another column to the {part}{hint}."


def parsed(text: str, place: str) -> Any:
    """The value of a JSON text within a row.

    Raises: RowFault: it is not JSON.
    """
    found = decoding.parse(text.strip())
    if found.fault is not None:
        raise RowFault(place, found.fault)
    return found.value


def usual(rows: Sequence[Values], names: Iterable[str]) -> str | None:
    """The first of the names under which any of the rows has something."""
    return next((name for name in names if any(row.get(name) is not None for row in rows)), None)


def usual_columns(
    rows: Sequence[Values], columns: Mapping[str, Sequence[str]], parts: Iterable[str] | None = None
) -> dict[str, str]:
    """Part -> the column that plays it by its usual name; without those that no row has. parts: only these."""
    wanted = columns if parts is None else parts
    return {part: name for part in wanted if (name := usual(rows, columns[part]))}


def kind(value: Any) -> str:
    """The type of a value, in words."""
    name = type(value).__name__
    return _KINDS.get(name, f"a {name}")


def shown(value: Any) -> str:
    """A value, short enough for a message."""
    text = _BRIEF.repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


@lru_cache(maxsize=1024)
def _path(column: str) -> tuple[str | int | None, ...] | None:
    """The steps of a path: a key, a place in a list, or None for all of a list. None: the column is a plain key."""
    if len(column) > MAX_PATH or not _PATH.fullmatch(column):
        return None
    found = _STEP.finditer(column)
    steps = tuple(match[2] or (int(match[1]) if match[1] else None) for match in found)
    return steps if len(steps) > 1 else None


def _follow(value: Any, path: Sequence[str | int | None], place: str) -> Any:
    for index, step in enumerate(path):
        if step is None:
            return _joined(value, path[index + 1 :], place)
        if isinstance(step, str):
            value = value.get(step) if isinstance(value, dict) else None
        else:
            value = value[step] if isinstance(value, list) and step < len(value) else None
    return value


def _joined(value: Any, rest: Sequence[str | int | None], place: str) -> str | None:
    if value is None:
        return None
    if not isinstance(value, list):
        raise RowFault(place, f"must be a list of texts, but is {kind(value)}: {shown(value)}.")
    texts = [_follow(each, rest, place) for each in value]
    for number, text in enumerate(texts, 1):
        if not isinstance(text, str):
            raise RowFault(place, f"must be a list of texts, but entry {number} is {kind(text)}: {shown(text)}.")
    return "\n".join(texts)
