"""From the datasets of a spec to tokenised rows with labels: the last stop before a trainer.

Rows are read twice and written to disk as they are tokenised, so that memory does not grow with them. Not here: how a
row is read and chosen (studio.data) and how it is written and masked (studio.templates), which the page's preview and
the audit call in just the same way.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path

import pyarrow as pa
from datasets import Dataset

from studio.data.example import Example
from studio.data.mixing import mixed
from studio.data.selection import HELD, TRAINED, Part, select
from studio.errors import DataError, TemplateError
from studio.events import Emit, Phase
from studio.specs import DataSpec, TrainSpec
from studio.templates import Encoded, Policy, Template, TextTokenizer, encode

IGNORED = -100
_EVERY = 200
_BATCH = 500
"""Rows that are written at once."""
_SCHEMA = pa.schema({"input_ids": pa.list_(pa.int32()), "labels": pa.list_(pa.int32())})


@dataclass
class Counts:
    """What became of the rows of one dataset.

    rows: all of them. faulty: could not be read. unlearned: valid, but nothing that the objective learns from, such as
    answers marked bad. unwritable: refused by the template. skipped: no supervised token within the cutoff. truncated:
    lose their end. escaped: hold special tokens in what somebody wrote. trained and held: are used. mixed: how many
    rows of it are in the mix, which counts repeated ones.
    """

    rows: int
    faulty: int = 0
    unlearned: int = 0
    unwritable: int = 0
    skipped: int = 0
    truncated: int = 0
    escaped: int = 0
    trained: int = 0
    held: int = 0
    mixed: int = 0


@dataclass(frozen=True)
class Rows:
    """Tokenised rows.

    hashes and counts: by the name of the dataset. told: sentences about rows that are not used. refusal: what the
    template said about the first row that it refused.
    """

    train: Dataset
    held: Dataset | None
    hashes: dict[str, str]
    counts: dict[str, Counts]
    told: list[str] = field(default_factory=list)
    refusal: str = ""

    def total(self, what: str) -> int:
        """A count over all datasets."""
        return sum(getattr(counts, what) for counts in self.counts.values())

    def plain_counts(self) -> dict[str, dict[str, int]]:
        """For the record of the run."""
        return {name: asdict(counts) for name, counts in self.counts.items()}


def examples_of(data: DataSpec, *, most: int | None = None) -> tuple[list[Example], bool]:
    """The first rows that a run held out, or, if it held none out, of those that it trained on, and whether it did.

    Raises: as select.
    """
    parts = select(data)
    wanted = HELD if any(HELD in part.sides for part in parts) else TRAINED
    found = (example for part in parts for side, example in part.examples() if side == wanted)
    return list(islice(found, most)), wanted == HELD


def prepare(
    spec: TrainSpec,
    tokenizer: TextTokenizer,
    template: Template,
    emit: Emit,
    *,
    place: Path,
    stopping: Callable[[], bool] = lambda: False,
) -> Rows | None:
    """Read, split, write out, tokenise and mix the rows of a run.

    place: a folder for them, which is emptied first. Returns: None if it was stopped.
    Raises: DataError: nothing to train on, with the reason. SpecError: faulty rows that nobody wants to leave out.
        TemplateError: the template refuses every row.
    """
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    parts = select(spec.data, tell=lambda done, total: emit(Phase(name="read", done=done, total=total, unit="rows")))
    work = _Tokenising(spec, tokenizer, template, emit, parts, place)
    if not work.run(stopping):
        return None
    train, held = work.datasets()
    if train is None:
        raise work.nothing_to_train_on()
    counts = {part.dataset.name: counts for part, counts in zip(parts, work.counts, strict=True)}
    hashes = {part.dataset.name: part.dataset.sha256 for part in parts}
    told = [sentence for part in parts for sentence in part.unlearned_told()]
    return Rows(_mixed(spec.data, train, counts), held, hashes, counts, told, work.refusal)


def _mixed(data: DataSpec, train: Dataset, counts: dict[str, Counts]) -> Dataset:
    """The rows in the order of the mix; without weights as they are."""
    sizes = [each.trained for each in counts.values()]
    if not data.weights:
        for each in counts.values():
            each.mixed = each.trained
        return train
    if empty := [name for name, each in counts.items() if not each.trained]:
        raise DataError(f"Dataset '{empty[0]}' has no row left to mix. Leave it and its weight out.")
    order = mixed(sizes, data.weights, repeat=data.repeat, seed=data.seed if data.shuffle else None)
    begin = 0
    for each in counts.values():
        each.mixed = int(((order >= begin) & (order < begin + each.trained)).sum())
        begin += each.trained
    return train.select(order)


class _Tokenising:
    """Tokenises the rows one by one onto disk, counts those that fall out, and tells how far it is."""

    def __init__(
        self,
        spec: TrainSpec,
        tokenizer: TextTokenizer,
        template: Template,
        emit: Emit,
        parts: list[Part],
        place: Path,
    ):
        self._spec, self._tokenizer, self._template, self._emit = spec, tokenizer, template, emit
        self._parts = parts
        self._total = sum(part.sides.count(side) for part in parts for side in (TRAINED, HELD))
        self._policy = Policy.of(spec.template, spec.data)
        self._done = 0
        self._files = {TRAINED: _File(place / "train.arrow"), HELD: _File(place / "held.arrow")}
        self.refusal = ""
        self._refused = 0
        self.counts = [
            Counts(part.dataset.rows, faulty=part.faulty, unlearned=part.unlearned.total()) for part in parts
        ]

    def run(self, stopping: Callable[[], bool]) -> bool:
        """Whether it went through to the end."""
        for part, counts in zip(self._parts, self.counts, strict=True):
            for side, example in part.examples():
                if self._done % _EVERY == 0 and stopping():
                    return False
                self._add(side, example, counts)
                self._done += 1
                if self._done % _EVERY == 0 or self._done == self._total:
                    self._emit(Phase(name="tokenize", done=self._done, total=self._total, unit="rows"))
        return True

    def datasets(self) -> tuple[Dataset | None, Dataset | None]:
        """Columns input_ids and labels, one row per example that has something to learn; None if no one has."""
        return self._files[TRAINED].dataset(), self._files[HELD].dataset()

    def nothing_to_train_on(self) -> DataError | TemplateError:
        count = sum(part.sides.count(TRAINED) for part in self._parts)
        if self._refused == count:
            return TemplateError(f"Template '{self._spec.template.name}' can write none of the rows. {self.refusal}")
        return DataError(
            f"Not one of {count} rows has a supervised token within data.max_length = {self._spec.data.max_length}. "
            "Raise it, or choose another template.supervise."
        )

    def _add(self, side: int, example: Example, counts: Counts) -> None:
        try:
            encoded = encode(example, self._template, self._tokenizer, self._policy)
        except TemplateError as error:
            counts.unwritable += 1
            self._refused += side == TRAINED
            self.refusal = self.refusal or str(error)
            return
        counts.truncated += encoded.truncated
        counts.escaped += encoded.escaped > 0
        if not encoded.learns:
            counts.skipped += 1
            return
        if side == TRAINED:
            counts.trained += 1
        else:
            counts.held += 1
        self._files[side].add(encoded.input_ids, list(_labels(encoded)))


def _labels(encoded: Encoded) -> Iterator[int]:
    together = zip(encoded.input_ids, encoded.supervised, strict=True)
    return (token if learned else IGNORED for token, learned in together)


class _File:
    """Rows on disk, which a Dataset then reads without loading them."""

    def __init__(self, path: Path):
        self._path = path
        self._ids: list[list[int]] = []
        self._labels: list[list[int]] = []
        self._stream: pa.RecordBatchStreamWriter | None = None

    def add(self, ids: list[int], labels: list[int]) -> None:
        self._ids.append(ids)
        self._labels.append(labels)
        if len(self._ids) == _BATCH:
            self._write()

    def dataset(self) -> Dataset | None:
        """All rows, or None if there are none. Nothing can be added afterwards."""
        if self._ids:
            self._write()
        if self._stream is None:
            return None
        self._stream.close()
        return Dataset.from_file(str(self._path))

    def _write(self) -> None:
        if self._stream is None:
            self._stream = pa.ipc.new_stream(str(self._path), _SCHEMA)
        columns = [pa.array(self._ids, _SCHEMA[0].type), pa.array(self._labels, _SCHEMA[1].type)]
        self._stream.write_batch(pa.record_batch(columns, schema=_SCHEMA))
        self._ids, self._labels = [], []
