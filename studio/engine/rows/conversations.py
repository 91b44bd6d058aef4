"""From the datasets of a spec to tokenised rows with labels: the last stop before a trainer.

Rows are read twice and written to disk as they are tokenised, so that memory does not grow with them. Those of an
earlier run that would be the very same are used again. Not here: how a row is read and chosen (studio.data), how it is
written and masked (studio.templates), which the page's preview and the audit call in just the same way, and the store
of finished rows (studio.engine.rows.cache).
"""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from datasets import Dataset

from studio.data import registry
from studio.data.example import Example
from studio.data.mixing import mixed
from studio.data.selection import HELD, TESTED, TRAINED, Part, select
from studio.engine.rows import cache
from studio.errors import DataError, TemplateError
from studio.events import Emit, Note, Phase
from studio.specs import DataSpec, TrainSpec
from studio.templates import Policy, Template, TextTokenizer
from studio.templates.many import Encoder, batches
from studio.templates.packed import IGNORED, Packed

__all__ = ["IGNORED", "Counts", "Rows", "examples_of", "mix", "policy_of", "prepare"]

_SCHEMA = pa.schema({"input_ids": pa.list_(pa.int32()), "labels": pa.list_(pa.int32())})
_TRAINED, _HELD = "train.arrow", "held.arrow"
TASKS = "task_ids"
"""The column, and the name of the forward pass, for the number of a row's dataset, where the method asks for it."""
_WAIT_S = 0.5
"""How long a wish to stop may go unseen while a batch takes its time."""


@dataclass
class Counts:
    """What became of the rows of one dataset.

    rows: all of them. faulty: could not be read. unlearned: valid, but nothing that the objective learns from, such as
    answers marked bad. unwritable: refused by the template. skipped: no supervised token within the cutoff. truncated:
    longer than the cutoff; cut_answer, cut_turns, cut_source and dropped: what these lost, the last one all. escaped:
    hold special tokens in what somebody wrote. trained and held (for validation): are used. tested: are kept for the
    test. mixed: how many rows of it are in the mix, which counts repeated ones.
    """

    rows: int
    faulty: int = 0
    unlearned: int = 0
    unwritable: int = 0
    skipped: int = 0
    truncated: int = 0
    cut_answer: int = 0
    cut_turns: int = 0
    cut_source: int = 0
    dropped: int = 0
    escaped: int = 0
    trained: int = 0
    held: int = 0
    tested: int = 0
    mixed: int = 0

    def add(self, packed: Packed) -> None:
        """Count what became of some rows, but for the side on which they are used."""
        cuts = packed.cuts()
        self.unwritable += len(packed.refusals)
        self.skipped += int((packed.column("learns") == 0).sum()) - len(packed.refusals)
        self.truncated += sum(cuts.values())
        self.cut_answer += cuts["answer"]
        self.cut_turns += cuts["turns"]
        self.cut_source += cuts["source"]
        self.dropped += cuts["row"]
        self.escaped += int((packed.column("escaped") > 0).sum())


@dataclass(frozen=True)
class Rows:
    """Tokenised rows.

    hashes and counts: by the name of the dataset. told: sentences about rows that are not used. refusal: what the
    template said about the first row that it refused. tested: rows for the test of the outcome, where the stage makes
    one.
    """

    train: Dataset
    held: Dataset | None
    hashes: dict[str, str]
    counts: dict[str, Counts]
    told: list[str] = field(default_factory=list)
    refusal: str = ""
    tested: Dataset | None = None

    def total(self, what: str) -> int:
        """A count over all datasets."""
        return sum(getattr(counts, what) for counts in self.counts.values())

    def plain_counts(self) -> dict[str, dict[str, int]]:
        """For the record of the run."""
        return {name: asdict(counts) for name, counts in self.counts.items()}


def examples_of(
    data: DataSpec, stage: str = "sft", *, balance: bool = False, most: int | None = None
) -> tuple[list[Example], bool]:
    """The first rows that a run kept for the test, else of those that it held out, else of those that it trained on.

    Returns: the rows, and whether the run did not train on them. Raises: as select.
    """
    parts = select(data, stage, balance=balance)
    wanted = next((side for side in (TESTED, HELD) if any(side in part.sides for part in parts)), TRAINED)
    found = (example for part in parts for _, example in part.examples(wanted=(wanted,)))
    return list(islice(found, most)), wanted != TRAINED


