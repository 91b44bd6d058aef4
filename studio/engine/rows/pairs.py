"""Rows of two answers to a prompt, and rows of one answer that is marked good or bad, as tokens.

Written by the templates of ours, so that what is preferred is what will be said. Not here: rows of conversations to
learn (studio.engine.rows.conversations), and what a trainer makes of a batch (studio.engine.stages).
"""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
from datasets import Dataset

from studio.data.example import Example, Message
from studio.data.selection import HELD, TESTED, TRAINED, Part, select
from studio.engine.rows.conversations import Counts, Rows, mix
from studio.errors import DataError, TemplateError
from studio.events import Emit, Phase
from studio.specs import DataSpec, TemplateSpec, TrainSpec
from studio.templates import Policy, Template, TextTokenizer
from studio.templates.many import Encoder, batches
from studio.templates.packed import Packed

_IDS = pa.list_(pa.int32())
_PAIRED = pa.schema({"prompt_ids": _IDS, "chosen_ids": _IDS, "rejected_ids": _IDS})
_MARKED = pa.schema({"prompt_ids": _IDS, "completion_ids": _IDS, "label": pa.bool_()})
_FILES = {TRAINED: "train.arrow", HELD: "held.arrow"}
_WAIT_S = 0.5
"""How long a wish to stop may go unseen while a batch takes its time."""

Loss = Literal["", "refused", "short", "row", "answer", "source"]
"""What a row lost: nothing; all of it, because the template refused it, no answer is left, or it is too long; the ends
of its answers; the beginning of its prompt."""


class Answered(NamedTuple):
    """A prompt with its answers, in tokens: chosen and rejected, or one that is marked. said: why it was refused."""

    prompt: np.ndarray
    answers: tuple[np.ndarray, ...]
    lost: Loss = ""
    escaped: bool = False
    said: str = ""

    @property
    def usable(self) -> bool:
        return self.lost not in ("refused", "short", "row")


_EMPTY = np.zeros(0, np.int32)


def policy_of(template: TemplateSpec) -> Policy:
    """How these rows are written: whole, and the last answer is what is looked for."""
    return Policy(supervise="last", learn_thoughts=True, system=template.system)


def answered(examples: Sequence[Example], encode: Callable[[list[Example]], Packed], data: DataSpec) -> list[Answered]:
    """Examples with one or two answers as tokens, none longer than data.max_length.

    encode: conversations -> tokens, with policy_of(). What both conversations have in common before their answers is
    the prompt; an answer reaches to its end token. Beyond the cutoff, answers lose their ends (cut_answer), the row is
    left out (drop_row), or else the prompt first loses its beginning, but keeps half of the cutoff.
    """
    return _together([encode(each) for each in _conversations(examples)], data)


def prepare(
    spec: TrainSpec,
    tokenizer: TextTokenizer,
    template: Template,
    emit: Emit,
    *,
    place: Path,
    stopping: Callable[[], bool] = lambda: False,
) -> Rows | None:
    """Read, split, tokenise, write out and mix the rows of a run of a stage that learns from preferences.

    Of two answers: prompt_ids, chosen_ids, rejected_ids. Of marked ones (kto): prompt_ids, completion_ids, label; two
    answers are two such rows. Arguments, results and what is raised: as studio.engine.rows.conversations.prepare.
    """
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)

    def tell(done: int, total: int) -> None:
        emit(Phase(name="read", done=done, total=total, unit="rows"))

    parts = select(spec.data, spec.stage.kind, tell=tell)
    total = sum(part.sides.count(side) for part in parts for side in _FILES)
    with Encoder(template, tokenizer, policy_of(spec.template), examples=2 * total) as encoder:
        work = _Tokenising(spec, encoder, emit, place, total)
        for part in parts:
            if not work.add(part, stopping):
                return None
    work.close()
    if not work.written[TRAINED]:
        raise work.nothing_to_train_on()
    train = mix(spec.data, Dataset.from_file(str(place / _FILES[TRAINED])), work.counts)
    held = Dataset.from_file(str(place / _FILES[HELD])) if work.written[HELD] else None
    told = [sentence for part in parts for sentence in part.unlearned_told()]
    return Rows(train, held, {part.dataset.name: part.dataset.sha256 for part in parts}, work.counts, told, work.said)


