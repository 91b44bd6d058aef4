"""Which rows of which datasets a run trains on, which it holds out, and which it leaves: the first pass over the rows.

Only a byte a row is kept, and eight more while the split is made, so that a second pass can take the rows one by one.
Not here: what is done with them (studio.engine.rows), and the mix (studio.data.mixing).
"""

from __future__ import annotations

import json
import random
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import islice
from typing import Any

from studio.data import registry
from studio.data.example import BadRow, Example, Kind, RowFault, Values
from studio.data.fields import at
from studio.data.learning import Learning, learning
from studio.data.registry import Dataset
from studio.data.split import key, split
from studio.errors import DataError, Fault, SpecError
from studio.specs import DataSpec

LEFT, TRAINED, HELD = 0, 1, 2
SHOWN_FAULTS = 3
_LOOKED_THROUGH = 20_000
_EVERY = 5000

Tell = Callable[[int, int], None]
"""Told how many rows of how many were read."""


@dataclass
class Part:
    """A dataset in a run.

    sides: LEFT, TRAINED or HELD for each row that can be learned from, in the order of the file. unlearned: valid rows
    that the objective learns nothing from, by kind.
    """

    dataset: Dataset
    learning: Learning
    sides: bytearray = field(default_factory=bytearray)
    faulty: int = 0
    faults: list[BadRow] = field(default_factory=list)
    unlearned: Counter[Kind] = field(default_factory=Counter)

    def examples(self) -> Iterator[tuple[int, Example]]:
        """The rows that the run uses, each with its side. This reads the dataset again."""
        sides = iter(self.sides)
        for _, outcome in registry.outcomes(self.dataset):
            if isinstance(outcome, BadRow) or (learned := self.learning.see(outcome)) is None:
                continue
            side = next(sides)
            if side != LEFT:
                yield side, learned

    def unlearned_told(self) -> list[str]:
        """Sentences about valid rows that are not learned from."""
        all_rows = len(self.sides) + self.unlearned.total()
        said = ((count, self.learning.unlearned[kind].many) for kind, count in self.unlearned.items())
        return [
            f"{count} of {all_rows} rows of '{self.dataset.name}' {why} and are not learned from."
            for count, why in said
        ]


def select(data: DataSpec, stage: str = "sft", *, tell: Tell = lambda done, total: None) -> list[Part]:
    """Read all rows of the run's datasets once, and decide about each; the same at each call.

    stage: the kind of the training stage, which decides what can be learned from.

    Raises:
        DataError: no dataset is named, one is unknown, changed or has nothing to learn from, or no rows can be held
            out. SpecError: there are faulty rows, and nobody said that they may be left out.
    """
    if not data.datasets:
        raise DataError("No dataset is chosen. Set data.datasets to one or more registered names.")
    datasets = [registry.get(name) for name in data.datasets]
    for dataset in datasets:
        registry.verify(dataset)
    reading = _Reading(data, learning(stage), sum(dataset.rows for dataset in datasets), tell)
    parts = [reading.part(dataset) for dataset in datasets]
    if not data.skip_faulty and (faulty := [part for part in parts if part.faulty]):
        raise SpecError(_faulty(part.dataset, part.faulty, part.faults) for part in faulty)
    for part in parts:
        _refuse_if_nothing_to_learn(part)
    reading.hold_out(parts)
    return parts


def faulty_rows(data: DataSpec) -> list[Fault]:
    """What stands against a run because of faulty rows, by what was counted when the datasets were added.

    The first faults are only looked for near the start of the file, so that this is quick.
    """
    if data.skip_faulty:
        return []
    faulty = [each for name in data.datasets if (each := registry.get(name)).rows > each.valid]
    return [_faulty(dataset, dataset.rows - dataset.valid, _first_faults(dataset)) for dataset in faulty]


def group_of(values: Values, column: str) -> int | None:
    """A number that is equal for equal values of a column; None where a row has none.

    Raises: DataError: the column is a path that does not fit the row.
    """
    try:
        value = at(values, column)
    except RowFault as fault:
        raise DataError(f"data.group: {fault}") from fault
    if value is None:
        return None
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest())


