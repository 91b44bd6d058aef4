"""What rows say, as hashes: which of them repeat an earlier one, and which answer the same question differently.

28 bytes a row, however long the rows are. Not here: rows that are only alike (near), and another dataset (leakage).
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import numpy as np

from studio.data.example import Example, Message

_64_BITS = 2**64 - 1
_NOTHING = 0


class Content:
    """The hashes of the examples that were added, with their positions.

    Python's own hashes of 64 bits, keyed anew in each process: among a million rows two different ones are taken for
    equal about once in 37 million audits.
    """

    def __init__(self) -> None:
        self._at, self._whole = array("I"), array("Q")
        self._asked, self._answered = array("Q"), array("Q")

    def __len__(self) -> int:
        return len(self._at)

    def add(self, position: int, example: Example) -> int:
        """Returns: the hash of the whole example."""
        whole = hash(_whole(example)) & _64_BITS
        asked, answered = _sides(example)
        self._at.append(position)
        self._whole.append(whole)
        self._asked.append(asked)
        self._answered.append(answered)
        return whole

    @property
    def keys(self) -> array[int]:
        """One number per example, equal where examples say the same."""
        return self._whole

    @property
    def positions(self) -> np.ndarray:
        return np.frombuffer(self._at, dtype=np.uint32).astype(np.int64)

    def duplicates(self) -> np.ndarray:
        """(position, position of the first one) of each example that says what an earlier one says; (n, 2)."""
        members, first = _repeated(_numbers(self._whole))
        later = members != first
        return self._pairs(members[later], first[later])

    def conflicts(self) -> np.ndarray:
        """(position, position of the first one that contradicts it) of each example that another one contradicts."""
        asked, answered = _numbers(self._asked), _numbers(self._answered)
        members, first = _repeated(asked) if asked.any() else (np.zeros(0, dtype=np.int64),) * 2
        if not len(members):
            return self._pairs(members, first)
        other = answered[members] != answered[first]
        starts = np.flatnonzero(members == first)
        # where stands the first answer to each question that is not its very first answer
        behind = np.minimum.reduceat(np.where(other, np.arange(len(members)), len(members)), starts)
        behind = np.repeat(behind, np.diff(np.append(starts, len(members))))
        disputed = (behind < len(members)) & (asked[members] != _NOTHING)
        partner = np.where(other, first, members[np.where(disputed, behind, 0)])
        return self._pairs(members[disputed], partner[disputed])

    def _pairs(self, ones: np.ndarray, others: np.ndarray) -> np.ndarray:
        at = np.frombuffer(self._at, dtype=np.uint32) if self._at else np.zeros(0, dtype=np.uint32)
        pairs = np.stack([at[ones], at[others]], axis=1).astype(np.int64)
        return pairs[np.argsort(pairs[:, 0], kind="stable")]


def asked(example: Example) -> str:
    """What an example asks, as text: the turns before the answer without the system's, or the text that is labelled.

    Plain text asks nothing, so it is the text itself.
    """
    if example.text is not None:
        return example.text
    turns = example.messages[: _answer_at(example)] if example.kind == "messages" else example.messages
    return "\n".join(turn.content for turn in turns if turn.role != "system")


def said(example: Example) -> str:
    """All that an example says, as text, without the system's turns: many rows share those. Labels are no text."""
    if example.text is not None:
        return example.text
    turns = (*example.messages, *example.chosen, *example.rejected)
    return "\n".join(each for turn in turns if turn.role != "system" for each in _words(turn))


def _words(turn: Message) -> list[str]:
    thought = [turn.thought] if turn.thought else []
    return [*thought, turn.content, *(f"{call.name} {call.arguments}" for call in turn.tool_calls)]


def _whole(example: Example) -> tuple[object, ...]:
    """What an example says: equal for rows that differ in ids of calls, or in which answers they learn."""
    if not (example.messages or example.chosen):
        return (example,)
    sides = (example.messages, example.chosen, example.rejected)
    thoughts = [turn.thought for turns in sides for turn in turns]
    return (example.kind, example.text, example.label, example.tools, *map(_told, sides), *thoughts)


def _told(turns: Sequence[Message]) -> tuple[object, ...]:
    """What turns say aloud: another thought before the same answer contradicts nothing."""
    return tuple(
        [(turn.role, turn.content, *((call.name, call.arguments) for call in turn.tool_calls)) for turn in turns]
    )


def _answer_at(example: Example) -> int:
    turns = example.messages
    place = len(turns) - 1
    while place > 0 and turns[place].role != "assistant":
        place -= 1
    return place


def _sides(example: Example) -> tuple[int, int]:
    """(hash of what is asked, hash of the answer). Nothing is asked where any answer would do beside any other."""
    kind = example.kind
    if kind == "messages":
        place = _answer_at(example)
        if place == 0 or (place == 1 and example.messages[0].role == "system"):
            return _NOTHING, _NOTHING
        question = (_told(example.messages[:place]), example.tools)
        return hash(question) & _64_BITS, hash(_told(example.messages[place:])) & _64_BITS
    if kind == "classification":
        return hash(example.text) & _64_BITS, hash(example.label) & _64_BITS
    if kind == "preference":
        # many pairs of answers to one prompt are usual; only the same pair the other way round is a contradiction
        pair = frozenset((_told(example.chosen), _told(example.rejected)))
        question = (_told(example.messages), example.tools, pair)
        return hash(question) & _64_BITS, hash(_told(example.chosen)) & _64_BITS
    if kind == "unpaired":
        both = (_told(example.messages), example.tools, _told(example.chosen))
        return hash(both) & _64_BITS, hash(example.label) & _64_BITS
    return _NOTHING, _NOTHING


def _numbers(values: array[int]) -> np.ndarray:
    return np.frombuffer(values, dtype=np.uint64) if values else np.zeros(0, dtype=np.uint64)


def _repeated(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The indices of values that stand there more than once, equal ones together and ascending; and the first of each.

    Most values stand alone, so what is made of the others may be lavish with memory.
    """
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    same = np.zeros(len(values) + 1, dtype=bool)
    same[1:-1] = ordered[1:] == ordered[:-1]
    several = np.flatnonzero(same[1:] | same[:-1])
    is_first = ~same[several]
    members = order[several]
    return members, members[np.flatnonzero(is_first)[np.cumsum(is_first) - 1]]
