"""The story of one evaluation: loss and answers of the base and of what a run made of it, on the same rows.

Not here: the scores themselves (studio.engine.metrics) and the job around it (studio.jobs.worker).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from studio.data import registry
from studio.data.example import Example, Message
from studio.data.learning import sft
from studio.engine.evaluation.labels import evaluate_labels
from studio.engine.evaluation.pairs import evaluate_pairs
from studio.engine.generate import BASE, Request, complete
from studio.engine.metrics.likelihood import Likelihood, likelihoods, total
from studio.engine.rows.conversations import examples_of
from studio.engine.trained import ADAPTER, Trained, open_beside_base
from studio.errors import DataError, TemplateError
from studio.events import Emit, Measured, Note, Phase
from studio.specs import EvaluateSpec, Sampling, TrainSpec
from studio.templates import Encoded, Policy, encode, generation_prompt, stop_tokens

SUBJECTS = {"base": BASE, "adapter": ADAPTER}


@dataclass(frozen=True)
class _Row:
    """One row to measure. messages: those before the last answer; None for plain text, which has no answer."""

    number: int
    encoded: Encoded
    messages: tuple[Message, ...] | None
    reference: str
    tools: str = ""


def evaluate(
    spec: EvaluateSpec,
    *,
    trained: TrainSpec,
    adapter: Path,
    predictions: Path,
    emit: Emit,
    stopping: Callable[[], bool],
) -> Path | None:
    """Measure, and write one JSON line per row to `predictions` as it goes.

    Each line: row, prompt, reference, and for base and adapter each: loss (mean nats per supervised token), answer.
    For a classifier see evaluate_labels, for a reward model evaluate_pairs.
    Returns: predictions, or None if it was stopped before the last row; the rows measured until then stay.
    Raises: StudioError: the run, its base or the rows cannot be used.
    """
    if trained.stage.kind == "classify":
        return evaluate_labels(
            spec, trained=trained, adapter=adapter, predictions=predictions, emit=emit, stopping=stopping
        )
    if trained.stage.kind == "reward":
        return evaluate_pairs(
            spec, trained=trained, adapter=adapter, predictions=predictions, emit=emit, stopping=stopping
        )
    examples = _examples(spec, trained, emit)
    opened = open_beside_base(trained, adapter, emit)
    rows = list(_rows(examples, trained, opened, emit))
    if not rows:
        raise DataError("No row has a supervised token within the cutoff, so there is nothing to measure.")
    sums: dict[str, list[Likelihood]] = {subject: [] for subject in SUBJECTS}
    with predictions.open("w", encoding="utf-8") as file:
        for start in range(0, len(rows), spec.batch_size):
            if stopping():
                break
            emit(Phase(name="evaluate", done=start, total=len(rows), unit="rows"))
            batch = rows[start : start + spec.batch_size]
            losses = {subject: _likelihoods(opened, subject, batch) for subject in SUBJECTS}
            answers = _answers(opened, batch, spec, trained) if spec.generate else {}
            for subject, found in losses.items():
                sums[subject] += found
            for index, row in enumerate(batch):
                file.write(json.dumps(_line(index, row, losses, answers), ensure_ascii=False) + "\n")
            file.flush()
            for subject, parts in sums.items():
                emit(Measured(subject=subject, scores=total(parts).scores() | {"rows": float(len(parts))}))
    emit(Phase(name="evaluate", done=sum(len(parts) for parts in sums.values()) // 2, total=len(rows), unit="rows"))
    return predictions if len(sums["base"]) == len(rows) else None


def _examples(spec: EvaluateSpec, trained: TrainSpec, emit: Emit) -> list[Example]:
    if not spec.dataset:
        chosen, held = examples_of(trained.data, trained.stage.kind, most=spec.max_samples)
        if not held:
            emit(Note(text="The run held no rows out, so these are its training rows: memory, not what was learned."))
        answered = [each for example in chosen if (each := _answered(example)) is not None]
        if not answered:
            raise DataError("No row of the run has an answer to measure by. Name a dataset that has some.")
        return answered
    chosen = list(islice(_learnable(spec.dataset), spec.max_samples))
    if not chosen:
        raise DataError(f"{spec.dataset} has no row with an answer to measure by. Look at its rows on the Data tab.")
    if spec.dataset in trained.data.datasets:
        emit(Note(text=f"The run was trained on {spec.dataset}: this measures memory, not what was learned."))
    return chosen


def _learnable(dataset: str) -> Iterator[Example]:
    for _, outcome in registry.outcomes(registry.get(dataset)):
        if isinstance(outcome, Example) and (learned := sft(outcome)) is not None:
            yield learned


def _answered(example: Example) -> Example | None:
    """An example of any stage with the answer that is wanted: the better one, or the reference of a prompt."""
    if example.kind == "prompt" and isinstance(example.label, str):
        return Example((*example.messages, Message("assistant", example.label)), tools=example.tools)
    return sft(example)


def _rows(examples: list[Example], trained: TrainSpec, opened: Trained, emit: Emit) -> Iterator[_Row]:
    without = 0
    for number, example in enumerate(examples, start=1):
        try:
            encoded = encode(example, opened.template, opened.text_tokenizer, Policy.of(trained.template, trained.data))
        except TemplateError as error:
            emit(Note(text=f"Row {number} is left out: {error}"))
            continue
        if not encoded.learns:
            without += 1
            continue
        messages = example.messages
        last = max((place for place, message in enumerate(messages) if message.role == "assistant"), default=None)
        if last is None:
            yield _Row(number, encoded, None, "")
        else:
            yield _Row(number, encoded, messages[:last], messages[last].content, example.tools)
    if without:
        emit(Note(text=f"{without} rows have no supervised token within the cutoff and are left out."))


def _likelihoods(opened: Trained, subject: str, batch: list[_Row]) -> list[Likelihood]:
    rows = [(row.encoded.input_ids, row.encoded.supervised) for row in batch]
    with opened.model.using(SUBJECTS[subject]) as model:
        return likelihoods(model, rows)


def _answers(opened: Trained, batch: list[_Row], spec: EvaluateSpec, trained: TrainSpec) -> dict[tuple[str, int], str]:
    """Answers by (subject, index in the batch); base and adapter of all rows in one batch of the model."""
    stop = frozenset(stop_tokens(opened.template, opened.text_tokenizer))
    sampling = Sampling(max_tokens=spec.max_new_tokens)
    keys: list[tuple[str, int]] = []
    requests: list[Request] = []
    for index, row in enumerate(batch):
        if row.messages is not None:
            prompt = generation_prompt(
                row.messages,
                opened.template,
                opened.text_tokenizer,
                system=trained.template.system,
                tools=row.tools,
            )
            for subject, name in SUBJECTS.items():
                keys.append((subject, index))
                requests.append(Request(prompt, name, sampling, stop))
    written = complete(opened.model, requests) if requests else []
    return {key: opened.text_tokenizer.decode(ids) for key, ids in zip(keys, written, strict=True)}


def _line(index: int, row: _Row, losses: dict[str, list[Likelihood]], answers: dict[Any, str]) -> dict[str, Any]:
    prompt = row.messages[-1].content if row.messages else row.encoded.text
    line: dict[str, Any] = {"row": row.number, "prompt": prompt, "reference": row.reference}
    for subject in SUBJECTS:
        line[subject] = {"loss": round(losses[subject][index].loss, 6), "answer": answers.get((subject, index))}
    return line
