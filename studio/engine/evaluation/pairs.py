"""The story of a reward model's evaluation: what it says of both answers of each row, and what its untrained head said.

Not here: models that write (studio.engine.evaluation.answers), and the scores (studio.engine.metrics.pairs).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from studio.data import registry
from studio.data.example import Example
from studio.data.learning import preference
from studio.engine.evaluation.judging import rewards, texts
from studio.engine.metrics.pairs import scores
from studio.engine.rows.conversations import examples_of
from studio.engine.trained import Trained, open_trained
from studio.errors import DataError
from studio.events import Emit, Measured, Note, Phase
from studio.specs import EvaluateSpec, TrainSpec


class _Row(NamedTuple):
    number: int
    example: Example
    chosen: list[int]
    rejected: list[int]


def evaluate_pairs(
    spec: EvaluateSpec,
    *,
    trained: TrainSpec,
    adapter: Path,
    predictions: Path,
    emit: Emit,
    stopping: Callable[[], bool],
) -> Path | None:
    """Measure, and write one JSON line per row to `predictions` as it goes.

    Each line: row, prompt, reference (the chosen answer), rejected, and for adapter and, where it can be had, base (the
    head as it was before training) the scores of both answers, chosen and rejected.
    Returns: predictions, or None if it was stopped before the last row; the rows measured until then stay.
    Raises: StudioError: the run, its base or the rows cannot be used.
    """
    examples = _examples(spec, trained, emit)
    opened = open_trained(trained, adapter, emit)
    rows = list(_rows(examples, trained, opened, emit))
    if not rows:
        raise DataError("No row has two answers that differ within the cutoff, so there is nothing to measure.")
    subjects = ("base", "adapter") if hasattr(opened.model, "disable_adapter") else ("adapter",)
    said: dict[str, tuple[list[float], list[float]]] = {subject: ([], []) for subject in subjects}
    done = 0
    with predictions.open("w", encoding="utf-8") as file:
        while done < len(rows) and not stopping():
            emit(Phase(name="evaluate", done=done, total=len(rows), unit="rows"))
            batch = rows[done : done + spec.batch_size]
            for subject, sides in said.items():
                for side, found in zip(sides, _said(opened, subject, batch), strict=True):
                    side.extend(found)
                emit(Measured(subject=subject, scores=scores(*sides)))
            for index, row in enumerate(batch, start=done):
                found = {
                    subject: {"chosen": round(chosen[index], 6), "rejected": round(rejected[index], 6)}
                    for subject, (chosen, rejected) in said.items()
                }
                file.write(json.dumps(_line(row) | found, ensure_ascii=False) + "\n")
            file.flush()
            done += len(batch)
    emit(Phase(name="evaluate", done=done, total=len(rows), unit="rows"))
    return predictions if done == len(rows) else None


def _examples(spec: EvaluateSpec, trained: TrainSpec, emit: Emit) -> list[Example]:
    if not spec.dataset:
        found, held = examples_of(trained.data, trained.stage.kind, most=spec.max_samples)
        if not held:
            emit(Note(text="The run held no rows out, so these are its training rows: memory, not what was learned."))
        return found
    outcomes = (outcome for _, outcome in registry.outcomes(registry.get(spec.dataset)))
    pairs = (pair for each in outcomes if isinstance(each, Example) and (pair := preference(each)) is not None)
    found = list(islice(pairs, spec.max_samples))
    if not found:
        raise DataError(f"{spec.dataset} has no row with two answers to measure by. Look at its rows on the Data tab.")
    if spec.dataset in trained.data.datasets:
        emit(Note(text=f"The run was trained on {spec.dataset}: this measures memory, not what was learned."))
    return found


def _rows(examples: Sequence[Example], trained: TrainSpec, opened: Trained, emit: Emit) -> Iterator[_Row]:
    found = texts(examples, trained, opened.template, opened.text_tokenizer)
    for number, (example, sides) in enumerate(zip(examples, found, strict=True), start=1):
        if sides:
            yield _Row(number, example, *sides)
    if without := found.count(()):
        emit(Note(text=f"{without} rows have no two answers that differ within the cutoff and are left out."))


def _said(opened: Trained, subject: str, batch: Sequence[_Row]) -> tuple[list[float], list[float]]:
    """The scores of the chosen and of the rejected answers."""
    both = [row.chosen for row in batch] + [row.rejected for row in batch]
    with opened.model.disable_adapter() if subject == "base" else nullcontext():
        found = rewards(opened.model, both, tokenizer=opened.tokenizer, batch_size=2 * len(batch))
    return found[: len(batch)], found[len(batch) :]


def _line(row: _Row) -> dict[str, object]:
    asked = next((turn.content for turn in reversed(row.example.messages) if turn.role == "user"), "")
    rejected = row.example.rejected[-1].content
    return {"row": row.number, "prompt": asked, "reference": row.example.answer, "rejected": rejected}
