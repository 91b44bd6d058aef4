"""From bytes to checked values: which encoding a file has, and JSON that is strict where the standard module is not.

A duplicate key, NaN, an endless number, a lone surrogate or a NUL is a fault, not a value. Not here: files and rows
(studio.data.readers).
"""

from __future__ import annotations

import codecs
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAX_DIGITS = 40
"""Digits of a whole number. Longer ones are faults of the data, and slow to read."""

_BYTE_ORDER_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_SPACE = re.compile(r"[ \t\n\r]*")
_STRUCTURE = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{},]', re.DOTALL)


@dataclass(frozen=True)
class Parsed:
    """A value, or the fault that stands in its place, worded to follow "Row 3"."""

    value: Any
    fault: str | None = None


def encoding(path: Path) -> str:
    """UTF-8, or what the byte order mark says."""
    with path.open("rb") as file:
        start = file.read(4)
    return next((name for mark, name in _BYTE_ORDER_MARKS if start.startswith(mark)), "utf-8")


def guess(path: Path) -> str:
    """A guess at the encoding of a file that is not UTF-8, as ", but looks like ..."; empty if there is none."""
    with path.open("rb") as file:
        start = file.read(65_536)
    if _is_half_zeros(start):
        return ", but looks like UTF-16 without its byte order mark"
    if _is(start, "gb18030") and any("\u4e00" <= letter <= "\u9fff" for letter in start.decode("gb18030", "ignore")):
        return ", but looks like GB18030 (GBK)"
    return ", but looks like Latin-1 (Windows-1252)"


def is_utf16_without_mark(path: Path) -> bool:
    """Whether a file is UTF-16 that does not say so. Latin letters in it would pass for UTF-8 with NULs between."""
    with path.open("rb") as file:
        start = file.read(4096)
    return not start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) and _is_half_zeros(start)


def parse(text: str) -> Parsed:
    """One JSON value that is the whole text."""
    parsed, end = _value(text, 0)
    if parsed.fault is None and end != len(text):
        return Parsed(None, f"is not valid JSON: something follows the value at character {end + 1}.")
    return parsed


def elements(text: str, start: int) -> Iterator[Parsed]:
    """The elements of a JSON array whose [ is at `start`. One that is broken is a fault, and the next ones go on."""
    if not text.startswith("[", start):
        if text.strip():
            yield Parsed(None, "is not valid JSON: the file must hold an array of objects.")
        return
    place = _skip(text, start + 1)
    while not text.startswith("]", place):
        parsed, end = _value(text, place)
        after = _end_of_broken(text, place) if end is None else _skip(text, end)
        if end is not None and after < len(text) and text[after] not in ",]":
            parsed = Parsed(None, f"is not followed by a comma at character {end - place + 1}.")
            after = _end_of_broken(text, place)
        yield parsed
        if after is None or after >= len(text):
            yield Parsed(None, "and what follows is missing: the file ends inside the array.")
            return
        place = _skip(text, after + 1) if text[after] == "," else after
    if _skip(text, place + 1) < len(text):
        yield Parsed(None, "is not valid JSON: something follows the end of the array.")


def unfit(value: Any) -> str | None:
    """Why a value cannot be learned from: text with a NUL or a lone surrogate, a number that is not finite."""
    stack = [value]
    while stack:
        each = stack.pop()
        if isinstance(each, dict):
            stack += [*each.keys(), *each.values()]
        elif isinstance(each, list | tuple):
            stack += each
        elif isinstance(each, str):
            if "\0" in each:
                return "holds a NUL character. Remove it."
            if _has_lone_surrogate(each):
                return "holds half of a surrogate pair, which is no character. Write the character whole."
        elif isinstance(each, float) and not math.isfinite(each):
            return f"holds the number {each}, which JSON does not have. Use null or a number."
    return None


def shown(value: Any) -> str:
    """A value as short JSON."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=str)
    except (ValueError, RecursionError):
        text = f"a {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:57]}..."


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


def _value(text: str, place: int) -> tuple[Parsed, int | None]:
    """The value at a place and where it ends; the end is None where it could not be read to its end."""
    strict = _Strict()
    try:
        value, end = strict.decode(text, place)
    except json.JSONDecodeError as error:
        return Parsed(None, f"is not valid JSON: {error.msg} at character {error.pos - place + 1}."), None
    except RecursionError:
        return Parsed(None, "is nested too deeply to be read."), None
    fault = strict.fault or unfit(value)
    return (Parsed(None, fault) if fault else Parsed(value)), end


def _end_of_broken(text: str, place: int) -> int | None:
    """Where the comma or bracket after a broken element is, by counting brackets outside strings. None: nowhere."""
    depth = 0
    for match in _STRUCTURE.finditer(text, place):
        mark = match.group()[0]
        if depth == 0 and mark in ",]":
            return match.start()
        depth += (mark in "[{") - (mark in "]}")
        if depth < 0:
            return None
    return None


def _has_lone_surrogate(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _skip(text: str, place: int) -> int:
    match = _SPACE.match(text, place)
    return match.end() if match else place


def _is_half_zeros(data: bytes) -> bool:
    return max(data[::2].count(0), data[1::2].count(0)) > len(data) // 8


def _is(data: bytes, name: str) -> bool:
    try:
        codecs.getincrementaldecoder(name)().decode(data)
    except UnicodeDecodeError:
        return False
    return True
