"""Which rows of which datasets a run trains on, which it holds out, and which it leaves: the first pass over the rows.

Only a byte a row is kept, and eight more while the split is made, so that a second pass can take the rows one by one.
Not here: what is done with them (studio.engine.rows.conversations), and the mix (studio.data.mixing).
"""

from __future__ import annotations

import json
import random
from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import compress, islice
from typing import Any

from studio.data import registry
from studio.data.example import BadRow, Example, Kind, RowFault, Values
from studio.data.fields import at
from studio.data.learning import Learning, learning
from studio.data.registry import Dataset
from studio.data.split import key, split
from studio.errors import DataError, Fault, SpecError
from studio.specs import DataSpec

LEFT, TRAINED, HELD, TESTED = 0, 1, 2, 3
SHOWN_FAULTS = 3
_LOOKED_THROUGH = 20_000
_GLANCE = 50
_EVERY = 5000

Tell = Callable[[int, int], None]
"""Told how many rows of how many were read."""


@dataclass
class Part:
    """A dataset in a run.

    sides: LEFT, TRAINED, HELD (for validation) or TESTED for each row that can be learned from, in the order of the
    file. unlearned: valid rows that the objective learns nothing from, by kind.
    """

    dataset: Dataset
    learning: Learning
    sides: bytearray = field(default_factory=bytearray)
    faulty: int = 0
    faults: list[BadRow] = field(default_factory=list)
    unlearned: Counter[Kind] = field(default_factory=Counter)

    def examples(self, *, wanted: Collection[int] = (TRAINED, HELD)) -> Iterator[tuple[int, Example]]:
        """The rows of some sides, each with its side. This reads the dataset again."""
        sides = iter(self.sides)
        for _, outcome in registry.outcomes(self.dataset):
            if isinstance(outcome, BadRow) or (learned := self.learning.see(outcome)) is None:
                continue
            side = next(sides)
            if side in wanted:
                yield side, learned

    def unlearned_told(self) -> list[str]:
        """Sentences about valid rows that are not learned from."""
        all_rows = len(self.sides) + self.unlearned.total()
        said = ((count, self.learning.unlearned[kind].many) for kind, count in self.unlearned.items())
        return [
            f"{count} of {all_rows} rows of '{self.dataset.name}' {why} and are not learned from."
            for count, why in said
        ]


def select(
    data: DataSpec, stage: str = "sft", *, balance: bool = False, tell: Tell = lambda done, total: None
) -> list[Part]:
    """Read all rows of the run's datasets once, and decide about each; the same at each call.

    stage: the kind of the training stage, which decides what can be learned from. balance: as many rows of each label
    are used as the rarest one has, before any are held out.

    Raises:
        DataError: no dataset is named, one is unknown, changed or has nothing to learn from, or no rows can be held
            out. SpecError: there are faulty rows, and nobody said that they may be left out.
    """
    if not data.datasets:
        raise DataError("No dataset is chosen. Set data.datasets to one or more registered names.")
    datasets = [registry.get(name) for name in data.datasets]
    for dataset in datasets:
        registry.verify(dataset)
    reading = _Reading(data, learning(stage), sum(dataset.rows for dataset in datasets), tell, balance=balance)
    parts = [reading.part(dataset) for dataset in datasets]
    if not data.skip_faulty and (faulty := [part for part in parts if part.faulty]):
        raise SpecError(_faulty(part.dataset, part.faulty, part.faults) for part in faulty)
    for part in parts:
        _refuse_if_nothing_to_learn(part)
    reading.balance(parts)
    reading.hold_out(parts)
    return parts


def balanced(labels: Sequence[int], seed: int | None) -> bytearray:
    """1 for each of a row's labels that stays, so that every label stays as often as the rarest one stands there.

    seed: draws them; None takes the first ones.
    """
    places: dict[int, list[int]] = {}
    for place, label in enumerate(labels):
        places.setdefault(label, []).append(place)
    least = min(map(len, places.values()), default=0)
    kept, order = bytearray(len(labels)), random.Random(seed)
    for found in places.values():
        for place in found[:least] if seed is None else order.sample(found, least):
            kept[place] = 1
    return kept


