"""The registered datasets: the shipped ones in data/, and the user's under STUDIO_HOME, one JSON file each.

Not here: reading files (studio.data.readers), what a row means (studio.data.formats), uploads by the page (studio.ui).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

from filelock import FileLock

from studio.data import formats, readers, uploads
from studio.data.example import BadRow, Example, RowFault
from studio.data.formats import Detection
from studio.data.readers import Row
from studio.errors import DataError, unknown
from studio.home import SHIPPED_DATA, checked_name, home, write_atomically

PREVIEW_ROWS = 200
LISTED_FAULTS = 200
UPLOAD = re.compile(r"[0-9a-f]{64}\.[a-z]+")
"""An upload is stored under the sha256 of its content."""


@dataclass(frozen=True)
class Dataset:
    """Registered rows. columns: part -> column. tags: words of the format. rows: how many there are, good and bad."""

    name: str
    path: Path
    format: str
    columns: dict[str, str]
    tags: dict[str, str]
    rows: int
    sha256: str
    shipped: bool = False
    title: str = ""
    title_zh: str = ""
    language: str = ""
    licence: str = ""
    description: str = ""


@dataclass(frozen=True)
class Inspection:
    """What a file holds. valid: rows that become examples. faults: the first ones; faults_total: all of them."""

    detection: Detection
    preview: list[Row]
    columns: list[str]
    rows: int
    valid: int
    faults: list[BadRow]
    faults_total: int


@dataclass(frozen=True)
class Loaded:
    """The examples of a dataset with their row numbers, and the rows that were left out."""

    examples: list[tuple[int, Example]] = field(default_factory=list)
    faults: list[BadRow] = field(default_factory=list)


def every() -> list[Dataset]:
    """All datasets, the shipped ones first, then the user's by name. Damaged entries are set aside; see problems()."""
    return [*_shipped().values(), *sorted(_own().values(), key=lambda each: each.name.lower())]


def problems() -> list[str]:
    """What is wrong with the user's registry, in sentences: entries set aside, and entries whose rows are gone."""
    own = _own().values()
    aside = sorted(home().datasets.glob("*.corrupt"))
    lost = [each for each in own if not each.path.is_file()]
    return [
        *(f"The entry {path.stem} was damaged and was set aside as {path}. Register the file again." for path in aside),
        *(f"The rows of dataset '{each.name}' are gone from {each.path}. Remove and add it again." for each in lost),
    ]


def get(name: str) -> Dataset:
    """A dataset by its name. Raises: DataError: there is none; the nearest name is suggested."""
    known = {each.name: each for each in every()}
    if name not in known:
        raise DataError(unknown("dataset", name, known))
    return known[name]


def inspect(
    path: Path,
    *,
    format: str | None = None,
    columns: Mapping[str, str] | None = None,
    tags: Mapping[str, str] | None = None,
) -> Inspection:
    """Read a file once and say what is in it. format, columns, tags: chosen ones, in place of the detected ones.

    A part whose column is an empty text is played by none.
    Raises: DataError: the file cannot be read, or there is no format of this name.
    """
    rows = readers.read(path)
    start = list(islice(rows, PREVIEW_ROWS))
    detection = _chosen(start, format, columns, tags)
    count, valid, names, faults, total = 0, 0, {}, [], 0
    for row in _chain(start, rows):
        count += 1
        names.update(dict.fromkeys(row.values or ()))
        outcome = example(row, detection)
        valid += isinstance(outcome, Example)
        if isinstance(outcome, BadRow):
            total += 1
            faults += [outcome] if len(faults) < LISTED_FAULTS else []
    return Inspection(detection, start, list(names), count, valid, faults, total)


def add(
    source: Path | str, name: str, *, format: str | None = None, columns: Mapping[str, str] | None = None
) -> Dataset:
    """Copy a file into STUDIO_HOME and register it. The same file under the same name again changes nothing.

    Raises:
        DataError: the source is refused or too large, no row of it is valid, or the name is taken by other rows.
        StudioError: the name cannot be a file name.
    """
    checked_name(name, "dataset name")
    with uploads.taken_in(source) as upload:
        found = inspect(upload.path, format=format, columns=columns)
        _refuse_if_nothing_valid(upload.name, found)
        with _lock():
            existing = {each.name.lower(): each for each in every()}.get(name.lower())
            if existing is not None:
                return _same(existing, upload.sha256, found.detection)
            dataset = Dataset(
                name=name,
                path=upload.keep(),
                format=str(found.detection.format),
                columns=found.detection.columns,
                tags=found.detection.tags,
                rows=found.rows,
                sha256=upload.sha256,
                title=upload.name,
            )
            _write(home().datasets / f"{name}.json", dataset)
    return dataset


def remove(name: str) -> None:
    """Forget one of the user's datasets, and delete its rows if no other dataset uses them.

    Raises: DataError: there is none of this name, or it is a shipped one.
    """
    with _lock():
        dataset = get(name)
        if dataset.shipped:
            raise DataError(f"Dataset '{name}' comes with the studio and cannot be removed.")
        (home().datasets / f"{name}.json").unlink(missing_ok=True)
        if all(each.path != dataset.path for each in _own().values()):
            dataset.path.unlink(missing_ok=True)


def examples(dataset: Dataset, *, max_samples: int | None = None) -> Loaded:
    """The first examples of a dataset, and the rows among them that are faulty.

    Raises: DataError: the file is gone, was changed since it was registered, or cannot be read.
    """
    if readers.sha256(dataset.path) != dataset.sha256:
        raise DataError(f"The rows of dataset '{dataset.name}' changed since it was added. Remove and add it again.")
    how = Detection(dataset.format, 1.0, "", dataset.columns, dataset.tags)
    loaded = Loaded()
    for row in readers.read(dataset.path):
        if max_samples is not None and len(loaded.examples) >= max_samples:
            break
        outcome = example(row, how)
        if isinstance(outcome, BadRow):
            loaded.faults.append(outcome)
        elif outcome is not None:
            loaded.examples.append((row.number, outcome))
    return loaded


