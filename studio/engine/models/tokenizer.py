"""The tokenizer of a model that is on this machine, without transformers and without a download.

Not here: what a tokenizer does (studio.templates.tokenizer), and fetching a model (resolve).
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from studio.engine.models import resolve
from studio.engine.models.resolve import Kind
from studio.errors import ModelError
from studio.templates import TextTokenizer


class NotHere(ModelError):
    """The model is not on this machine yet; a run would fetch it. kind: bundled, folder or hub."""

    def __init__(self, name: str, kind: Kind):
        self.kind = kind
        if kind == "folder":
            super().__init__(f"There is no model folder {name}. Correct the path, or name a hub id.")
        else:
            super().__init__(f"{name} is not on this machine yet; the first run fetches it.")


def tokenizer_of(model: str) -> TextTokenizer:
    """The tokenizer of a model, as it lies here.

    Raises: NotHere: it does not. ModelError: the name or the files are wrong.
    """
    found = resolve.peek(model)
    if not found.where:
        raise NotHere(model, found.kind)
    path = Path(found.where) / "tokenizer.json"
    modified = path.stat().st_mtime_ns if path.is_file() else 0
    return _read(Path(found.where), modified)


@lru_cache(maxsize=2)
def _read(folder: Path, modified: int) -> TextTokenizer:
    """modified: of its tokenizer.json, so that a changed one is read anew."""
    return TextTokenizer.from_folder(folder)
