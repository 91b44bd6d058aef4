"""What a row becomes: an Example of messages or plain text, or a RowFault that says why not.

Also the shape of a format, which the files in studio.data.formats fill in. Not here: any one format.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Role = Literal["system", "user", "assistant"]
Values = Mapping[str, Any]


@dataclass(frozen=True)
class Message:
    """One turn."""

    role: Role
    content: str


@dataclass(frozen=True)
class Example:
    """One conversation, or one plain text; exactly one of the two is there."""

    messages: tuple[Message, ...] = ()
    text: str | None = None

    @property
    def answer(self) -> str:
        """The last assistant turn, or the text."""
        if self.text is not None:
            return self.text
        return next((turn.content for turn in reversed(self.messages) if turn.role == "assistant"), "")


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

    def __str__(self) -> str:
        return f"Row {self.row}: {self.field} {self.reason}" if self.field else f"Row {self.row}: {self.reason}"


@dataclass(frozen=True)
class Confidence:
    """How well a format fits some rows, from 0 to 1, why, and which column plays which part."""

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
    """

    name: str
    columns: Mapping[str, tuple[str, ...]]
    needed: tuple[str, ...]
    detect: Callable[[Sequence[Values]], Confidence | None]
    convert: Callable[[Values, Mapping[str, str], Mapping[str, str]], Example]