def policy_of(spec: TrainSpec) -> Policy:
    """What of each conversation a run learns: continued pre-training learns all of the text."""
    policy = Policy.of(spec.template, spec.data)
    return replace(policy, supervise="all", learn_thoughts=True) if spec.stage.kind == "pretrain" else policy


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
        TemplateError: the template refuses every row, or too many take too long.
    """
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    datasets = [registry.get(name) for name in spec.data.datasets]
    key = cache.key(spec, tokenizer, template, datasets)
    facts = cache.fetch(key, place)
    if facts is None:
        facts = _made(spec, tokenizer, template, emit, place, stopping)
        if facts is None:
            return None
        if facts.pop("lasting"):
            cache.keep(key, place, facts)
    else:
        for dataset in datasets:
            registry.verify(dataset)
        _tell_found(facts, emit)
    counts = {name: Counts(**values) for name, values in facts["counts"].items()}
    train = Dataset.from_file(str(place / _TRAINED))
    held = Dataset.from_file(str(place / _HELD)) if (place / _HELD).is_file() else None
    if spec.method.kind == "multitask_prompt_tuning":
        train = _with_tasks(train, [each.trained for each in counts.values()])
        held = held and _with_tasks(held, [each.held for each in counts.values()])
    train = mix(spec.data, train, counts)
    hashes = {dataset.name: dataset.sha256 for dataset in datasets}
    return Rows(train, held, hashes, counts, facts["told"], facts["refusal"])


def _with_tasks(rows: Dataset, sizes: list[int]) -> Dataset:
    """Number the rows by their dataset, whose rows lie one after the other."""
    return rows.add_column(TASKS, np.repeat(np.arange(len(sizes)), sizes))


def _made(
    spec: TrainSpec,
    tokenizer: TextTokenizer,
    template: Template,
    emit: Emit,
    place: Path,
    stopping: Callable[[], bool],
) -> dict[str, Any] | None:
    """Tokenise all rows into files in a folder. Returns: what is to be known about them; None if it was stopped.

    lasting: whether they would be the same another time, as rows are that no limit of time or memory took away.
    """
    most = spec.data.max_samples
    counts = (registry.get(name).rows for name in spec.data.datasets)
    expected = sum(each if most is None else min(each, most) for each in counts)
    # first of all, because its processes get ready while the rows are read for the first time
    with Encoder(template, tokenizer, policy_of(spec), examples=expected) as encoder:

        def tell(done: int, total: int) -> None:
            emit(Phase(name="read", done=done, total=total, unit="rows"))

        parts = select(spec.data, spec.stage.kind, tell=tell)
        work = _Tokenising(spec, encoder, emit, parts, place)
        if not work.run(stopping):
            return None
    return work.facts()


def _tell_found(facts: dict[str, Any], emit: Emit) -> None:
    count = sum(values["trained"] + values["held"] for values in facts["counts"].values())
    emit(Phase(name="tokenize", done=count, total=count, unit="rows"))
    emit(Note(text=f"Tokenised rows of an earlier run are used: {count:,} row{'' if count == 1 else 's'}."))


def mix(data: DataSpec, train: Dataset, counts: dict[str, Counts]) -> Dataset:
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


class _Batch(NamedTuple):
    """Rows of one dataset on their way. sides: TRAINED or HELD for each."""

    counts: Counts
    sides: np.ndarray
    packed: Future[Packed]


class _Tokenising:
    """Tokenises the rows batch by batch onto disk, counts those that fall out, and tells how far it is."""

    def __init__(self, spec: TrainSpec, encoder: Encoder, emit: Emit, parts: list[Part], place: Path):
        self._spec, self._encoder, self._emit, self._parts = spec, encoder, emit, parts
        self._total = sum(part.sides.count(side) for part in parts for side in (TRAINED, HELD))
        self._done = self._refused = 0
        self._lasting = True
        self._refusal = ""
        self._files = {TRAINED: _File(place / _TRAINED), HELD: _File(place / _HELD)}
        self._waiting: deque[_Batch] = deque()
        self._counts = [
            Counts(
                part.dataset.rows,
                faulty=part.faulty,
                unlearned=part.unlearned.total(),
                tested=part.sides.count(TESTED),
            )
            for part in parts
        ]

    def run(self, stopping: Callable[[], bool]) -> bool:
        """Whether it went through to the end."""
        for counts, sides, examples in self._batches():
            if stopping():
                return False
            self._waiting.append(_Batch(counts, sides, self._encoder.submit(examples)))
            while len(self._waiting) > self._encoder.ahead:
                if not self._take(stopping):
                    return False
        while self._waiting:
            if not self._take(stopping):
                return False
        for file in self._files.values():
            file.close()
        if not self._files[TRAINED].rows:
            raise self._nothing_to_train_on()
        return True

    def facts(self) -> dict[str, Any]:
        """What is to be known about the rows, apart from themselves."""
        told = [sentence for part in self._parts for sentence in part.unlearned_told()]
        counts = {part.dataset.name: asdict(each) for part, each in zip(self._parts, self._counts, strict=True)}
        return {"counts": counts, "told": told, "refusal": self._refusal, "lasting": self._lasting}

    def _batches(self) -> Iterator[tuple[Counts, np.ndarray, list[Example]]]:
        for part, counts in zip(self._parts, self._counts, strict=True):
            for sides, examples in batches(part.examples()):
                yield counts, np.array(sides, dtype=np.uint8), examples

    def _take(self, stopping: Callable[[], bool]) -> bool:
        """Wait for the oldest batch and write it; False: somebody wants to stop."""
        counts, sides, future = self._waiting[0]
        while True:
            if stopping():
                return False
            try:
                packed = future.result(timeout=_WAIT_S)
                break
            except TimeoutError:
                continue
        self._waiting.popleft()
        counts.add(packed)
        self._refused += sum(int(sides[place]) == TRAINED for place in packed.refusals)
        self._refusal = self._refusal or next(iter(packed.refusals.values()), "")
        self._lasting = self._lasting and not packed.unfinished
        learns = packed.column("learns") > 0
        trained, held = (self._files[side].add(packed, (sides == side) & learns) for side in (TRAINED, HELD))
        counts.trained += trained
        counts.held += held
        self._done += len(packed)
        self._emit(Phase(name="tokenize", done=self._done, total=self._total, unit="rows"))
        return True

    def _nothing_to_train_on(self) -> DataError | TemplateError:
        count = sum(part.sides.count(TRAINED) for part in self._parts)
        if self._refused == count:
            return TemplateError(f"Template '{self._spec.template.name}' can write none of the rows. {self._refusal}")
        return DataError(
            f"Not one of {count} rows has a supervised token within data.max_length = {self._spec.data.max_length}. "
            "Raise it, or choose another template.supervise."
        )


class _File:
    """Rows on disk, which a Dataset then reads without loading them. There is none where nothing was added."""

    def __init__(self, path: Path):
        self._path = path
        self.rows = 0
        self._stream: pa.RecordBatchStreamWriter | None = None

    def add(self, packed: Packed, wanted: np.ndarray) -> int:
        """Write the wanted ones of some rows. Returns: how many these are."""
        count = int(wanted.sum())
        if not count:
            return 0
        kept = packed.column("kept")
        ids, labels = packed.ids, packed.labels()
        if count < len(packed):
            tokens = np.repeat(wanted, kept)
            ids, labels, kept = ids[tokens], labels[tokens], kept[wanted]
        if self._stream is None:
            self._stream = pa.ipc.new_stream(str(self._path), _SCHEMA)
        ends = pa.array(np.concatenate([[0], np.cumsum(kept)]).astype(np.int32))
        columns = [pa.ListArray.from_arrays(ends, pa.array(each)) for each in (ids, labels)]
        self._stream.write_batch(pa.record_batch(columns, schema=_SCHEMA))
        self.rows += count
        return count

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()
