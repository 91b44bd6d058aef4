"""Rows of prompts for the stages that learn from the model's own answers: token ids and what an answer is scored by.

Not here: how answers are scored (studio.engine.rewards), and rows that hold answers to learn (conversations, beside
this).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from datasets import Dataset

from studio.data.example import Example
from studio.data.selection import HELD, TRAINED, select
from studio.engine.rows.conversations import Counts, Rows
from studio.errors import DataError, TemplateError
from studio.events import Emit, Phase
from studio.specs import TrainSpec
from studio.templates import Template, TextTokenizer, generation_prompt

_EVERY = 200
SIDES = (TRAINED, HELD)


def prompts(
    spec: TrainSpec,
    tokenizer: TextTokenizer,
    template: Template,
    emit: Emit,
    *,
    place: Path,
    stopping: Callable[[], bool] = lambda: False,
) -> Rows | None:
    """Read, split and write out the prompts of a run.

    A row has: prompt (its text), prompt_ids, reference (what the data answers; empty without), conversation (JSON of
    role and content). Prompts beyond data.max_length are left out: cut short, they would ask something else.
    Raises: as studio.engine.rows.conversations.prepare. Returns: None if it was stopped.
    """
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)

    def tell(done: int, total: int) -> None:
        emit(Phase(name="read", done=done, total=total, unit="rows"))

    parts = select(spec.data, spec.stage.kind, tell=tell)
    work = _Writing(spec, tokenizer, template, emit, sum(part.sides.count(side) for part in parts for side in SIDES))
    counts: dict[str, Counts] = {}
    for part in parts:
        counts[part.dataset.name] = count = Counts(
            part.dataset.rows, faulty=part.faulty, unlearned=part.unlearned.total()
        )
        for side, example in part.examples():
            if stopping():
                return None
            work.add(example, side, count)
    if not work.rows[TRAINED]:
        raise work.nothing_to_train_on()
    train, held = (_kept(work.rows[side], place / name) for side, name in ((TRAINED, "train"), (HELD, "held")))
    told = [sentence for part in parts for sentence in part.unlearned_told()]
    hashes = {part.dataset.name: part.dataset.sha256 for part in parts}
    return Rows(train, held, hashes, counts, told, work.refusal)  # type: ignore[arg-type]


class _Writing:
    """Writes prompts as token ids, and counts those that fall out."""

    def __init__(self, spec: TrainSpec, tokenizer: TextTokenizer, template: Template, emit: Emit, total: int):
        self._spec, self._tokenizer, self._template, self._emit = spec, tokenizer, template, emit
        self._total, self._done = total, 0
        self.rows: dict[int, list[dict[str, Any]]] = {TRAINED: [], HELD: []}
        self.refusal = ""

    def add(self, example: Example, side: int, counts: Counts) -> None:
        """Write one prompt, or count why it is left out."""
        self._done += 1
        if self._done % _EVERY == 0 or self._done == self._total:
            self._emit(Phase(name="tokenize", done=self._done, total=self._total, unit="rows"))
        try:
            ids = generation_prompt(
                example.messages, self._template, self._tokenizer, self._spec.template.system, example.tools
            )
        except TemplateError as error:
            self.refusal = self.refusal or str(error)
            counts.unwritable += 1
            return
        if len(ids) > self._spec.data.max_length:
            counts.truncated += 1
            counts.dropped += 1
            return
        turns = [{"role": turn.role, "content": turn.content} for turn in example.messages]
        self.rows[side].append(
            {
                "prompt": self._tokenizer.decode(ids),
                "prompt_ids": ids,
                "reference": "" if example.label is None else str(example.label),
                "conversation": json.dumps(turns, ensure_ascii=False),
            }
        )
        if side == TRAINED:
            counts.trained += 1
            counts.mixed += 1
        else:
            counts.held += 1

    def nothing_to_train_on(self) -> DataError | TemplateError:
        if self.refusal:
            return TemplateError(f"Template '{self._template.name}' can write none of the prompts. {self.refusal}")
        return DataError(f"No prompt is within data.max_length = {self._spec.data.max_length} tokens. Raise it.")


def _kept(rows: list[dict[str, Any]], folder: Path) -> Dataset | None:
    """The rows on disk, so that they take no memory while the model trains."""
    if not rows:
        return None
    Dataset.from_list(rows).save_to_disk(str(folder))
    return Dataset.load_from_disk(str(folder))
