"""From text to checked values: JSON that is strict where the standard module is not.

A duplicate key, NaN, an endless number, a lone surrogate, a NUL or endless nesting is a fault, not a value. `quick`
reads what is beyond doubt many times faster and leaves everything else to `parse`, which decides. Not here: files,
encodings and rows (studio.data.readers).
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Any

import orjson

MAX_DIGITS = 40
"""Digits of a whole number. Longer ones are faults of the data, and slow to read."""
MAX_DEPTH = 200
"""Lists and objects within each other. Stated, because otherwise the depth of the call stack decides."""

TOO_DEEP = "is nested too deeply to be read."

_EXACT = float(2**53)
"""From here on orjson's floats may be whole numbers of more than 64 bits, which are kept exact."""
_SPACE = re.compile(r"[ \t\r\n]*")
_ESCAPE = re.compile(rb"\\(.)", re.DOTALL)
_IN_DOUBT = -(10**9)


@dataclass(frozen=True, slots=True)
class Parsed:
    """A value, or the fault that stands in its place, worded to follow "Row 3"."""

    value: Any
    fault: str | None = None


def quick(text: bytes) -> dict[str, Any] | None:
    """The object that a JSON text is, if it is beyond doubt; None leaves the text to `parse`.

    Whether a key was there twice, which orjson does not tell, is seen by counting: every string of the text must have
    become a key or a value of the object, so its quotation marks, less the escaped ones, are twice as many as those.
    """
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    if type(value) is not dict:
        return None
    strings = len(value)
    for each in value.values():
        kind = type(each)
        if kind is str:
            strings += 1
        elif kind is dict or kind is list:
            strings += _strings(each, 2)
        elif kind is float and not -_EXACT < each < _EXACT:
            return None
    if b"\\" not in text:
        return value if text.count(b'"') == 2 * strings else None
    if b"\\u0000" in text:
        return None
    marks = text.count(b'"')
    if marks != 2 * strings:
        marks -= text.count(b'\\"') if b"\\\\" not in text else _ESCAPE.findall(text).count(b'"')
    return value if marks == 2 * strings else None


def parse(text: str) -> Parsed:
    """One JSON value that is the whole text."""
    parsed, end = value_at(text, 0)
    if parsed.fault is None and end != len(text):
        return Parsed(None, f"is not valid JSON: something follows the value at character {end + 1}.")
    return parsed


def value_at(text: str, place: int) -> tuple[Parsed, int | None]:
    """The value at a place of a text and where it ends; the end is None where it could not be read to its end."""
    strict = _Strict()
    try:
        value, end = strict.decode(text, place)
    except json.JSONDecodeError as error:
        return Parsed(None, f"is not valid JSON: {error.msg} at character {error.pos - place + 1}."), None
    except RecursionError:
        return Parsed(None, TOO_DEEP), None
    fault = strict.fault or unfit(value)
    return (Parsed(None, fault) if fault else Parsed(value)), end


def skip_space(text: str, place: int) -> int:
    """The first place from here on that is no white space of JSON."""
    match = _SPACE.match(text, place)
    return match.end() if match else place


def unfit(value: Any) -> str | None:
    """Why a value cannot be learned from: a NUL, a lone surrogate, a number that is not finite, endless nesting."""
    stack = [(value, 1)]
    while stack:
        each, depth = stack.pop()
        if isinstance(each, dict):
            inner = [*each.keys(), *each.values()]
        elif isinstance(each, list | tuple):
            inner = list(each)
        else:
            if fault := _unfit_leaf(each):
                return fault
            continue
        if depth > MAX_DEPTH:
            return TOO_DEEP
        stack += [(one, depth + 1) for one in inner]
    return None


def shown(value: Any, limit: int = 60) -> str:
    """A value as short JSON."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=str)
    except (ValueError, RecursionError):
        text = f"a {type(value).__name__}"
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def _unfit_leaf(value: Any) -> str | None:
    if isinstance(value, str):
        if "\0" in value:
            return "holds a NUL character. Remove it."
        if _has_lone_surrogate(value):
            return "holds half of a surrogate pair, which is no character. Write the character whole."
    elif isinstance(value, float) and not math.isfinite(value):
        return f"holds the number {value}, which JSON does not have. Use null or a number."
    return None


def _strings(value: Any, depth: int) -> int:
    """Strings in a list or object; far below zero where something in it is left to the strict reading."""
    if depth > MAX_DEPTH:
        return _IN_DOUBT
    count = 0
    if type(value) is dict:
        count = len(value)
        value = value.values()
    for each in value:
        kind = type(each)
        if kind is str:
            count += 1
        elif kind is dict or kind is list:
            count += _strings(each, depth + 1)
        elif kind is float and not -_EXACT < each < _EXACT:
            return _IN_DOUBT
    return count


class _Strict:
    """Hooks for the JSON decoder. They note the first fault and go on, so that the end of the value is still found."""

    def __init__(self) -> None:
        self.fault: str | None = None
        self.decode = json.JSONDecoder(
            object_pairs_hook=self._pairs,
            parse_constant=self._constant,
            parse_int=self._whole,
            parse_float=self._number,
        ).raw_decode

    def _note(self, fault: str) -> None:
        self.fault = self.fault or fault

    def _pairs(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(pairs)
        if len(values) != len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            self._note(f"has the key '{twice}' twice. Keep one of them.")
        return values

    def _constant(self, word: str) -> None:
        self._note(f"holds {word}, which JSON does not have. Use null or a number.")

    def _whole(self, digits: str) -> int:
        if len(digits) > MAX_DIGITS:
            self._note(
                f"holds a whole number of {len(digits)} digits. At most {MAX_DIGITS} are read; write it as text."
            )
            return 0
        return int(digits)

    def _number(self, digits: str) -> float:
        number = float(digits)
        if not math.isfinite(number):
            self._note(f"holds the number {shown(digits)}, which is too large. Write it as text.")
        return number


def _has_lone_surrogate(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False
