"""A window that slides over JSON text, value by value, in constant memory.

It finds where a value ends and goes past broken ones. Not here: whether a value is fit to be learned from (decoding).
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any

from studio.data import decoding
from studio.data.readers import lines

_STRUCTURE = re.compile(r'["\[\]{},\n]')
_IN_STRING = re.compile(r'["\\\n]')
_NEAR_END = 16
"""Characters before the window's end where an error may come from the cut: within -Infinity, or \\ud83d\\ude42."""
_BEHIND = 200
"""Characters before the place that stay in the window, because they tell how deep its line is indented."""

_scan = json.JSONDecoder().raw_decode


class Window:
    """Some text of a file. place: the next character. overlong: the last value taken was too long to be read."""

    def __init__(self, chunks: Iterator[bytes]):
        # broken bytes become lone surrogates, so that only the value that holds them is lost
        self._decode = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode
        self._chunks = chunks
        self._ended = False
        self.text = ""
        self.place = 0
        self.overlong = False

    def peek(self) -> str:
        """The next character that is no white space, where the place then is; empty at the end of the file."""
        while True:
            self.place = decoding.skip_space(self.text, self.place)
            if self.place < len(self.text):
                return self.text[self.place]
            if not self._grow():
                return ""

    def take_flat(self) -> dict[str, Any] | None:
        """The object at the place, if the first } ends it and it is beyond doubt. So it is in most files."""
        if self.text[self.place] != "{":
            return None
        end = self.text.find("}", self.place) + 1
        try:
            values = decoding.quick(self.text[self.place : end].encode()) if end else None
        except UnicodeEncodeError:
            return None
        if values is not None:
            self.place = end
        return values

    def take(self) -> tuple[str | None, str]:
        """The text of the JSON value at the place, which moves behind it; or None and the fault of a broken one."""
        self.overlong = False
        while True:
            end = None
            try:
                end = _scan(self.text, self.place)[1]
            except json.JSONDecodeError as error:
                if not self._may_be_cut(error):
                    return self._broken()
            except RecursionError:
                return self._broken()
            except ValueError:  # a whole number of thousands of digits
                end = decoding.value_at(self.text, self.place)[1]
            if (end or len(self.text)) - self.place > lines.MAX_LINE:
                return self._left_out(end)
            if end is not None and (end < len(self.text) or self.text[self.place] in '{["'):
                break
            if not self._grow():  # a number may go on in what comes next
                if end is None:
                    return self._broken()
                break
        text, self.place = self.text[self.place : end], end
        return text, ""

    def skip(self) -> None:
        """Go to the comma or bracket behind a broken value, or to the line where the next one seems to start.

        Brackets are counted outside of strings. Strings never hold a line break, so one ends a string that was left
        open; and a line that is indented like the broken value's own and opens an object is the next value.
        """
        opening = self._opening()
        depth, in_string = 0, False
        while match := self._next(_IN_STRING if in_string else _STRUCTURE, ahead=len(opening) + 1):
            mark, self.place = match.group(), match.end()
            if mark == "\n":
                in_string = False
                if opening and self.text.startswith(opening, self.place):
                    return
            elif mark == "\\":
                self.place += 1
            elif mark == '"':
                in_string = not in_string
            elif depth == 0 and mark in ",]":
                self.place = match.start()
                return
            else:
                depth = depth + 1 if mark in "[{" else max(depth - 1, 0)

    def _next(self, pattern: re.Pattern[str], *, ahead: int) -> re.Match[str] | None:
        """The next match, with that many characters after it in the window, unless the file ends before."""
        while True:
            match = pattern.search(self.text, self.place)
            if match and (self._ended or match.end() + ahead <= len(self.text)):
                return match
            self.place = match.start() if match else max(len(self.text), self.place)
            if not self._grow() and not match:
                return None

    def _may_be_cut(self, error: json.JSONDecodeError) -> bool:
        if self._ended:
            return False
        return error.pos >= len(self.text) - _NEAR_END or error.msg.startswith("Unterminated string")

    def _broken(self) -> tuple[None, str]:
        fault = decoding.value_at(self.text, self.place)[0].fault
        self.skip()
        return None, fault or decoding.TOO_DEEP

    def _left_out(self, end: int | None) -> tuple[None, str]:
        self.overlong = True
        if end is None:
            self.skip()
        else:
            self.place = end
        return None, f"is longer than {lines.MAX_LINE:,} characters."

    def _opening(self) -> str:
        """How the place's line starts, if with white space and an object; empty if it does not."""
        before = self.text[max(self.place - _BEHIND, 0) : self.place]
        line = before[before.rfind("\n") + 1 :]
        return line + "{" if "\n" in before and not line.strip() and self.text.startswith("{", self.place) else ""

    def _grow(self) -> bool:
        """Let go of what lies behind, and take in as much again as there is ahead. False: the file has ended."""
        gone = max(self.place - _BEHIND, 0)
        parts, length = [self.text[gone:]], 0
        self.place -= gone
        while not self._ended and length <= len(parts[0]) - self.place:
            chunk = next(self._chunks, None)
            self._ended = chunk is None
            parts.append(self._decode(chunk or b"", self._ended))
            length += len(parts[-1])
        self.text = "".join(parts)
        return length > 0


def readable(text: str) -> str:
    """A piece of the window, for people: lone surrogates, which stand for broken bytes, become question marks."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
