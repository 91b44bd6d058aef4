"""Rows of a dataset as markup: as the model sees them, or as they stand in the file, each with what was found in it.

Pure; all data is escaped here. Not here: which rows (studio.ui.data_rows), and their tokens (studio.ui.token_view).
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from studio.data import intake
from studio.data.example import BadRow, Example, Message, Row
from studio.data.formats import Detection
from studio.ui.texts import table

PAGE_ROWS = 20
SHOWN_CHARACTERS = 600
"""Of one cell; a longer text is cut, and its length is told."""
BEFORE_HIT = 120
"""Characters in front of a text that was searched for, where it stands too far back to be in the cut."""


@dataclass(frozen=True)
class Reading:
    """A row at its place in a dataset (counted from 0), and what it becomes; None where there is no format.

    found: what an audit found in it, in words.
    """

    position: int
    row: Row
    outcome: Example | BadRow | None
    found: tuple[str, ...] = ()


def readings(
    rows: Iterable[tuple[int, Row]], way: Detection, found: Mapping[int, Sequence[str]] | None = None
) -> list[Reading]:
    """Each row with what it becomes."""
    words = found or {}
    return [Reading(at, row, intake.example(row, way), tuple(words.get(at, ()))) for at, row in rows]


def rows(read: Sequence[Reading], language: str, *, raw: bool = False, hit: str = "") -> str:
    """A table of rows. raw: as in the file, instead of as the model sees them. hit: a text that must be in sight."""
    words = table(language)
    if not read:
        return f"<p class='quiet'>{_said(words, 'data.no_rows')}</p>"
    heads = ("row", "in_file") if raw else ("row", "prompt", "answer")
    head = "".join(f"<th scope='col'>{_said(words, f'data.{key}')}</th>" for key in heads)
    cells = _Cells(words, hit)
    body = "".join(cells.row(each, raw) for each in read)
    label = _said(words, "data.rows_in_file" if raw else "data.rows_as_read")
    return (
        f"<div class='answers rows' tabindex='0' role='region' aria-label='{label}'>"
        f"<table><tr>{head}</tr>{body}</table></div>"
    )


@dataclass(frozen=True)
class _Cells:
    """Writes the cells of one row in one language."""

    words: Mapping[str, str]
    hit: str = ""

    def row(self, each: Reading, raw: bool) -> str:
        start = f"<tr data-position='{each.position}'>{self._number(each)}"
        marks = self._marks(each)
        if raw:
            return f"{start}<td>{marks}{self._as_in_file(each.row)}</td></tr>"
        match each.outcome:
            case BadRow() as bad:
                field = f"{bad.field}: " if bad.field else ""
                why = html.escape(self.words["data.left_out"].format(reason=f"{field}{bad.reason}"))
                return f"{start}<td colspan='2'>{marks}<span class='worse'>{why}</span>{self._raw(each.row)}</td></tr>"
            case Example(kind="text"):
                return f"{start}<td colspan='2'>{marks}{self._told(each.outcome.text or '')}</td></tr>"
            case Example() as example:
                asked, answer = self._sides(example)
                return f"{start}<td>{marks}{asked}</td><td>{answer}</td></tr>"
        return f"{start}<td colspan='2'>{marks}{self._raw(each.row)}</td></tr>"

    def _number(self, each: Reading) -> str:
        """The row's place, and its number in its file where that is another one."""
        place = each.position + 1
        shown = f"{place:,}"
        if each.row.number != place:
            in_file = self.words["data.number_in_file"].format(file=each.row.file, number=f"{each.row.number:,}")
            shown += f"<span class='quiet below'>{html.escape(in_file.strip())}</span>"
        return f"<td>{shown}</td>"

    def _marks(self, each: Reading) -> str:
        marks = "".join(f"<span class='mark'>{html.escape(word)}</span>" for word in each.found)
        return f"<div class='marks'>{marks}</div>" if marks else ""

    def _sides(self, example: Example) -> tuple[str, str]:
        """What is given, and what is learned."""
        tools = self._tools(example.tools)
        asked = tools + self._turns(example.messages)
        match example.kind:
            case "classification":
                return self._told(example.text or ""), f"<span class='mark'>{self._cut(example.label)}</span>"
            case "preference":
                better, worse = (self._named(f"data.{key}") for key in ("better", "worse"))
                return asked, better + self._turns(example.chosen, bare=True) + worse + self._turns(
                    example.rejected, bare=True
                )
            case "unpaired":
                verdict = self._named("data.good" if example.label else "data.bad")
                return asked, verdict + self._turns(example.chosen, bare=True)
            case "prompt":
                return asked, f"<span class='quiet'>{_said(self.words, 'data.no_answer')}</span>"
        return tools + self._turns(example.messages[:-1]), self._turns(example.messages[-1:])

    def _turns(self, messages: Sequence[Message], *, bare: bool = False) -> str:
        """One turn as its text, several each under its role; a lone one of a rare role is named too."""
        rare = any(each.role in ("system", "tool") for each in messages)
        named = len(messages) > 1 or (rare and not bare)
        return "".join((self._named(f"data.role.{each.role}") if named else "") + self._turn(each) for each in messages)

    def _turn(self, message: Message) -> str:
        calls = "".join(
            f"<div class='said raw'>{self._cut(f'{call.name}({call.arguments})')}</div>" for call in message.tool_calls
        )
        aside = self._named("data.not_trained") if message.train is False else ""
        if message.thought:
            aside += self._named("data.thinks") + f"<div class='said quiet'>{self._cut(message.thought)}</div>"
        return aside + (self._told(message.content) if message.content or not calls else "") + calls

    def _tools(self, tools: str) -> str:
        if not tools:
            return ""
        try:
            each = json.loads(tools)
            names = ", ".join(str(tool.get("function", tool).get("name", "?")) for tool in each)
        except (ValueError, AttributeError, TypeError):
            names = tools
        return self._named("data.tools") + f"<div class='said raw'>{self._cut(names)}</div>"

    def _named(self, key: str) -> str:
        return f"<span class='role'>{_said(self.words, key)}</span>"

    def _told(self, text: str) -> str:
        return f"<div class='said'>{self._cut(text)}</div>"

    def _as_in_file(self, row: Row) -> str:
        if row.values is None:
            why = html.escape(self.words["data.left_out"].format(reason=row.fault or ""))
            return f"<span class='worse'>{why}</span>{self._raw(row)}"
        return "".join(
            f"<span class='role'>{cut(name, 120)}</span><div class='said raw'>{self._cut(as_text(value))}</div>"
            for name, value in row.values.items()
        )

    def _raw(self, row: Row) -> str:
        text = row_text(row)
        return f"<div class='quiet raw'>{self._cut(text)}</div>" if text else ""

    def _cut(self, value: Any) -> str:
        """A text cut around what was searched for, or at its start."""
        text = str(value)
        place = text.casefold().find(self.hit.casefold()) if self.hit else -1
        if place < SHOWN_CHARACTERS - len(self.hit):
            return cut(text)
        start = place - BEFORE_HIT
        return "…" + cut(text[start:], whole=len(text))


def as_text(value: Any) -> str:
    """A value of a row as text: text as it is, everything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def row_text(row: Row) -> str:
    """A row as it is in the file, as far as it could be read."""
    return row.raw if row.values is None else as_text(row.values)


def cut(value: Any, most: int = SHOWN_CHARACTERS, *, whole: int = 0) -> str:
    """Escaped, and cut with its length told. whole: the length, where the text is cut at its start already."""
    text = str(value)
    return html.escape(text if len(text) <= most else f"{text[:most]}… ({whole or len(text):,})")


def _said(words: Mapping[str, str], key: str) -> str:
    return html.escape(words[key])
