"""What a training objective sees of an example, whatever kind of data it came from.

Not here: how a row becomes an example (studio.data.formats), and how it is written as text (studio.templates).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from studio.data.example import Example, Kind, Message


class Unlearned(NamedTuple):
    """Why rows of a kind are left out, of several rows and of one, and what to do if that leaves none."""

    many: str
    one: str
    remedy: str


UNLEARNED: Mapping[Kind, Unlearned] = {
    "unpaired": Unlearned("are marked bad", "is marked bad", "Add rows with good answers, or choose another dataset."),
    "prompt": Unlearned(
        "hold a prompt without an answer",
        "holds a prompt without an answer",
        "Map a column to the answer, or choose another dataset.",
    ),
}
"""The kinds of which supervised fine-tuning may leave rows out."""


def sft(example: Example) -> Example | None:
    """What supervised fine-tuning learns from: a conversation or plain text; None if it learns nothing from it.

    A classified text becomes a question that its label answers. Of two answers the better one is learned, of answers
    marked good or bad only the good ones.
    """
    match example.kind:
        case "classification":
            asked = Message("user", example.text or "")
            return Example(messages=(asked, Message("assistant", str(example.label))))
        case "preference":
            return Example(messages=(*example.messages, *example.chosen), tools=example.tools)
        case "unpaired":
            good = example.label is True
            return Example(messages=(*example.messages, *example.chosen), tools=example.tools) if good else None
        case "prompt":
            return None
        case _:
            return example