def faulty_rows(data: DataSpec) -> list[Fault]:
    """What stands against a run because of faulty rows, by what was counted when the datasets were added.

    The first faults are only looked for near the start of the file, so that this is quick.
    """
    if data.skip_faulty:
        return []
    faulty = [each for name in data.datasets if (each := registry.get(name)).rows > each.valid]
    return [_faulty(dataset, dataset.rows - dataset.valid, _first_faults(dataset)) for dataset in faulty]


def unfit_rows(data: DataSpec, stage: str) -> list[Fault]:
    """What stands against a run whose stage learns nothing from such rows, by those near the start of the file."""
    found = (_unfit(name, stage) for name in data.datasets)
    return [fault for fault in found if fault]


def _unfit(name: str, stage: str) -> Fault | None:
    dataset, learns = registry.get(name), learning(stage)
    valid = (outcome for _, outcome in registry.outcomes(dataset) if isinstance(outcome, Example))
    seen = list(islice(valid, _GLANCE))
    # of rows that are marked good or bad the good ones may come later
    whole = len(seen) == dataset.valid or all(each.kind != "unpaired" for each in seen)
    if not seen or not whole or any(learns.see(each) is not None for each in seen):
        return None
    why = learns.unlearned[seen[0].kind]
    return Fault("data.datasets", f"'{name}' has nothing for the stage {stage}: its rows {why.many}. {why.remedy}")


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

    def __init__(self, data: DataSpec, learning: Learning, total: int, tell: Tell, *, balance: bool):
        self._data, self._learning, self._total, self._tell = data, learning, total, tell
        self._done = 0
        self._splits = data.validation_share > 0 or data.test_share > 0
        self._balances = balance
        self._keys = array("Q")
        self._groups: list[int | None] = []
        self._labels = array("L")
        self._numbers: dict[str, int] = {}

    def part(self, dataset: Dataset) -> Part:
        part = Part(dataset, self._learning)
        begin, labels_begin = len(self._keys), len(self._labels)
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
        self._draw(part, begin, labels_begin)
        return part

    def balance(self, parts: list[Part]) -> None:
        """Leave all but as many rows of each label as the rarest one has."""
        if not self._balances:
            return
        kept = balanced(self._labels, self._data.seed if self._data.shuffle else None)
        for number, (sides, place) in enumerate(_used(parts)):
            if not kept[number]:
                sides[place] = LEFT
        self._keys = array("Q", compress(self._keys, kept))
        self._groups = list(compress(self._groups, kept))

    def hold_out(self, parts: list[Part]) -> None:
        """Give the rows that are held out their side: first those for validation, then those for the test."""
        if not self._splits:
            return
        if self._data.group and all(group is None for group in self._groups):
            known = ", ".join(_columns(parts)) or "none"
            raise DataError(f"data.group: no row has the column '{self._data.group}'. Known: {known}.")
        sides = self._sides()
        for number, (held, place) in enumerate(_used(parts)):
            held[place] = sides[number]

    def _sides(self) -> bytearray:
        """The side of each row, in the order in which they were read."""
        validation, test = self._data.validation_share, self._data.test_share
        sides = bytearray([TRAINED]) * len(self._keys)
        left = list(range(len(self._keys)))
        for side, share in ((HELD, validation), (TESTED, test / (1 - validation))):
            groups = [self._groups[index] for index in left] if self._data.group else None
            rest, held = split([self._keys[index] for index in left], share, self._data.seed, groups)
            for index in held:
                sides[left[index]] = side
            left = [left[index] for index in rest]
        return sides

    def _remember(self, values: dict[str, Any], learned: Example) -> None:
        if self._balances:
            self._labels.append(self._numbers.setdefault(str(learned.label), len(self._numbers)))
        if self._splits:
            # half of the key: two rows with one by chance are only kept on one side
            self._keys.append(int(key(learned)[:16], 16))
            if self._data.group:
                self._groups.append(group_of(values, self._data.group))

    def _draw(self, part: Part, begin: int, labels_begin: int) -> None:
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
        if self._labels:
            self._labels[labels_begin:] = array("L", (self._labels[labels_begin + place] for place in sorted(drawn)))

    def _count(self) -> None:
        self._done += 1
        if self._done % _EVERY == 0 or self._done == self._total:
            self._tell(self._done, self._total)


def _used(parts: list[Part]) -> Iterator[tuple[bytearray, int]]:
    """The place of each row that is used, in the order in which they were read."""
    return ((part.sides, place) for part in parts for place, side in enumerate(part.sides) if side != LEFT)


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
