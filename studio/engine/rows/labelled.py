"""Classified texts as tokens with the number of their label: the rows of the stage classify.

A text is tokenised as it is, without a template; special tokens in it are read as plain text. Not here: which rows
there are and which are held out (studio.data.selection), the labels themselves (studio.data.labels), and the trainer.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import pyarrow as pa
from datasets import Dataset

from studio.data.example import Example
from studio.data.labels import labels_of
from studio.data.selection import HELD, LEFT, TESTED, TRAINED, Part, select
from studio.engine.rows.conversations import Counts, Rows, mix
from studio.errors import DataError
from studio.events import Emit, Phase
from studio.specs import DataSpec, TrainSpec
from studio.templates import Template, TextTokenizer

_SCHEMA = pa.schema({"input_ids": pa.list_(pa.int32()), "labels": pa.int64()})
_FILES = {TRAINED: "train.arrow", HELD: "held.arrow", TESTED: "test.arrow"}
_COUNTED = {TRAINED: "trained", HELD: "held", TESTED: "tested"}
_AT_ONCE = 512


def labelled(
    spec: TrainSpec,
    tokenizer: TextTokenizer,
    template: Template,
    emit: Emit,
    *,
    place: Path,
    stopping: Callable[[], bool] = lambda: False,
) -> Rows | None:
    """Read, balance, split and tokenise the rows of a run: input_ids, and labels as the number of one.

    place: a folder for them, which is emptied first. Returns: None if it was stopped.
    Raises: DataError: nothing to train on, with the reason. SpecError: faulty rows that nobody wants to leave out.
    """
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)

    def tell(done: int, total: int) -> None:
        emit(Phase(name="read", done=done, total=total, unit="rows"))

    parts = select(spec.data, spec.stage.kind, balance=spec.stage.balance, tell=tell)
    numbers = {label: number for number, label in enumerate(labels_of(spec.data))}
    total = sum(len(part.sides) - part.sides.count(LEFT) for part in parts)
    counts = {part.dataset.name: _counts(part) for part in parts}
    used: Counter[str] = Counter()
    done = 0
    with _Files(place) as files:
        for part in parts:
            rows = part.examples(wanted=tuple(_FILES))
            while some := list(islice(rows, _AT_ONCE)):
                if stopping():
                    return None
                _add(some, files, counts[part.dataset.name], numbers, used, tokenizer, spec.data)
                done += len(some)
                emit(Phase(name="tokenize", done=done, total=total, unit="rows"))
    train, held, tested = (files.dataset(side) for side in _FILES)
    if train is None:
        raise DataError(
            f"Not one of {total} rows fits into data.max_length = {spec.data.max_length}. "
            "Raise it, or choose another data.truncation."
        )
    train = mix(spec.data, train, counts)
    hashes = {part.dataset.name: part.dataset.sha256 for part in parts}
    told = [sentence for part in parts for sentence in part.unlearned_told()]
    return Rows(train, held, hashes, counts, [*told, *_told(spec, used, counts)], tested=tested)


def text_ids(text: str, tokenizer: TextTokenizer) -> list[int]:
    """The tokens of a text, after the start token where the tokenizer itself puts one."""
    start = tokenizer.start_string
    quoted = [(len(start) + found.start(), len(start) + found.end()) for found in tokenizer.special.finditer(text)]
    return list(tokenizer.encode(start + text, quoted)[0])


def shortened(ids: list[int], tokenizer: TextTokenizer, data: DataSpec) -> list[int] | None:
    """Tokens of a text that is too long, cut to data.max_length; None if such rows are to be left out.

    What a text is about mostly shows at its beginning, so its end is cut away, unless the truncation asks for another
    part: drop_turns keeps the end; cut_source a quarter at the beginning and the end (arXiv:1905.05583, section 5.3.1).
    """
    most, first = data.max_length, 1 if tokenizer.start_string else 0
    match data.truncation:
        case "drop_row":
            return None
        case "drop_turns":
            return [*ids[:first], *ids[len(ids) - most + first :]]
        case "cut_source":
            return [*ids[: most // 4], *ids[len(ids) - most + most // 4 :]]
        case _:
            return ids[:most]


def _add(
    some: Sequence[tuple[int, Example]],
    files: _Files,
    counts: Counts,
    numbers: dict[str, int],
    used: Counter[str],
    tokenizer: TextTokenizer,
    data: DataSpec,
) -> None:
    rows: dict[int, list[tuple[list[int], int]]] = {side: [] for side in _FILES}
    for side, example in some:
        text, label = example.text or "", str(example.label)
        whole = text_ids(text, tokenizer)
        long = len(whole) > data.max_length
        ids = shortened(whole, tokenizer, data) if long else whole
        counts.truncated += long
        counts.dropped += ids is None
        counts.escaped += tokenizer.special.search(text) is not None
        if ids is not None:
            rows[side].append((ids, numbers[label]))
            used[label] += 1
    for side, found in rows.items():
        files.add(side, found)
        setattr(counts, _COUNTED[side], getattr(counts, _COUNTED[side]) + len(found))


def _counts(part: Part) -> Counts:
    return Counts(part.dataset.rows, faulty=part.faulty, unlearned=part.unlearned.total())


def _told(spec: TrainSpec, used: Counter[str], counts: dict[str, Counts]) -> Iterator[str]:
    shown = ", ".join(f"{count:,} {label}" for label, count in sorted(used.items())[:20])
    yield f"Rows of each label{', balanced' if spec.stage.balance else ''}: {shown}{', …' if len(used) > 20 else ''}."
    cut = sum(each.truncated - each.dropped for each in counts.values())
    if cut:
        kept = {"drop_turns": "only their end is read", "cut_source": "their middle is not read"}
        what = kept.get(spec.data.truncation, "only their beginning is read")
        yield f"{cut:,} rows are longer than {spec.data.max_length} tokens, so {what}."


class _Files:
    """Rows on disk by their side. A context: afterwards they are whole."""

    def __init__(self, place: Path):
        self._place = place
        self._streams: dict[int, pa.RecordBatchStreamWriter] = {}

    def __enter__(self) -> _Files:
        return self

    def __exit__(self, *_: object) -> None:
        for stream in self._streams.values():
            stream.close()

    def add(self, side: int, rows: Sequence[tuple[list[int], int]]) -> None:
        if not rows:
            return
        if side not in self._streams:
            self._streams[side] = pa.ipc.new_stream(str(self._place / _FILES[side]), _SCHEMA)
        ids, labels = zip(*rows, strict=True)
        columns = [pa.array(ids, type=_SCHEMA.field(0).type), pa.array(labels, type=pa.int64())]
        self._streams[side].write_batch(pa.record_batch(columns, schema=_SCHEMA))

    def dataset(self, side: int) -> Dataset | None:
        """None where there are no rows."""
        return Dataset.from_file(str(self._place / _FILES[side])) if side in self._streams else None