class _Batch(NamedTuple):
    """Rows on their way, each with its side. packed: their conversations with the first answer, and with the second."""

    sides: list[int]
    examples: list[Example]
    packed: list[Future[Packed]]


class _Tokenising:
    """Tokenises rows batch by batch onto disk, counts those that fall out, and tells how far it is."""

    def __init__(self, spec: TrainSpec, encoder: Encoder, emit: Emit, place: Path, total: int):
        self._data, self._template, self._encoder, self._emit = spec.data, spec.template.name, encoder, emit
        self._marked = spec.stage.kind == "kto"
        self._total = total * (2 if self._marked else 1)
        self._done = 0
        self._place = place
        self._streams: dict[int, Any] = {}
        self.written = {TRAINED: 0, HELD: 0}
        self.counts: dict[str, Counts] = {}
        self.said = ""

    def add(self, part: Part, stopping: Callable[[], bool]) -> bool:
        """Whether it went through to the end of a dataset."""
        unlearned, tested = part.unlearned.total(), part.sides.count(TESTED)
        counts = Counts(part.dataset.rows, faulty=part.faulty, unlearned=unlearned, tested=tested)
        self.counts[part.dataset.name] = counts
        waiting: deque[_Batch] = deque()
        rows = part.examples()
        for sides, examples in batches(_each_marked(rows) if self._marked else rows):
            packed = [self._encoder.submit(each) for each in _conversations(examples)]
            waiting.append(_Batch(sides, examples, packed))
            while len(waiting) > self._encoder.ahead:
                if not self._take(waiting.popleft(), counts, stopping):
                    return False
        return all(self._take(batch, counts, stopping) for batch in waiting)

    def close(self) -> None:
        for stream in self._streams.values():
            stream.close()

    def nothing_to_train_on(self) -> DataError | TemplateError:
        refused = sum(counts.unwritable for counts in self.counts.values())
        if refused and refused == self._done:
            return TemplateError(f"Template '{self._template}' can write none of the rows. {self.said}")
        return DataError(
            f"Not one of {self._done} rows has an answer within data.max_length = {self._data.max_length}. Raise it, "
            "or set data.truncation to cut_source."
        )

    def _take(self, batch: _Batch, counts: Counts, stopping: Callable[[], bool]) -> bool:
        """Wait for a batch and write it; False: somebody wants to stop."""
        packed = [each for future in batch.packed if (each := _waited(future, stopping)) is not None]
        if len(packed) < len(batch.packed):
            return False
        rows = _together(packed, self._data)
        for side in _FILES:
            chosen = [at for at, row in enumerate(rows) if row.usable and batch.sides[at] == side]
            self._write(side, [rows[at] for at in chosen], [batch.examples[at].label is True for at in chosen])
            counts.trained += len(chosen) if side == TRAINED else 0
            counts.held += len(chosen) if side == HELD else 0
        self._count(rows, counts)
        self._done += len(rows)
        self._emit(Phase(name="tokenize", done=self._done, total=max(self._done, self._total), unit="rows"))
        return True

    def _count(self, rows: Iterable[Answered], counts: Counts) -> None:
        for row in rows:
            counts.unwritable += row.lost == "refused"
            counts.skipped += row.lost in ("short", "row")
            counts.truncated += row.lost in ("row", "answer", "source")
            counts.dropped += row.lost == "row"
            counts.cut_answer += row.lost == "answer"
            counts.cut_source += row.lost == "source"
            counts.escaped += row.escaped
            self.said = self.said or row.said

    def _write(self, side: int, rows: list[Answered], labels: list[bool]) -> None:
        if not rows:
            return
        schema = _MARKED if self._marked else _PAIRED
        columns = [[row.prompt for row in rows], *map(list, zip(*(row.answers for row in rows), strict=True))]
        arrays = [pa.array(each, _IDS) for each in columns] + ([pa.array(labels)] if self._marked else [])
        if side not in self._streams:
            self._streams[side] = pa.ipc.new_stream(str(self._place / _FILES[side]), schema)
        self._streams[side].write_batch(pa.record_batch(arrays, schema=schema))
        self.written[side] += len(rows)


