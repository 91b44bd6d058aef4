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
from studio.errors import DataError, TemplateError
from studio.events import Emit, Phase
from studio.specs import DataSpec, TrainSpec
from studio.templates import Template, TextTokenizer, encode

IGNORED = -100


@dataclass(frozen=True)
class Rows:
    """Tokenised rows, and counts of the others.

    faulty: could not be read. unwritable: refused by the template. skipped: no supervised token within the cutoff.
    """

    train: Dataset
    held: Dataset | None
    hashes: dict[str, str]
    faulty: int = 0
    unwritable: int = 0
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

    Raises: DataError: nothing to train on, with the reason. TemplateError: the template refuses every row.
    """
    train, held, hashes, faulty = examples_of(spec.data)
    work = _Tokenising(spec, tokenizer, template, emit, total=len(train) + len(held))
    ready = work.dataset(train)
    if ready is None and len(work.refusals) == len(train):
        raise TemplateError(f"Template '{spec.template.name}' can write none of the rows. {work.refusals[0]}")
    if ready is None:
        raise DataError(
            f"Not one of {len(train)} rows has a supervised token within data.max_length = {spec.data.max_length}. "
            "Raise it, or choose another template.supervise."
        )
    return Rows(ready, work.dataset(held), hashes, faulty, len(work.refusals), work.skipped, work.truncated)


class _Tokenising:
    """Tokenises examples one by one, counts those that fall out, and tells how far it is."""

    def __init__(self, spec: TrainSpec, tokenizer: TextTokenizer, template: Template, emit: Emit, *, total: int):
        self._spec, self._tokenizer, self._template, self._emit = spec, tokenizer, template, emit
        self._done, self._total = 0, total
        self.refusals: list[str] = []
        self.skipped = self.truncated = 0

    def dataset(self, examples: list[Example]) -> Dataset | None:
        """Columns input_ids and labels, one row per example that has something to learn; None if no one has."""
        columns: dict[str, list[list[int]]] = {"input_ids": [], "labels": []}
        for example in examples:
            self._tell()
            row = self._row(example)
            if row is not None:
                columns["input_ids"].append(row[0])
                columns["labels"].append(row[1])
        return Dataset.from_dict(columns) if columns["input_ids"] else None

    def _row(self, example: Example) -> tuple[list[int], list[int]] | None:
        try:
            encoded = encode(
                example,
                self._template,
                self._tokenizer,
                supervise=self._spec.template.supervise,
                system=self._spec.template.system,
                max_length=self._spec.data.max_length,
            )
        except TemplateError as error:
            self.refusals.append(str(error))
            return None
        self.truncated += encoded.truncated
        learned = zip(encoded.input_ids, encoded.supervised, strict=True)
        labels = [token if supervised else IGNORED for token, supervised in learned]
        # the first position is never predicted, so it alone would teach nothing
        if all(label == IGNORED for label in labels[1:]):
            self.skipped += 1
            return None
        return encoded.input_ids, labels

    def _tell(self) -> None:
        self._done += 1
        if self._done % 200 == 0 or self._done == self._total:
            self._emit(Phase(name="tokenize", done=self._done, total=self._total, unit="rows"))
