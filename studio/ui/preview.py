"""One row of a dataset as a model would be trained on it: found, read, written by a template, tokenized.

Nothing heavy is imported, and nothing is downloaded. Not here: how it looks (studio.ui.token_view).
"""

from __future__ import annotations

from dataclasses import dataclass

from studio import templates
from studio.data import registry
from studio.data.example import BadRow, Example
from studio.data.learning import UNLEARNED, sft
from studio.engine.models.tokenizer import NotHere
from studio.engine.models.tokenizer import tokenizer_of as tokenizer
from studio.errors import DataError
from studio.templates import Encoded, Supervise, Template, TextTokenizer

__all__ = ["NotHere", "Written", "example", "tokenizer", "written"]


@dataclass(frozen=True)
class Written:
    """A row as text and tokens. rows: how many the dataset has."""

    encoded: Encoded
    template: Template
    tokenizer: TextTokenizer
    rows: int


def example(dataset: str, row: int) -> tuple[Example, int]:
    """What is learned from a row, counted from 1, and how many rows the dataset has.

    Raises: DataError: there is no such dataset or row, or nothing is learned from it.
    """
    found = registry.get(dataset)
    rows = registry.rows(found, row - 1, 1)
    if not rows:
        raise DataError(f"Dataset '{dataset}' has no row {row}; its last is {found.rows}.")
    outcome = registry.example(rows[0], found.how)
    if isinstance(outcome, BadRow):
        raise DataError(f"{dataset}, {str(outcome)[:1].lower()}{str(outcome)[1:]} It is never trained on.")
    if outcome is None:
        raise DataError(f"Dataset '{dataset}' has no format. Remove and add it again.")
    learned = sft(outcome)
    if learned is None:
        raise DataError(f"{dataset}, row {row} {UNLEARNED[outcome.kind].one}, so nothing is learned from it.")
    return learned, found.rows


def written(
    model: str, template: str, dataset: str, row: int, *, supervise: Supervise = "assistant", system: str | None = None
) -> Written:
    """The row, encoded whole. Raises: StudioError: what stands in the way."""
    reader = tokenizer(model)
    chosen = templates.resolve(template, reader)
    one, rows = example(dataset, row)
    encoded = templates.encode(one, chosen, reader, supervise=supervise, system=system)
    return Written(encoded, chosen, reader, rows)
