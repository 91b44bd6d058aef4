"""What a row becomes: an Example of one of six kinds, or a RowFault that says why not.

Also the shape of a format, which the files in studio.data.formats fill in. Not here: any one format.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

Role = Literal["system", "user", "assistant", "tool"]
Kind = Literal["messages", "text", "classification", "preference", "unpaired", "prompt"]
Values = Mapping[str, Any]


class Row(NamedTuple):
    """One row of a file.

    number: from 1; for lines of text and JSON the line, for tables without the header. values or fault is None.
    file: which of several files it came from. raw: the start of a row that cannot be read.
    """

    number: int
    values: dict[str, Any] | None
    fault: str | None = None
    file: str = ""
    raw: str = ""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A function that the assistant calls. arguments: a JSON object as text. id: empty where the data names none."""

    name: str
    arguments: str = "{}"
    id: str = ""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn. A turn of the assistant that calls tools may have no content; a tool's turn is a call's result.

    thought: what the assistant thinks before it answers, where the data keeps it apart from the content. train: whether
    this answer carries loss, where the data says so. name and call_id: of the call whose result a tool's turn is.
    """

    role: Role
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    thought: str = ""
    train: bool | None = None
    name: str = ""
    call_id: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The turn as trl and chat templates expect it."""
        calls = [
            {"type": "function"}
            | ({"id": call.id} if call.id else {})
            | {"function": {"name": call.name, "arguments": json.loads(call.arguments)}}
            for call in self.tool_calls
        ]
        optional = {
            "tool_calls": calls,
            "reasoning_content": self.thought,
            "name": self.name,
            "tool_call_id": self.call_id,
        }
        return {"role": self.role, "content": self.content} | {key: value for key, value in optional.items() if value}


@dataclass(frozen=True, slots=True)
class Example:
    """What is learned from one row.

    kind         what it holds
    messages     messages: a conversation with at least one answer
    text         text: plain text, learned whole
    classification  text and its label
    preference   messages: the prompt; chosen and rejected: two answers to it
    unpaired     messages: the prompt; chosen: an answer; label: whether it is a good one (thumbs, KTO)
    prompt       messages: the prompt alone, to be answered by the model while it learns

    tools: descriptions of functions that the assistant may call, as a JSON list; empty without.
    """

    messages: tuple[Message, ...] = ()
    text: str | None = None
    kind: Kind = "messages"
    label: str | bool | None = None
    chosen: tuple[Message, ...] = ()
    rejected: tuple[Message, ...] = ()
    tools: str = ""

    @property
    def answer(self) -> str:
        """The last assistant turn, the text, the label, or the better answer."""
        if self.kind == "classification":
            return str(self.label)
        if self.text is not None:
            return self.text
        turns = self.chosen or self.messages
        return next((turn.content for turn in reversed(turns) if turn.role == "assistant"), "")

    def conventional(self) -> dict[str, Any]:
        """The row as trl's dataset types: messages, prompt and completion, chosen and rejected, text, label."""
        turns = [turn.as_dict() for turn in self.messages]
        tools = {"tools": json.loads(self.tools)} if self.tools else {}
        match self.kind:
            case "text":
                return {"text": self.text}
            case "classification":
                return {"text": self.text, "label": self.label}
            case "prompt":
                return {"prompt": turns} | tools
            case "preference":
                sides = {"chosen": self.chosen, "rejected": self.rejected}
                return {"prompt": turns, **{k: [turn.as_dict() for turn in v] for k, v in sides.items()}} | tools
            case "unpaired":
                answer = [turn.as_dict() for turn in self.chosen]
                return {"prompt": turns, "completion": answer, "label": self.label} | tools
            case _:
                return {"messages": turns} | tools


class RowFault(Exception):
    """A row that cannot become an example. field: the column, or a place in it such as `messages[2].role`."""

    def __init__(self, field: str, reason: str):
        self.field, self.reason = field, reason
        super().__init__(f"{field}: {reason}")


@dataclass(frozen=True)
class BadRow:
    """A row that was left out, for a list of them. field is empty where the whole row is unreadable."""

    row: int
    field: str
    reason: str
    file: str = ""

    def __str__(self) -> str:
        place = f"Row {self.row} of {self.file}" if self.file else f"Row {self.row}"
        return f"{place}: {self.field} {self.reason}" if self.field else f"{place}: {self.reason}"


@dataclass(frozen=True)
class Confidence:
    """How well a format fits some rows, from 0 to 1, why, which column plays which part, and the words it uses.

    A column is a path: `answer`, `meta.answer`, `instances[0].output`; `lines[]` joins a list of texts by newlines.
    """

    value: float
    reason: str
    columns: dict[str, str]
    tags: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Format:
    """How a row reads.

    columns: the parts that a column can play, and the column names they usually have, best first.
    needed: the parts without which nothing can be learned.
    detect: rows -> Confidence, or None if it does not fit at all.
    convert: (values, columns, tags) -> Example. Raises: RowFault.
    tags: the words of the format that data may replace, with their usual values (`user_tag`: `human`).
    """

    name: str
    columns: Mapping[str, tuple[str, ...]]
    needed: tuple[str, ...]
    detect: Callable[[Sequence[Values]], Confidence | None]
    convert: Callable[[Values, Mapping[str, str], Mapping[str, str]], Example]
    tags: Mapping[str, str] = field(default_factory=dict)