class _Reading:
    """The pass over all datasets: it counts, and collects what the split needs to know about each row."""

    def __init__(self, data: DataSpec, learning: Learning, total: int, tell: Tell):
        self._data, self._learning, self._total, self._tell = data, learning, total, tell
        self._done = 0
        self._keys = array("Q")
        self._groups: list[int | None] = []

    def part(self, dataset: Dataset) -> Part:
        part = Part(dataset, self._learning)
        begin = len(self._keys)
        for row, outcome in registry.outcomes(dataset):
            self._count()
            if isinstance(outcome, BadRow):
                part.faulty += 1
                if len(part.faults) < SHOWN_FAULTS:
                    part.faults.append(outcome)
            elif (learned := self._learning.see(outcome)) is None:
                part.unlearned[outcome.kind] += 1
            else:
                part.sides.append(TRAINED)
                self._remember(row.values or {}, learned)
        self._draw(part, begin)
        return part

    def hold_out(self, parts: list[Part]) -> None:
        """Give the rows that are held out their side."""
        data = self._data
        if data.validation_share == 0:
            return
        if data.group and all(group is None for group in self._groups):
            raise DataError(
                f"data.group: no row has the column '{data.group}'. Known: {', '.join(_columns(parts)) or 'none'}."
            )
        _, held = split(self._keys, data.validation_share, data.seed, self._groups if data.group else None)
        places = ((part.sides, place) for part in parts for place, side in enumerate(part.sides) if side != LEFT)
        wanted = iter([*held, None])
        following = next(wanted)
        for number, (sides, place) in enumerate(places):
            if number == following:
                sides[place] = HELD
                following = next(wanted)

    def _remember(self, values: dict[str, Any], learned: Example) -> None:
        if self._data.validation_share:
            # half of the key: two rows with one by chance are only kept on one side
            self._keys.append(int(key(learned)[:16], 16))
            if self._data.group:
                self._groups.append(group_of(values, self._data.group))

    def _draw(self, part: Part, begin: int) -> None:
        """Leave all but data.max_samples rows."""
        count, most = len(part.sides), self._data.max_samples
        if most is None or count <= most:
            return
        drawn = random.Random(self._data.seed).sample(range(count), most) if self._data.shuffle else range(most)
        part.sides[:] = bytes(count)
        for place in drawn:
            part.sides[place] = TRAINED
        if self._keys:
            self._keys[begin:] = array("Q", (self._keys[begin + place] for place in sorted(drawn)))
        if self._groups:
            self._groups[begin:] = [self._groups[begin + place] for place in sorted(drawn)]

    def _count(self) -> None:
        self._done += 1
        if self._done % _EVERY == 0 or self._done == self._total:
            self._tell(self._done, self._total)


def _refuse_if_nothing_to_learn(part: Part) -> None:
    if part.sides:
        return
    name = part.dataset.name
    if not part.unlearned:
        raise DataError(f"{name}: no valid row. Look at the faults on the Data tab.")
    ((kind, _),) = part.unlearned.most_common(1)
    why = part.learning.unlearned[kind]
    raise DataError(f"Nothing can be learned from '{name}': all its rows {why.many}. {why.remedy}")


def _faulty(dataset: Dataset, count: int, first: list[BadRow]) -> Fault:
    shown = " ".join(f"{fault}" for fault in first) or "The Data tab lists them."
    return Fault(
        "data.skip_faulty",
        f"is off, and dataset '{dataset.name}' has {count} faulty {'row' if count == 1 else 'rows'} of {dataset.rows}. "
        f"{shown} Mend them, or turn it on to train on the others.",
    )


def _first_faults(dataset: Dataset) -> list[BadRow]:
    start = islice(registry.outcomes(dataset), _LOOKED_THROUGH)
    return list(islice((outcome for _, outcome in start if isinstance(outcome, BadRow)), SHOWN_FAULTS))


def _columns(parts: list[Part]) -> list[str]:
    names: dict[str, None] = {}
    for part in parts:
        for row in registry.rows(part.dataset, 0, 20):
            names.update(dict.fromkeys(row.values or {}))
    return list(names)[:12]
