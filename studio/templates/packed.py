"""Many encoded examples as a few arrays of numbers, and both examples and arrays as bytes for a pipe.

Not here: encoding one example (studio.templates.encoding), and the processes at the ends of the pipe (many, crew).
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import orjson

from studio.data.example import Example, Message, ToolCall
from studio.templates.confined import Unfinished
from studio.templates.cutting import CUTS
from studio.templates.encoding import Encoded, encode_all
from studio.templates.rendering import Template
from studio.templates.supervision import Policy
from studio.templates.tokenizer import TextTokenizer

IGNORED = -100
"""The label of a token that carries no loss."""
_CUTS = ("", *CUTS)
_COLUMNS = ("kept", "ranges", "cut", "escaped", "total", "learns", "answered")
_HEAD = 8
"""Bytes that say how long the part is that is not numbers."""


@dataclass(frozen=True)
class Packed:
    """What became of some examples, in their order.

    figures: (n, 7), a row for each: kept (tokens), ranges (of learned tokens), cut (place in CUTS, from 1; 0: whole),
    escaped, total, learns, and answered: tokens of the answers before anything was cut, where that was asked for; all
    zero for a refused one. ranges: (m, 2), [first, last) of learned tokens within an example. ids: of all examples one
    after the other. refusals: by the place of the example, what the template said. unfinished: places of those that
    took too long or too much memory.
    """

    figures: np.ndarray
    ranges: np.ndarray
    ids: np.ndarray
    refusals: dict[int, str] = field(default_factory=dict)
    unfinished: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.figures)

    def column(self, name: str) -> np.ndarray:
        return self.figures[:, _COLUMNS.index(name)]

    def cuts(self) -> dict[str, int]:
        """How many examples were cut, by the kind of cut."""
        numbers = np.bincount(self.column("cut"), minlength=len(_CUTS))
        return {cut: int(numbers[place]) for place, cut in enumerate(_CUTS) if cut}

    def labels(self) -> np.ndarray:
        """For each token of ids itself where it carries loss, else IGNORED."""
        begins = np.cumsum(self.column("kept")) - self.column("kept")
        shifted = self.ranges + np.repeat(begins, self.column("ranges"))[:, None]
        steps = np.zeros(len(self.ids) + 1, dtype=np.int32)
        np.add.at(steps, shifted[:, 0], 1)
        np.add.at(steps, shifted[:, 1], -1)
        return np.where(np.cumsum(steps[:-1]) > 0, self.ids, np.int32(IGNORED))

    def to_bytes(self) -> bytes:
        head = orjson.dumps(
            {
                "rows": len(self),
                "ranges": len(self.ranges),
                "refusals": {str(place): text for place, text in self.refusals.items()},
                "unfinished": self.unfinished,
            }
        )
        numbers = (each.tobytes() for each in (self.figures, self.ranges, self.ids))
        return b"".join([len(head).to_bytes(_HEAD, "big"), head, *numbers])

    @classmethod
    def from_bytes(cls, data: bytes) -> Packed:
        """Raises: ValueError: that is no such thing."""
        begin = _HEAD + int.from_bytes(data[:_HEAD], "big")
        head = orjson.loads(data[_HEAD:begin])
        numbers = np.frombuffer(data, dtype=np.int32, offset=begin)
        figures, ranges = head["rows"] * len(_COLUMNS), 2 * head["ranges"]
        return cls(
            numbers[:figures].reshape(-1, len(_COLUMNS)),
            numbers[figures : figures + ranges].reshape(-1, 2),
            numbers[figures + ranges :],
            {int(place): text for place, text in head["refusals"].items()},
            tuple(head["unfinished"]),
        )

    @classmethod
    def joined(cls, parts: Sequence[Packed]) -> Packed:
        """Several as one."""
        begins = np.cumsum([0, *map(len, parts)]).tolist()
        moved = list(zip(parts, begins, strict=False))
        return cls(
            np.concatenate([each.figures for each in parts]),
            np.concatenate([each.ranges for each in parts]),
            np.concatenate([each.ids for each in parts]),
            {begin + place: text for each, begin in moved for place, text in each.refusals.items()},
            tuple(begin + place for each, begin in moved for place in each.unfinished),
        )

    @classmethod
    def refused(cls, text: str) -> Packed:
        """One example that did not finish."""
        nothing = np.zeros((1, len(_COLUMNS)), dtype=np.int32)
        return cls(nothing, np.zeros((0, 2), np.int32), np.zeros(0, np.int32), {0: text}, (0,))


def pack(
    examples: Iterable[Example],
    template: Template,
    tokenizer: TextTokenizer,
    policy: Policy,
    *,
    measured: bool = False,
    most_unfinished: int | None = None,
    memory_mib: int = 0,
) -> Packed:
    """Encode examples one by one.

    measured: count the tokens of the answers, and keep none of the tokens. memory_mib: what this process may use, to
    be named where that is too little.
    Raises: Unfinished: so many of them took too long or too much memory; the last one's words.
    """
    figures, ranges, ids = array("i"), array("i"), array("i")
    refusals: dict[int, str] = {}
    unfinished: list[int] = []
    for place, encoded in enumerate(encode_all(examples, template, tokenizer, policy)):
        if isinstance(encoded, Encoded):
            counts = (len(encoded.input_ids), 0 if measured else len(encoded.learned), _CUTS.index(encoded.cut))
            answered = encoded.answered if measured else 0
            figures.extend((*counts, encoded.escaped, encoded.total, encoded.learns, answered))
            if not measured:
                for span in encoded.learned:
                    ranges.extend(span)
                ids.fromlist(encoded.input_ids)
            continue
        refused = _too_large(template, memory_mib) if isinstance(encoded, MemoryError) else encoded
        figures.extend(bytes(len(_COLUMNS)))
        refusals[place] = str(refused)
        if isinstance(refused, Unfinished):
            unfinished.append(place)
            if len(unfinished) == most_unfinished:
                raise refused
    return Packed(
        np.array(figures, dtype=np.int32).reshape(-1, len(_COLUMNS)),
        np.array(ranges, dtype=np.int32).reshape(-1, 2),
        np.array(ids, dtype=np.int32),
        refusals,
        tuple(unfinished),
    )


def _too_large(template: Template, memory_mib: int) -> Unfinished:
    return Unfinished(
        f"Template '{template.name}' needs more than {memory_mib:,} MiB of memory to write this row. Look for texts or "
        "lists in it that grow in a loop, or choose another template."
    )


# --- What a process is asked


def request(examples: Sequence[Example], limit_s: float) -> bytes:
    """A batch for another process. limit_s: after which it ends itself, whatever it does."""
    try:
        return orjson.dumps({"limit_s": limit_s, "examples": examples})
    except TypeError:  # half of a surrogate pair, which is no UTF-8
        return json.dumps({"limit_s": limit_s, "examples": [asdict(each) for each in examples]}).encode("ascii")


def requested(data: bytes) -> tuple[Iterator[Example], float]:
    """(the examples, limit_s) of a request."""
    try:
        values = orjson.loads(data)
    except orjson.JSONDecodeError:
        values = json.loads(data)
    return map(_example, values["examples"]), values["limit_s"]


def _example(values: dict[str, Any]) -> Example:
    sides = ("messages", "chosen", "rejected")
    return Example(**values | {side: tuple(map(_message, values[side])) for side in sides})


def _message(values: dict[str, Any]) -> Message:
    calls = values.pop("tool_calls")
    return Message(**values, tool_calls=tuple(ToolCall(**each) for each in calls) if calls else ())