def _waited(future: Future[Packed], stopping: Callable[[], bool]) -> Packed | None:
    """What becomes of it; None: somebody wants to stop."""
    while not stopping():
        try:
            return future.result(timeout=_WAIT_S)
        except TimeoutError:
            continue
    return None


def _each_marked(rows: Iterable[tuple[int, Example]]) -> Iterator[tuple[int, Example]]:
    """Marked answers as they are; of two answers the first is good and the second is bad."""
    for side, example in rows:
        if example.kind == "unpaired":
            yield side, example
        else:
            for answer, good in ((example.chosen, True), (example.rejected, False)):
                yield side, replace(example, kind="unpaired", chosen=answer, rejected=(), label=good)


def _conversations(examples: Sequence[Example]) -> list[list[Example]]:
    """The conversations that end with the first answer of each, and those that end with the second, if they have it."""
    paired = bool(examples) and examples[0].kind == "preference"
    sides = [[each.chosen for each in examples], *([[each.rejected for each in examples]] if paired else [])]
    return [
        [
            Example((*map(_plain, each.messages), *map(_plain, answer)), tools=each.tools)
            for each, answer in zip(examples, side, strict=True)
        ]
        for side in sides
    ]


def _plain(message: Message) -> Message:
    """Without a word of its own on whether it is learned: here the answer is, and nothing else."""
    return message if message.train is None else replace(message, train=None)


class _Found(NamedTuple):
    """A conversation in tokens, up to the end of its last answer, and where that begins. said: why there is none."""

    ids: np.ndarray
    begin: int
    escaped: bool
    said: str


def _found(packed: Packed) -> Iterator[_Found]:
    kept, ranges = packed.column("kept"), packed.column("ranges")
    first, begin = 0, 0
    for place in range(len(packed)):
        ids, spans = packed.ids[first : first + kept[place]], packed.ranges[begin : begin + ranges[place]]
        first, begin = first + int(kept[place]), begin + int(ranges[place])
        start, end = (int(spans[0][0]), int(spans[-1][1])) if len(spans) else (0, 0)
        escaped = bool(packed.column("escaped")[place])
        yield _Found(ids[:end], start, escaped, packed.refusals.get(place, ""))


def _together(sides: Sequence[Packed], data: DataSpec) -> list[Answered]:
    return [_joined(found, data) for found in zip(*map(_found, sides), strict=True)]


def _joined(found: Sequence[_Found], data: DataSpec) -> Answered:
    said = next((each.said for each in found if each.said), "")
    if said:
        return Answered(_EMPTY, (), "refused", said=said)
    begin = _common([each.ids[: each.begin] for each in found])
    prompt, answers = found[0].ids[:begin], tuple(each.ids[begin:] for each in found)
    row = _fitted(prompt, answers, data)
    if row.usable and not (row.prompt.size and all(each.size for each in row.answers) and _differ(row.answers)):
        row = row._replace(lost="short")
    return row._replace(escaped=any(each.escaped for each in found))


def _fitted(prompt: np.ndarray, answers: tuple[np.ndarray, ...], data: DataSpec) -> Answered:
    """See answered() for what goes where a row is too long."""
    most, longest = data.max_length, max(each.size for each in answers)
    if prompt.size + longest <= most:
        return Answered(prompt, answers)
    if data.truncation == "drop_row":
        return Answered(_EMPTY, (), "row")
    if data.truncation == "cut_answer":
        return Answered(prompt, tuple(each[: max(0, most - prompt.size)] for each in answers), "answer")
    prompt = prompt[-max(most - longest, min(prompt.size, most // 2)) :]
    return Answered(prompt, tuple(each[: most - prompt.size] for each in answers), "source")


def _common(sides: Sequence[np.ndarray]) -> int:
    """How many tokens all begin with."""
    shortest = min(side.size for side in sides)
    same = np.ones(shortest, bool)
    for side in sides[1:]:
        same &= side[:shortest] == sides[0][:shortest]
    return shortest if same.all() else int(np.argmin(same))


def _differ(answers: tuple[np.ndarray, ...]) -> bool:
    """Two answers that differ only beyond the cutoff teach nothing."""
    return len(answers) == 1 or any(a != b for a, b in zip_longest(*(each.tolist() for each in answers)))
