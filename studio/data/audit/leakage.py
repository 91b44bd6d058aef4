"""Rows that a model is measured on and must not be trained on: those of another dataset, and those that are held out.

What counts is what a row asks, whatever the case of its letters and its white space: a question that was learned with
another answer is learned all the same. Not here: which rows are alike (near).
"""

from __future__ import annotations

from array import array
from pathlib import Path

import numpy as np

from studio.data import registry
from studio.data.audit import content
from studio.data.audit.near import Found, Sketches
from studio.data.audit.pace import Pace
from studio.data.example import Example, Row
from studio.data.learning import sft
from studio.data.registry import Dataset
from studio.data.selection import group_of
from studio.data.split import split
from studio.errors import DataError
from studio.specs import AuditSpec

_64_BITS = 2**64 - 1
_NOTHING = 0


class Leakage:
    """Remembers what another dataset asks, and finds it in the examples that are added."""

    def __init__(self, other: Dataset, spec: AuditSpec, scratch: Path, pace: Pace):
        self._sketches = Sketches(scratch, "asked", spec.similarity) if spec.near_duplicates else None
        self._most = spec.near_rows
        known, keys = array("q"), array("Q")
        seen: set[int] = set()
        for position, (_, example) in enumerate(pace.through(registry.outcomes(other), "read", other.rows)):
            if not isinstance(example, Example):
                continue
            text = content.asked(example)
            if (key := _key(text)) == _NOTHING:
                continue
            known.append(position)
            keys.append(key)
            if self._sketches is not None and len(seen) < self._most and key not in seen:
                seen.add(key)
                self._sketches.add(position, text)
        # of equal ones the first
        self._keys, first = np.unique(np.array(keys, dtype=np.uint64), return_index=True)
        self._known = np.array(known, dtype=np.int64)[first]
        self._references = len(self._sketches) if self._sketches is not None else 0
        self._at, self._asked = array("q"), array("Q")

    def add(self, position: int, example: Example, *, is_new: bool) -> None:
        """is_new: no earlier example says the same."""
        text = content.asked(example)
        if (key := _key(text)) == _NOTHING:
            return
        self._at.append(position)
        self._asked.append(key)
        if is_new and self._sketches is not None and len(self._sketches) - self._references < self._most:
            self._sketches.add(position, text)

    def found(self, duplicates: np.ndarray, pace: Pace) -> np.ndarray:
        """(position, position in the other dataset), (n, 2). duplicates: of earlier rows, which leak as those do."""
        leaks: dict[int, int] = {}
        if self._sketches is not None:
            leaks |= self._sketches.across(self._references, pace).pairs.tolist()
            self._sketches.close()
            leaks |= {again: leaks[first] for again, first in duplicates.tolist() if first in leaks}
        if len(self._keys):
            at, asked = np.array(self._at, dtype=np.int64), np.array(self._asked, dtype=np.uint64)
            place = np.minimum(np.searchsorted(self._keys, asked), len(self._keys) - 1)
            equal = self._keys[place] == asked
            leaks |= zip(at[equal].tolist(), self._known[place[equal]].tolist(), strict=True)
        return np.array(sorted(leaks.items()), dtype=np.int64).reshape(-1, 2)


class Sides:
    """Which rows a run with the same share, seed and group would hold out (studio.data.selection)."""

    def __init__(self, spec: AuditSpec):
        self._spec = spec
        self._at, self._keys = array("q"), array("Q")
        self._groups: list[int | None] = []

    def add(self, position: int, row: Row, example: Example) -> None:
        learned = sft(example)
        if learned is None:
            return
        self._at.append(position)
        self._keys.append(hash(learned) & _64_BITS)
        if self._spec.group:
            self._groups.append(group_of(row.values or {}, self._spec.group))

    def held_out(self) -> np.ndarray:
        """Positions. Raises: DataError: no rows can be held out, or no row has the group's column."""
        if self._spec.group and all(group is None for group in self._groups):
            raise DataError(f"group: no row has the column '{self._spec.group}'.")
        groups = self._groups if self._spec.group else None
        _, held = split(self._keys, self._spec.validation_share, self._spec.seed, groups)
        return np.array(self._at, dtype=np.int64)[held]


def between_sides(near: Found, held_out: np.ndarray) -> np.ndarray:
    """(training position, its near duplicate among the held-out ones), each once, (n, 2)."""
    sides = np.isin(near.pairs, held_out)
    apart = near.pairs[sides[:, 0] != sides[:, 1]]
    turned = np.isin(apart[:, 0], held_out)
    apart[turned] = apart[turned][:, ::-1]
    return apart[np.unique(apart[:, 0], return_index=True)[1]]


def _key(text: str) -> int:
    plain = " ".join(text.casefold().split())
    return hash(plain) & _64_BITS if plain else _NOTHING
