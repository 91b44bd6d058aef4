"""One row of a dataset as a model would be trained on it: found, read, written by a template, tokenized.

Nothing heavy is imported, and nothing is downloaded. Not here: how it looks (studio.ui.token_view).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from studio import templates
from studio.data import registry
from studio.data.example import BadRow, Example
from studio.engine.models import resolve
from studio.engine.models.resolve import Kind
from studio.errors import DataError, ModelError
from studio.templates import Encoded, Supervise, Template, TextTokenizer
from studio.ui import dataset_view


class NotHere(ModelError):
    """The model is not on this machine yet; a run would fetch it. kind: bundled, folder or hub."""

    def __init__(self, name: str, kind: Kind):
        self.kind = kind
        if kind == "folder":
            super().__init__(f"There is no model folder {name}. Correct the path, or name a hub id.")
        else:
            super().__init__(f"{name} is not on this machine yet; the first run fetches it.")


@dataclass(frozen=True)
class Written:
    """A row as text and tokens. rows: how many the dataset has."""

    encoded: Encoded
    template: Template
    tokenizer: TextTokenizer
    rows: int


def tokenizer(model: str) -> TextTokenizer:
    """The tokenizer of a model that is on this machine.

    Raises: NotHere: it is not. ModelError: the name or the files are wrong.
    """
    found = resolve.peek(model)
    path = Path(found.where) / "tokenizer.json"
    if not found.where:
        raise NotHere(model, found.kind)
    modified = path.stat().st_mtime_ns if path.is_file() else 0
    return _read(Path(found.where), modified)


def example(dataset: str, row: int) -> tuple[Example, int]:
    """The example of a row, counted from 1, and how many rows the dataset has.

    Raises: DataError: there is no such dataset or row, or the row is faulty.
    """
    found = registry.get(dataset)
    rows = registry.rows(found, row - 1, 1)
    if not rows:
        raise DataError(f"Dataset '{dataset}' has no row {row}; its last is {found.rows}.")
    outcome = registry.example(rows[0], dataset_view.how(found))
    if isinstance(outcome, BadRow):
        raise DataError(f"{dataset}, {str(outcome)[:1].lower()}{str(outcome)[1:]} Training leaves this row out.")
    if outcome is None:
        raise DataError(f"Dataset '{dataset}' has no format. Remove and add it again.")
    return outcome, found.rows


def written(
    model: str, template: str, dataset: str, row: int, *, supervise: Supervise = "assistant", system: str | None = None
) -> Written:
    """The row, encoded whole. Raises: StudioError: what stands in the way."""
    reader = tokenizer(model)
    chosen = templates.resolve(template, reader)
    one, rows = example(dataset, row)
    encoded = templates.encode(one, chosen, reader, supervise=supervise, system=system)
    return Written(encoded, chosen, reader, rows)


@lru_cache(maxsize=2)
def _read(folder: Path, modified: int) -> TextTokenizer:
    """modified: of its tokenizer.json, so that a changed one is read anew."""
    return TextTokenizer.from_folder(folder)
