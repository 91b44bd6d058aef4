"""The story of a classifier's evaluation: the label of each row, how sure it was, and what the untrained head said.

Not here: models that write (studio.engine.evaluation.answers), and the scores (studio.engine.metrics.classification).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from studio.data import registry
from studio.data.example import Example
from studio.data.learning import classify
from studio.engine.evaluation.classifying import pad_token, probabilities
from studio.engine.held import ADAPTER, BASE
from studio.engine.metrics.classification import scores
from studio.engine.models.load import recorded
from studio.engine.rows.conversations import examples_of
from studio.engine.rows.labelled import shortened, text_ids
from studio.engine.trained import Trained, open_beside_base
from studio.errors import DataError, ModelError
from studio.events import Emit, Measured, Note, Phase
from studio.specs import EvaluateSpec, TrainSpec

SUBJECTS = {"base": BASE, "adapter": ADAPTER}
_BATCHES_AT_ONCE = 8
"""So many batches are sorted by length and measured before the next lines are written."""


class _Row(NamedTuple):
    number: int
    text: str
    label: str
    ids: list[int]


def evaluate_labels(
    spec: EvaluateSpec,
    *,
    trained: TrainSpec,
    adapter: Path,
    predictions: Path,
    emit: Emit,
    stopping: Callable[[], bool],
) -> Path | None:
    """Measure, and write one JSON line per row to `predictions` as it goes.

    Each line: row, text, label, predicted, probability (of what was predicted), and before: the same two of the base
    with its head as it was when the run began.
    Returns: predictions, or None if it was stopped before the last row; the rows measured until then stay.
    Raises: StudioError: the run, its base or the rows cannot be used.
    """
    examples = _examples(spec, trained, emit)
    labels = recorded(adapter, "labels")
    if not labels:
        raise ModelError(f"{adapter} does not say which labels it tells apart. Use another checkpoint.")
    opened = open_beside_base(trained, adapter, emit)
    rows = list(_rows(examples, trained, labels, opened, emit))
    if not rows:
        raise DataError(f"No row has one of the labels that the run learned: {', '.join(labels[:20])}.")
    counts: dict[str, Counter[tuple[str, str]]] = {subject: Counter() for subject in SUBJECTS}
    done = 0
    with predictions.open("w", encoding="utf-8") as file:
        while done < len(rows) and not stopping():
            emit(Phase(name="evaluate", done=done, total=len(rows), unit="rows"))
            batch = rows[done : done + spec.batch_size * _BATCHES_AT_ONCE]
            said = {subject: _said(opened, subject, batch, labels, spec.batch_size) for subject in counts}
            for index, row in enumerate(batch):
                line = {"row": row.number, "text": row.text, "label": row.label, **said["adapter"][index]}
                file.write(json.dumps(line | {"before": said["base"][index]}, ensure_ascii=False) + "\n")
            file.flush()
            done += len(batch)
            for subject, found in counts.items():
                found.update((row.label, said[subject][index]["predicted"]) for index, row in enumerate(batch))
                emit(Measured(subject=subject, scores=scores(found)))
    emit(Phase(name="evaluate", done=done, total=len(rows), unit="rows"))
    return predictions if done == len(rows) else None


def _examples(spec: EvaluateSpec, trained: TrainSpec, emit: Emit) -> list[Example]:
    """The rows to measure; of more than are wanted, so many at equal distances, because files are sorted by label."""
    if spec.dataset:
        outcomes = (outcome for _, outcome in registry.outcomes(registry.get(spec.dataset)))
        found = [learned for each in outcomes if isinstance(each, Example) and (learned := classify(each)) is not None]
        if not found:
            raise DataError(f"{spec.dataset} has no row with a label to measure by. Look at its rows on the Data tab.")
        if spec.dataset in trained.data.datasets:
            emit(Note(text=f"The run was trained on {spec.dataset}: this measures memory, not what was learned."))
    else:
        found, held = examples_of(trained.data, trained.stage.kind, balance=trained.stage.balance)
        if not held:
            emit(Note(text="The run held no rows out, so these are its training rows: memory, not what was learned."))
    most = min(len(found), spec.max_samples or len(found))
    return [found[place * len(found) // most] for place in range(most)]


def _rows(
    examples: Sequence[Example], trained: TrainSpec, labels: Sequence[str], opened: Trained, emit: Emit
) -> Iterator[_Row]:
    foreign: Counter[str] = Counter()
    for number, example in enumerate(examples, start=1):
        label = str(example.label)
        ids: list[int] | None = text_ids(example.text or "", opened.text_tokenizer)
        if len(ids) > trained.data.max_length:
            ids = shortened(ids, opened.text_tokenizer, trained.data)
        if label not in labels:
            foreign[label] += 1
        elif ids is not None:
            yield _Row(number, example.text or "", label, ids)
    if foreign:
        shown = ", ".join(sorted(foreign)[:10])
        emit(Note(text=f"{foreign.total()} rows have labels that the run did not learn and are left out: {shown}."))


def _said(
    opened: Trained, subject: str, batch: Sequence[_Row], labels: Sequence[str], batch_size: int
) -> list[dict[str, Any]]:
    """For each row the likeliest label and its probability."""
    with opened.model.using(SUBJECTS[subject]) as model:
        pad = pad_token(model, opened.tokenizer)
        found = probabilities(model, [row.ids for row in batch], pad=pad, batch_size=batch_size)
    best = [max(range(len(labels)), key=each.__getitem__) for each in found]
    return [
        {"predicted": labels[top], "probability": round(each[top], 6)} for top, each in zip(best, found, strict=True)
    ]
