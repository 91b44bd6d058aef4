"""From the datasets of a spec to tokenised rows with labels: the last stop before a trainer.

Not here: how a row is read (studio.data) and how it is written and masked (studio.templates), which the page's preview
calls in just the same way.
"""

from __future__ import annotations

from dataclasses import dataclass

from datasets import Dataset

from studio.data import registry
from studio.data.example import Example
from studio.data.split import key, split
from studio.errors import DataError
from studio.events import Emit, Phase
from studio.specs import DataSpec, TrainSpec
from studio.templates import Template, TextTokenizer, encode

IGNORED = -100


@dataclass(frozen=True)
class Rows:
    """Tokenised rows. faulty: rows that could not be read; skipped: rows without a supervised token in the cutoff."""

    train: Dataset
    held: Dataset | None
    hashes: dict[str, str]
    faulty: int = 0
    skipped: int = 0
    truncated: int = 0


def examples_of(data: DataSpec) -> tuple[list[Example], list[Example], dict[str, str], int]:
    """(training examples, held-out examples, sha256 by dataset, faulty rows), the same at each call.

    Raises: DataError: no dataset is named, one is unknown or has no valid row.
    """
    if not data.datasets:
        raise DataError("No dataset is chosen. Set data.datasets to one or more registered names.")
    found: list[Example] = []
    hashes, faulty = {}, 0
    for name in data.datasets:
        dataset = registry.get(name)
        loaded = registry.examples(dataset, max_samples=data.max_samples)
        hashes[name] = dataset.sha256
        faulty += len(loaded.faults)
        found += [example for _, example in loaded.examples]
    if not found:
        raise DataError(f"{', '.join(data.datasets)}: no valid row. Look at the faults on the Data tab.")
    train, held = split([key(example) for example in found], data.validation_share, data.seed)
    return [found[index] for index in train], [found[index] for index in held], hashes, faulty


def prepare(spec: TrainSpec, tokenizer: TextTokenizer, template: Template, emit: Emit) -> Rows:
    """Read, split, write out and tokenise the rows of a run.

    Raises: DataError: nothing to train on, with the reason.
    """
    train, held, hashes, faulty = examples_of(spec.data)
    total, done = len(train) + len(held), 0
    skipped = truncated = 0

    def tokenised(examples: list[Example]) -> Dataset | None:
        nonlocal done, skipped, truncated
        columns: dict[str, list[list[int]]] = {"input_ids": [], "labels": []}
        for example in examples:
            encoded = encode(
                example,
                template,
                tokenizer,
                supervise=spec.template.supervise,
                system=spec.template.system,
                max_length=spec.data.max_length,
            )
            labels = [
                token if learned else IGNORED
                for token, learned in zip(encoded.input_ids, encoded.supervised, strict=True)
            ]
            truncated += encoded.truncated
            # the first position is never predicted, so it alone would teach nothing
            if any(label != IGNORED for label in labels[1:]):
                columns["input_ids"].append(encoded.input_ids)
                columns["labels"].append(labels)
            else:
                skipped += 1
            done += 1
            if done % 200 == 0 or done == total:
                emit(Phase(name="tokenize", done=done, total=total, unit="rows"))
        return Dataset.from_dict(columns) if columns["input_ids"] else None

    ready = tokenised(train)
    if ready is None:
        raise DataError(
            f"Not one of {len(train)} rows has a supervised token within data.max_length = {spec.data.max_length}. "
            "Raise it, or choose another template.supervise."
        )
    return Rows(ready, tokenised(held), hashes, faulty, skipped, truncated)
