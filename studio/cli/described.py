"""A dataset and its rows in words and as JSON. Not here: the commands that print them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from studio.cli import output

if TYPE_CHECKING:
    from studio.data.example import Example, Message, Row
    from studio.data.registry import Dataset

MOST = 2000
"""Characters of a text that are printed for people."""


def facts(dataset: Dataset) -> dict[str, Any]:
    """What programs learn about a dataset."""
    fields = (
        *("name", "title", "rows", "valid", "format", "columns", "tags", "language", "licence", "shipped", "sha256"),
        *("description", "origin"),
    )
    sources = [{"name": each.name, "rows": each.rows, "sha256": each.sha256} for each in dataset.sources]
    return {name: getattr(dataset, name) for name in fields} | {"sources": sources, "path": str(dataset.path)}


def counted(rows: int) -> str:
    return f"{rows:,} row" if rows == 1 else f"{rows:,} rows"


def mapping(columns: Mapping[str, str]) -> str:
    """`response=answer, prompt=question`"""
    return ", ".join(f"{part}={column}" for part, column in columns.items())


def lines(dataset: Dataset) -> list[str]:
    """What people read about a dataset, one fact a line."""
    told = facts(dataset) | {
        "columns": mapping(dataset.columns),
        "tags": mapping(dataset.tags),
        "sources": ", ".join(source.name for source in dataset.sources),
        "origin": mapping({key: str(value) for key, value in dataset.origin.items()}),
        "shipped": "yes" if dataset.shipped else "",
    }
    return [f"{key + ':':<13}{output.one_line(value, 400)}" for key, value in told.items() if value not in ("", None)]


def row_facts(position: int, row: Row) -> dict[str, Any]:
    return {"position": position, "file": row.file, "row": row.number, "values": row.values, "fault": row.fault}


def row_lines(position: int, row: Row, learned: Example | None = None) -> list[str]:
    """A row for people: its values, or what is learned of it, or why it cannot be read."""
    head = f"row {row.number}" + (f" of {row.file}" if row.file else "") + f" (position {position})"
    if learned is not None:
        return [f"{head}:", *learned_lines(learned)]
    if row.fault:
        return [f"{head}: {row.fault}" + (f" {output.one_line(row.raw, 200)}" if row.raw else "")]
    return [f"{head}: {json.dumps(row.values, ensure_ascii=False, default=str)}"]


def learned_lines(example: Example) -> list[str]:
    """An example, one turn after the other."""
    told = [f"  tools: {output.one_line(example.tools, MOST)}"] if example.tools else []
    told += [line for turn in example.messages for line in _turn(turn.role, turn)]
    if example.text is not None:
        told.append(_indented("text", example.text))
    told += [line for turn in example.chosen for line in _turn("chosen" if example.rejected else turn.role, turn)]
    told += [line for turn in example.rejected for line in _turn("rejected", turn)]
    if example.label is not None:
        told.append(f"  label: {example.label}")
    return told


def _turn(role: str, turn: Message) -> list[str]:
    told = [_indented(f"{role} thinks", turn.thought)] if turn.thought else []
    who = f"{role} (not trained)" if turn.train is False else role
    if turn.content or not turn.tool_calls:
        told.append(_indented(who, turn.content))
    return told + [f"  {who} calls {call.name}({call.arguments})" for call in turn.tool_calls]


def _indented(what: str, text: str) -> str:
    cut = text if len(text) <= MOST else text[:MOST] + "…"
    return f"  {what}: " + cut.replace("\n", "\n    ")
