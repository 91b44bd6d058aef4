"""Special tokens that stand in what somebody wrote, such as <|im_end|> in a user's question: found, to be kept as text.

They are surrounded by marks before the template writes the conversation, and looked up in what it wrote. Not here: how
they are then turned into tokens (tokenizer).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from studio.errors import TemplateError

_LETTERS = [chr(code) for code in range(0xFDD0, 0xFDF0)]
"""Characters that Unicode keeps for a program's own use."""
_ANY_LETTER = re.compile("[\ufdd0-\ufdef]")

Span = tuple[int, int]
"""[start, end) in characters."""


class Marks(NamedTuple):
    """Four characters that a conversation does not hold: around what the assistant writes, and around quotations."""

    opening: str
    closing: str
    quote: str
    unquote: str


def unused_marks(said: str) -> Marks:
    """Marks for a conversation. said: all that stands in it."""
    used = set(_ANY_LETTER.findall(said))
    free = [letter for letter in _LETTERS if letter not in used]
    if len(free) < 4:
        raise TemplateError("This conversation holds every character that is kept for marks (U+FDD0 to U+FDEF).")
    return Marks(*free[:4])


_NUMBERS = re.compile("[\ufdec\ufded]([\ufdd0-\ufddf]+)\ufdee")


def numbered(text: str, number: int) -> str:
    """A text with marks around all but its outer white space that say which one it is; templates may trim it."""
    digits = "".join(_LETTERS[int(digit, 16)] for digit in f"{number:x}")
    core = text.strip()
    begin = text.index(core)
    marks = (f"{letter}{digits}\ufdee" for letter in "\ufdec\ufded")
    return f"{text[:begin]}{next(marks)}{core}{next(marks)}{text[begin + len(core) :]}"


def unnumbered(text: str) -> tuple[str, list[tuple[int, tuple[int | None, int | None]]]]:
    """(the text without such marks, [(number, (begin, end))]): None where one of the two was lost."""
    pieces: list[str] = []
    spans: dict[int, list[int | None]] = {}
    place = end = 0
    for mark in _NUMBERS.finditer(text):
        pieces.append(text[end : mark.start()])
        place += mark.start() - end
        end = mark.end()
        number = int("".join(f"{ord(digit) - 0xFDD0:x}" for digit in mark[1]), 16)
        spans.setdefault(number, [None, None])["\ufdec\ufded".index(mark[0][0])] = place
    return "".join([*pieces, text[end:]]), [(number, (begin, end)) for number, (begin, end) in spans.items()]


def strings(value: Any) -> Iterator[str]:
    """Every text in nested lists and objects, names too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, each in value.items():
            yield name
            yield from strings(each)
    elif isinstance(value, Sequence):
        for each in value:
            yield from strings(each)


def quoted(value: Any, special: re.Pattern[str], marks: Marks) -> Any:
    """The value with every special string in it between marks."""
    if isinstance(value, str):
        return special.sub(rf"{marks.quote}\g<0>{marks.unquote}", value)
    if isinstance(value, Mapping):
        return {quoted(name, special, marks): quoted(each, special, marks) for name, each in value.items()}
    if isinstance(value, Sequence):
        return [quoted(each, special, marks) for each in value]
    return value


def unmarked(text: str, marks: Marks) -> tuple[str, list[Span], list[Span]]:
    """(the text without marks, what stood between generation marks, what stood between quotation marks)."""
    found: list[str] = []
    spans: dict[str, list[Span]] = {marks.closing: [], marks.unquote: []}
    began: dict[str, int | None] = {marks.closing: None, marks.unquote: None}
    closes = {marks.opening: marks.closing, marks.quote: marks.unquote}
    place = 0
    for piece in re.split(f"([{''.join(marks)}])", text):
        if piece in closes:
            began[closes[piece]] = place
        elif piece in spans:
            # a template that takes a turn apart may lose one of two marks
            if (begin := began[piece]) is not None and begin < place:
                spans[piece].append((begin, place))
            began[piece] = None
        else:
            found.append(piece)
            place += len(piece)
    return "".join(found), spans[marks.closing], spans[marks.unquote]


def any_of(words: Iterable[str]) -> re.Pattern[str]:
    """A pattern that finds any of many words, the longest first, at a cost that hardly grows with their number."""
    tree: dict[str, Any] = {}
    for word in words:
        node = tree
        for letter in word:
            node = node.setdefault(letter, {})
        node[""] = {}
    return re.compile(_pattern(tree) if tree else r"(?!)")


def _pattern(node: Mapping[str, Any]) -> str:
    ways = [re.escape(letter) + _pattern(rest) for letter, rest in sorted(node.items()) if letter]
    if not ways:
        return ""
    together = ways[0] if len(ways) == 1 and "" not in node else f"(?:{'|'.join(ways)})"
    return f"{together}?" if "" in node else together
