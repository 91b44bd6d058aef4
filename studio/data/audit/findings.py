"""Where an audit found something, on disk: one array of positions per kind of finding, read without loading it.

Positions count from 0 over all rows of the dataset, good and bad, and rise. Not here: figures (report), looking for
findings (the other modules).
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from studio.data import faults
from studio.data.example import BadRow, Row
from studio.data.registry import Dataset
from studio.errors import DataError, unknown
from studio.home import write_atomically

KINDS = (
    "fault",
    "duplicate",
    "near_duplicate",
    "conflict",
    "leak",
    "special_token",
    "truncated",
    "unsupervised",
    "unwritable",
)
"""Each with its file KIND.npy, if it was looked for. Four of them name a partner: the row that it repeats, say."""

OF_TOKENS = ("special_tokens", "truncated", "unsupervised", "unwritable")
"""Figures that only an audit with a model has."""
MOST_TEXT = 100_000
"""Characters of a faulty row that are kept."""
_ABOUT = "about.json"


# --- written by the audit


def begin(folder: Path, dataset: Dataset, settings: dict[str, Any]) -> None:
    """Make the folder, and note which rows, read in which way, its findings are about, and how they were looked for."""
    folder.mkdir(parents=True)
    about = {"about": _identity(dataset), "settings": settings}
    write_atomically(folder / _ABOUT, json.dumps(about, ensure_ascii=False))


def save(folder: Path, kind: str, positions: np.ndarray) -> None:
    """positions: (n,), or (n, 2) with a partner for each; ascending, each position once."""
    np.save(folder / f"{kind}.npy", positions, allow_pickle=False)


class Lines:
    """Rows that were refused, all of them, as JSON lines; the first few are kept in memory too."""

    def __init__(self, path: Path, most_kept: int):
        self._positions = array("q")
        self.kept: list[dict[str, Any]] = []
        self._file: IO[str] = path.open("w", encoding="utf-8")
        self._most = most_kept

    def add(self, position: int, row: Row, bad: BadRow) -> None:
        told = {"file": bad.file, "row": bad.row, "field": bad.field, "reason": bad.reason}
        if len(self.kept) < self._most:
            self.kept.append(told)
        self._positions.append(position)
        whole = told | {"position": position, "text": faults.text(row)[:MOST_TEXT]}
        self._file.write(json.dumps(whole, ensure_ascii=False) + "\n")

    @property
    def positions(self) -> np.ndarray:
        return np.array(self._positions, dtype=np.int64)

    def close(self) -> None:
        self._file.close()


# --- read by the page, the shell and the remedies


def are_about(folder: Path, dataset: Dataset) -> bool:
    """Whether the findings are about the present rows of a dataset, read as they are read now."""
    return _about(folder).get("about") == _identity(dataset)


def settings(folder: Path) -> dict[str, Any]:
    """The spec of the audit."""
    return _about(folder).get("settings", {})


def looked_for(folder: Path) -> list[str]:
    """The kinds of findings that the audit looked for."""
    return [kind for kind in KINDS if (folder / f"{kind}.npy").is_file()]


def count(folder: Path, kind: str) -> int:
    return len(load(folder, kind))


def positions(folder: Path, kind: str, start: int = 0, count: int | None = None) -> list[int]:
    """Some of the positions of a kind, from the one at `start` on. Raises: DataError: see load()."""
    found = load(folder, kind)[start : None if count is None else start + count]
    return (found if found.ndim == 1 else found[:, 0]).tolist()


def partner(folder: Path, kind: str, position: int) -> int | None:
    """The row that a row repeats, contradicts or leaks from; None if it does not, or if the kind has no partners.

    A leak's partner is a position in the other dataset, if there was one. Raises: DataError: see load().
    """
    found = load(folder, kind)
    if found.ndim == 1:
        return None
    place = int(np.searchsorted(found[:, 0], position))
    return int(found[place, 1]) if place < len(found) and found[place, 0] == position else None


def at(folder: Path, position: int) -> dict[str, int | None]:
    """What was found at one row: kind -> its partner, or None where the kind has no partners."""
    return dict(_at(folder, position))


def load(folder: Path, kind: str) -> np.ndarray:
    """All positions of a kind, (n,) or (n, 2), mapped from disk.

    Raises: DataError: there is no such kind, the audit did not look for it, or the file is damaged.
    """
    if kind not in KINDS:
        raise DataError(unknown("finding", kind, KINDS))
    path = folder / f"{kind}.npy"
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise DataError(f"This audit did not look for {kind}. {_HOW.get(kind, 'Audit the dataset again.')}") from error
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} cannot be read. Audit the dataset again.") from error


_TOKENS = "Name a model in the audit to count tokens."
_HOW = {
    "near_duplicate": "Switch near_duplicates on.",
    "leak": "Name the other dataset in against, or set validation_share.",
    "special_token": _TOKENS,
    "truncated": _TOKENS,
    "unsupervised": _TOKENS,
    "unwritable": _TOKENS,
}


def _at(folder: Path, position: int) -> Iterable[tuple[str, int | None]]:
    for kind in looked_for(folder):
        found = load(folder, kind)
        rows = found if found.ndim == 1 else found[:, 0]
        place = int(np.searchsorted(rows, position))
        if place < len(rows) and rows[place] == position:
            yield kind, None if found.ndim == 1 else int(found[place, 1])


def unwritable(folder: Path) -> Iterator[dict[str, Any]]:
    """The rows that the template refused, with its words."""
    path = folder / "unwritable.jsonl"
    if path.is_file():
        with path.open(encoding="utf-8") as file:
            yield from map(json.loads, file)


def _about(folder: Path) -> dict[str, Any]:
    try:
        about = json.loads((folder / _ABOUT).read_bytes())
    except (OSError, ValueError):
        return {}
    return about if isinstance(about, dict) else {}


def _identity(dataset: Dataset) -> dict[str, Any]:
    return {
        "sha256": dataset.sha256,
        "format": dataset.format,
        "columns": dataset.columns,
        "tags": dataset.tags,
    }