def rows(dataset: Dataset, start: int = 0, count: int = PREVIEW_ROWS) -> list[Row]:
    """Some rows as they are in the file, for browsing. start: how many to pass over."""
    return list(islice(readers.read(dataset.path), start, start + count))


# --- From rows to examples ---


def _chain(start: list[Row], rest: Iterator[Row]) -> Iterator[Row]:
    yield from start
    yield from rest


def _chosen(
    start: list[Row], format: str | None, columns: Mapping[str, str] | None, tags: Mapping[str, str] | None
) -> Detection:
    """The detected format, or the chosen one with the columns that it usually has, or the chosen columns."""
    values = [row.values for row in start if row.values is not None]
    found = formats.detect(values)
    if format is None and not columns:
        return found
    name = format or found.format
    if name is None:
        raise DataError("The columns are chosen, but not the format. Choose one of " + ", ".join(formats.FORMATS) + ".")
    chosen = formats.get(name)
    fit = chosen.detect(values) if values else None
    usual = fit.columns if fit else {}
    mapped = {part: column for part, column in {**usual, **(columns or {})}.items() if column}
    if wrong := sorted(set(mapped) - set(chosen.columns)):
        raise DataError(f"{unknown(f'part of format {name}', wrong[0], chosen.columns)}")
    guess = fit.tags if fit else {}
    return Detection(name, fit.value if fit else 0.0, "Chosen by hand.", mapped, dict(tags or guess))


def example(row: Row, how: Detection) -> Example | BadRow | None:
    """What a row becomes when it is read like this. None: there is no format to read it by."""
    if row.values is None:
        return BadRow(row.number, "", row.fault or "cannot be read.")
    if how.format is None:
        return None
    try:
        return formats.get(how.format).convert(row.values, how.columns, how.tags)
    except RowFault as fault:
        return BadRow(row.number, fault.field, fault.reason)


def _refuse_if_nothing_valid(name: str, found: Inspection) -> None:
    if found.valid:
        return
    reasons = [str(fault) for fault in found.faults[:3]]
    if found.detection.format is None:
        reasons.append(found.detection.reason)
    told = "\n".join(reasons) if found.rows else "0 rows: the file is empty. Choose another file."
    raise DataError(f"{name} has no row that can be learned from.\n{told}")


def _same(existing: Dataset, sha256: str, how: Detection) -> Dataset:
    if existing.sha256 == sha256 and (existing.format, existing.columns) == (how.format, how.columns):
        return existing
    what = "with another mapping" if existing.sha256 == sha256 else "with other rows"
    way_out = "Choose another name" + ("." if existing.shipped else ", or remove that dataset first.")
    raise DataError(f"There is a dataset '{existing.name}' already, {what}. {way_out}")


# --- Entries ---


@lru_cache(maxsize=256)
def _measured(path: Path, size: int, modified: int) -> tuple[int, str]:
    """Rows and hash of a shipped file; read anew only when its size or time changes."""
    return sum(1 for _ in readers.read(path)), readers.sha256(path)


def _shipped() -> dict[str, Dataset]:
    """The datasets of data/dataset_info.json, in its order: LLaMA-Factory's layout, and our own keys under `studio`."""
    listing = json.loads((SHIPPED_DATA / "dataset_info.json").read_text(encoding="utf-8"))
    found = {}
    for name, entry in listing.items():
        path, ours = SHIPPED_DATA / entry["file_name"], dict(entry.get("studio", {}))
        about = path.stat()
        count, digest = _measured(path, about.st_size, about.st_mtime_ns)
        found[name] = Dataset(
            name=name,
            path=path,
            format=ours.pop("format", entry.get("formatting", "alpaca")),
            columns=entry.get("columns", {}),
            tags=entry.get("tags", {}),
            rows=count,
            sha256=digest,
            shipped=True,
            **ours,
        )
    return found


def _own() -> dict[str, Dataset]:
    found = {}
    for path in sorted(home().datasets.glob("*.json")):
        if path.name.startswith("."):
            continue
        dataset = _entry(path)
        if dataset is None:
            path.replace(path.with_suffix(".json.corrupt"))
        else:
            found[dataset.name] = dataset
    return found


def _entry(path: Path) -> Dataset | None:
    """The dataset of an entry, or None if the entry is damaged."""
    try:
        values = json.loads(path.read_bytes())
        file_name = values.pop("file_name")
        dataset = Dataset(**values, path=home().uploads / file_name, shipped=False)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    texts = (dataset.name, dataset.format, dataset.sha256, dataset.title, file_name)
    whole = all(isinstance(each, str) for each in texts) and isinstance(dataset.rows, int)
    maps = isinstance(dataset.columns, dict) and isinstance(dataset.tags, dict)
    safe = whole and maps and UPLOAD.fullmatch(file_name) and dataset.name == path.stem
    return dataset if safe and dataset.format in formats.FORMATS else None


def _write(path: Path, dataset: Dataset) -> None:
    """Write an entry whole or not at all."""
    values: dict[str, Any] = asdict(dataset)
    del values["path"], values["shipped"]
    write_atomically(path, json.dumps({**values, "file_name": dataset.path.name}, ensure_ascii=False, indent=1))


def _lock() -> FileLock:
    """Held while the registry changes: of two registrations under one name one wins and the other is told."""
    return FileLock(home().datasets / ".lock")
