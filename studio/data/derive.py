"""New datasets out of one: without what an audit found, balanced, drawn at random, or cut into several.

The source never changes, and rows keep their values, their numbers and their file. Not here: finding what is wrong
(studio.data.audit), and the split of a run (studio.data.split).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from studio.data import formats, intake, registry
from studio.data import split as splitting
from studio.data.audit import findings as found
from studio.data.audit.content import Content
from studio.data.example import BadRow, Example, Row
from studio.data.intake import Intake, Watch
from studio.data.registry import Dataset
from studio.data.selection import group_of
from studio.errors import DataError, unknown
from studio.home import checked_name

TOLD_ROWS = 5000
JUDGED = ("classification", "preference", "unpaired")
"""Kinds whose rows contradict each other by a label or a choice: none of them can be taken for the right one."""


def derive(
    name: str,
    remedy: str,
    new: str,
    *,
    findings: Path | None = None,
    rows: int | None = None,
    seed: int = 42,
    watch: Watch | None = None,
) -> Dataset:
    """Make a dataset out of another one by a remedy.

    remedy: see REMEDIES. findings: of an audit of exactly these rows, for the remedies that need one. rows: how many
    a sample has. seed: of what is drawn at random.
    Raises: DataError: there is no such dataset or remedy, its findings are missing or about other rows, there is
        nothing to remove, nothing would be left, or the new name is taken. Stopped. StudioError: the name is refused.
    """
    if remedy not in REMEDIES:
        raise DataError(unknown("remedy", remedy, REMEDIES))
    dataset = _source(name)
    checked_name(new, "dataset name")
    work = _Work(dataset, findings, rows, seed, watch or Watch(), passes=1 + (remedy in _READING))
    keeps = np.ones(dataset.rows, dtype=bool)
    keeps[REMEDIES[remedy](work)] = False
    removed = dataset.rows - int(keeps.sum())
    if not removed:
        raise DataError(f"{remedy} would remove no row of '{name}'. The dataset is as it should be.")
    if removed == dataset.rows:
        raise DataError(f"{remedy} would leave no row of '{name}'. Look at its rows first.")
    origin = {"remedy": remedy, "removed": removed, **work.notes}
    return _registered([(work.taken(keeps), new, origin)], dataset)[0]


def split_into(
    dataset: Dataset,
    shares: Sequence[float],
    names: Sequence[str],
    *,
    seed: int = 42,
    group: str | None = None,
    watch: Watch | None = None,
) -> list[Dataset]:
    """Cut a dataset into several, such as train, validation and test. All or none of them are made.

    shares: of the valid rows, in the order of names; together 1. Equal rows, and rows with equal values in the column
    `group`, are in the same one. Faulty rows are in none.
    Raises: DataError: the shares do not fit, there are too few different rows, or a name is taken. Stopped.
        StudioError: a name is refused.
    """
    _check_parts(shares, names)
    dataset = _source(dataset.name)
    work = _Work(dataset, None, None, seed, watch or Watch(), passes=1 + len(names))
    content, groups = work.content(group)
    parts = _parts(content, groups, shares, seed, dataset.name)
    made: list[tuple[Intake, str, dict[str, Any]]] = []
    try:
        for name, share, part in zip(names, shares, parts, strict=True):
            keeps = np.zeros(dataset.rows, dtype=bool)
            keeps[part] = True
            origin = {"remedy": "split", "share": share, "seed": seed, "removed": dataset.rows - len(part)}
            made.append((work.taken(keeps), name, origin | ({"group": group} if group else {})))
    except BaseException:
        for taken, _, _ in made:
            taken.discard()
        raise
    return _registered(made, dataset)


# --- what each remedy removes


@dataclass
class _Work:
    """A source on its way to a new dataset, with one count of progress over all passes through its rows."""

    dataset: Dataset
    findings: Path | None
    rows: int | None
    seed: int
    watch: Watch
    passes: int
    done: int = 0

    def __post_init__(self) -> None:
        self.notes: dict[str, Any] = {}

    def through(self, items: Iterator[Any]) -> Iterator[tuple[int, Any]]:
        """Each item with its position. Raises: Stopped."""
        size = self.dataset.path.stat().st_size
        for position, item in enumerate(items):
            if position % TOLD_ROWS == 0:
                done = size * self.done + size * position // max(self.dataset.rows, 1)
                self.watch.check(done, size * self.passes, position)
            yield position, item
        self.done += 1

    def outcomes(self) -> Iterator[tuple[int, tuple[Row, Example | BadRow]]]:
        return self.through(registry.outcomes(self.dataset))

    def content(self, group: str | None = None) -> tuple[Content, list[int | None] | None]:
        """What the valid rows say, and the group of each."""
        content = Content()
        groups: list[int | None] = []
        for position, (row, outcome) in self.outcomes():
            if isinstance(outcome, Example):
                content.add(position, outcome)
                if group:
                    groups.append(group_of(row.values or {}, group))
        if group and all(each is None for each in groups):
            raise DataError(f"No row of '{self.dataset.name}' has the column '{group}'. Name another one to group by.")
        return content, groups if group else None

    def labels(self) -> dict[Any, list[int]]:
        """The positions of each label. Raises: DataError: the rows have none."""
        found: dict[Any, list[int]] = {}
        for position, (_, outcome) in self.outcomes():
            if isinstance(outcome, Example) and outcome.label is not None:
                found.setdefault(outcome.label, []).append(position)
        if not found:
            raise DataError(
                f"'{self.dataset.name}' has no classes to balance: it is read as {self.dataset.format}. Choose a "
                "dataset with labels, or read it as classification."
            )
        return found

    def audited(self, kind: str, *settings: str) -> np.ndarray:
        """Positions of a finding. settings: what of the audit belongs into the record."""
        if self.findings is None:
            raise DataError(f"This needs an audit of '{self.dataset.name}' first, because it is told there which rows.")
        if not found.are_about(self.findings, self.dataset):
            raise DataError(
                f"The audit is not about the present rows of '{self.dataset.name}', or they are read in another way "
                "by now. Audit the dataset again."
            )
        positions = found.load(self.findings, kind)
        asked = found.settings(self.findings)
        self.notes |= {name: asked.get(name) for name in settings}
        return positions if positions.ndim == 1 else positions[:, 0]

    def taken(self, keeps: np.ndarray) -> Intake:
        """The rows that are kept, stored, and read exactly as those of the source."""
        dataset, kind = self.dataset, formats.get(self.dataset.format)
        kept = (row for position, row in self.through(registry.read(dataset)) if keeps[position])
        # each part is named, also those that no column plays, so that none is guessed anew
        columns = dict.fromkeys(kind.columns, "") | dataset.columns
        tags = dict(kind.tags) | dataset.tags
        title = dataset.title or dataset.name
        taken = intake.taken(kept, dataset.format, columns, tags, title=title)
        same = replace(taken.inspection.detection, columns=dict(dataset.columns), tags=dict(dataset.tags))
        return replace(taken, inspection=replace(taken.inspection, detection=same))


def _faulty(work: _Work) -> list[int]:
    return [position for position, (_, outcome) in work.outcomes() if isinstance(outcome, BadRow)]


def _duplicates(work: _Work) -> np.ndarray:
    return work.content()[0].duplicates()[:, 0]


def _near_duplicates(work: _Work) -> np.ndarray:
    """Exact ones too: a repetition of a near duplicate would otherwise stay."""
    near = work.audited("near_duplicate", "similarity", "near_rows")
    return np.union1d(near, work.audited("duplicate"))


def _conflicts(work: _Work) -> np.ndarray:
    """Of different answers to one question the first one stays. Where labels contradict each other, no row stays."""
    content, _ = work.content()
    pairs = content.conflicts()
    first = next((each for _, each in registry.outcomes(work.dataset) if isinstance(each, Example)), None)
    if first is not None and first.kind in JUDGED:
        return pairs[:, 0]
    return pairs[pairs[:, 1] < pairs[:, 0], 0]


def _leaks(work: _Work) -> np.ndarray:
    leaks = work.audited("leak", "against", "similarity")
    if not work.notes["against"]:
        raise DataError(
            "These leaks are near duplicates on the two sides of a run's split, and with rows missing the split is "
            "another one. Use drop_near_duplicates, or keep them together by data.group."
        )
    return leaks


def _truncated(work: _Work) -> np.ndarray:
    return work.audited("truncated", "model", "template", "max_length")


def _unsupervised(work: _Work) -> np.ndarray:
    return work.audited("unsupervised", "model", "template", "max_length")


def _unwritable(work: _Work) -> np.ndarray:
    return work.audited("unwritable", "model", "template")


def _beyond_the_smallest(work: _Work) -> np.ndarray:
    """All but as many rows of each class, drawn at random, as the smallest class has; and rows without a class."""
    labels = work.labels()
    fewest = min(map(len, labels.values()))
    draw = random.Random(work.seed)
    kept = [position for label in sorted(labels, key=str) for position in draw.sample(labels[label], fewest)]
    work.notes |= {"seed": work.seed, "classes": len(labels), "rows_per_class": fewest}
    return np.setdiff1d(np.arange(work.dataset.rows), kept)


def _not_drawn(work: _Work) -> np.ndarray:
    if work.rows is None or not 0 < work.rows < work.dataset.rows:
        raise DataError(
            f"A sample of '{work.dataset.name}' has between 1 and {work.dataset.rows - 1:,} rows, not {work.rows}."
        )
    work.notes["seed"] = work.seed
    kept = random.Random(work.seed).sample(range(work.dataset.rows), work.rows)
    return np.setdiff1d(np.arange(work.dataset.rows), kept)


REMEDIES: dict[str, Callable[[_Work], Any]] = {
    "drop_faulty": _faulty,
    "drop_duplicates": _duplicates,
    "drop_near_duplicates": _near_duplicates,
    "drop_conflicts": _conflicts,
    "drop_leaks": _leaks,
    "drop_truncated": _truncated,
    "drop_unsupervised": _unsupervised,
    "drop_unwritable": _unwritable,
    "balance": _beyond_the_smallest,
    "sample": _not_drawn,
}
"""Each by what it removes. All but the first of equal rows; of near ones, too. balance: every class is as small as the
smallest. sample: some rows, drawn at random."""
_READING = ("drop_faulty", "drop_duplicates", "drop_conflicts", "balance")
AUDITED = tuple(name for name in REMEDIES if name not in (*_READING, "sample"))
"""The remedies that need the findings of an audit."""


# --- cutting


def _check_parts(shares: Sequence[float], names: Sequence[str]) -> None:
    for name in names:
        checked_name(name, "dataset name")
    if len(shares) != len(names) or len(names) < 2:
        raise DataError(f"{len(shares)} shares for {len(names)} names. Give two or more, and a name to each share.")
    if len({name.lower() for name in names}) != len(names):
        raise DataError(f"{', '.join(names)}: a name is there twice. Name each set once.")
    if min(shares) <= 0 or abs(sum(shares) - 1) > 1e-6:
        raise DataError(f"The shares {', '.join(f'{share:g}' for share in shares)} must all be above 0 and make 1.")


def _parts(
    content: Content, groups: Sequence[int | None] | None, shares: Sequence[float], seed: int, name: str
) -> list[np.ndarray]:
    """The positions of each share. The smallest share is held out first, then the next of what remains."""
    keys = content.keys
    left = list(range(len(keys)))
    parts: dict[int, list[int]] = {}
    order = sorted(range(len(shares)), key=lambda each: (shares[each], -each))
    for number, each in enumerate(order[:-1]):
        share = shares[each] / sum(shares[other] for other in order[number:])
        tied = None if groups is None else [groups[index] for index in left]
        try:
            rest, held = splitting.split([keys[index] for index in left], share, seed, tied)
        except DataError as error:
            raise DataError(
                f"'{name}' has too few different rows{' or groups' if groups else ''} for {len(shares)} sets."
            ) from error
        parts[each], left = [left[index] for index in held], [left[index] for index in rest]
    parts[order[-1]] = left
    return [content.positions[parts[each]] for each in range(len(shares))]


# --- registering


def _source(name: str) -> Dataset:
    dataset = registry.get(name)
    registry.verify(dataset)
    return dataset


def _registered(made: Sequence[tuple[Intake, str, dict[str, Any]]], dataset: Dataset) -> list[Dataset]:
    """All of them, or none."""
    datasets: list[Dataset] = []
    before = {each.name for each in registry.every()}
    try:
        for taken, name, origin in made:
            whole = {"from": dataset.name, "sha256": dataset.sha256, "rows": dataset.rows, **origin}
            datasets.append(registry.register(taken, name, origin=whole, about=dataset.about))
    except BaseException:
        for each in datasets:
            if each.name not in before:
                registry.remove(each.name)
        raise
    finally:
        for taken, _, _ in made:
            taken.discard()
    return datasets
