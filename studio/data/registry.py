"""The registered datasets: the shipped ones in data/, and the user's under STUDIO_HOME, one JSON file each.

Not here: reading and validating files (intake), what a row means (formats), a LLaMA-Factory folder's own list
(catalogue).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

from filelock import FileLock

from studio.data import catalogue, formats, intake, readers, store
from studio.data.example import BadRow, Example, Row
from studio.data.formats import Detection
from studio.data.intake import PREVIEW_ROWS, Inspection, Intake, Source, Watch, example
from studio.errors import DataError, unknown
from studio.home import SHIPPED_DATA, checked_name, home, refused, write_atomically

STORE = re.compile(r"[0-9a-f]{64}\.rows")
"""The rows of a dataset are stored under the sha256 of their content."""

ABOUT = ("title", "title_zh", "language", "licence", "description")


@dataclass(frozen=True)
class Dataset:
    """Registered rows.

    columns: part -> column. tags: words of the format. rows: how many there are, good and bad; valid: the good ones.
    sources: the files that they came from. origin: how they were made, for a dataset that came out of another one.
    """

    name: str
    path: Path
    format: str
    columns: dict[str, str]
    tags: dict[str, str]
    rows: int
    valid: int
    sha256: str
    sources: tuple[Source, ...] = ()
    shipped: bool = False
    title: str = ""
    title_zh: str = ""
    language: str = ""
    licence: str = ""
    description: str = ""
    origin: dict[str, Any] = field(default_factory=dict)

    @property
    def about(self) -> dict[str, str]:
        """What is known of the rows, in words."""
        return {key: getattr(self, key) for key in ABOUT}

    @property
    def how(self) -> Detection:
        """How its rows are read."""
        return Detection(self.format, 1.0, "", self.columns, self.tags)


def every() -> list[Dataset]:
    """All datasets, the shipped ones first, then the user's by name. Damaged entries are set aside; see problems()."""
    return [*_shipped().values(), *sorted(_own().values(), key=lambda each: each.name.lower())]


def problems() -> list[str]:
    """What is wrong with the user's registry, in sentences: entries set aside, rows that are gone, changed sources."""
    own = _own().values()
    aside = sorted(home().datasets.glob("*.corrupt"))
    lost = [each for each in own if not each.path.is_file()]
    return [
        *(f"The entry {path.stem} was damaged and was set aside as {path}. Register the file again." for path in aside),
        *(f"The rows of dataset '{each.name}' are gone from {each.path}. Remove and add it again." for each in lost),
        *(change for each in own if (change := changed(each))),
    ]


def changed(dataset: Dataset) -> str:
    """That a file which a dataset was made from is another one by now, in a sentence; empty if none is."""
    for source in dataset.sources:
        path = Path(source.path)
        if not source.path or not path.is_file():
            continue
        about = path.stat()
        if (about.st_size, about.st_mtime_ns) == (source.bytes, source.modified):
            continue
        if readers.sha256(path) != source.sha256:
            return (
                f"{source.name} changed since dataset '{dataset.name}' was added. The dataset still has the old rows; "
                "remove and add it again to use the new ones."
            )
    return ""


def get(name: str) -> Dataset:
    """A dataset by its name. Raises: DataError: there is none; the nearest name is suggested."""
    known = {each.name: each for each in every()}
    if name not in known:
        raise DataError(unknown("dataset", name, known))
    return known[name]


def add(
    source: Path | str | Sequence[Path | str],
    name: str,
    *,
    format: str | None = None,
    columns: Mapping[str, str] | None = None,
    tags: Mapping[str, str] | None = None,
    unit: readers.Unit = "line",
    watch: Watch | None = None,
) -> Dataset:
    """Take the rows of files into STUDIO_HOME and register them. The same again under the same name changes nothing.

    Raises:
        DataError: the source is refused, no row of it is valid, or the name is taken by other rows. Stopped.
        StudioError: the name cannot be a file name.
    """
    checked_name(name, "dataset name")
    taken = intake.take_in(source, format=format, columns=columns, tags=tags, unit=unit, watch=watch)
    try:
        return register(taken, name)
    finally:
        taken.discard()


def register(
    taken: Intake, name: str, *, origin: Mapping[str, Any] | None = None, about: Mapping[str, str] | None = None
) -> Dataset:
    """Give rows that were taken in a name for good. What it was taken into is empty afterwards.

    about: what is known of them, by the keys of ABOUT; the title is otherwise that of their files.
    Raises: DataError: none of them is valid, or the name is taken by other rows. StudioError: the name is refused.
    """
    checked_name(name, "dataset name")
    found = taken.inspection
    _refuse_if_nothing_valid(taken.title, found)
    with _lock():
        existing = {each.name.lower(): each for each in every()}.get(name.lower())
        if existing is not None:
            return _same(existing, taken)
        target = home().uploads / f"{taken.sha256}{store.SUFFIX}"
        store.move(taken.path, target)
        dataset = Dataset(
            name=name,
            path=target,
            format=str(found.detection.format),
            columns=found.detection.columns,
            tags=found.detection.tags,
            rows=found.rows,
            valid=found.valid,
            sha256=taken.sha256,
            sources=taken.sources,
            origin={**taken.notes, **(origin or {})},
            **{"title": taken.title, **{key: text for key, text in (about or {}).items() if key in ABOUT and text}},
        )
        try:
            _write(dataset)
        except DataError:
            _delete_unused(target)
            raise
    return dataset


def rename(name: str, new: str) -> Dataset:
    """Give one of the user's datasets another name. Runs that were made with it keep the old one in their record.

    Raises: DataError: there is none, it is a shipped one, or the new name is taken. StudioError: it is refused.
    """
    checked_name(new, "dataset name")
    with _lock():
        dataset = _own_one(name)
        taken = {each.name.lower(): each.name for each in every() if each.name != name}
        if new.lower() in taken:
            raise DataError(f"There is a dataset '{taken[new.lower()]}' already. Choose another name.")
        renamed = replace(dataset, name=new)
        _write(renamed)
        if new != name:
            _entry_path(name).unlink(missing_ok=True)
            if not _entry_path(new).is_file():  # the two names differ only in case, on a disk that knows no case
                _write(renamed)
    return renamed


def remove(name: str) -> None:
    """Forget one of the user's datasets, and delete its rows if no other dataset uses them.

    Raises: DataError: there is none of this name, or it is a shipped one.
    """
    with _lock():
        dataset = _own_one(name)
        _entry_path(name).unlink(missing_ok=True)
        _delete_unused(dataset.path)


def read(dataset: Dataset, start: int = 0) -> Iterator[Row]:
    """The rows from the one at `start` (counted from 0) on, as they were in the file."""
    if dataset.path.suffix == store.SUFFIX:
        return store.read(dataset.path, start)
    named = (row._replace(file=dataset.path.name) for row in readers.read(dataset.path))
    return islice(named, start, None)


def rows(dataset: Dataset, start: int = 0, count: int = PREVIEW_ROWS) -> list[Row]:
    """Some rows, for browsing. start: how many to pass over."""
    return list(islice(read(dataset, start), count))


def rows_at(dataset: Dataset, positions: Sequence[int]) -> list[Row]:
    """The rows at some positions, counted from 0."""
    if dataset.path.suffix == store.SUFFIX:
        return store.rows_at(dataset.path, positions)
    found = dict.fromkeys(positions)
    for position, row in enumerate(islice(read(dataset), max(positions, default=-1) + 1)):
        if position in found:
            found[position] = row
    return [row for row in found.values() if row is not None]


def search(dataset: Dataset, text: str, *, start: int = 0, count: int = 20) -> tuple[list[tuple[int, Row]], int | None]:
    """(position, row) of rows that hold a text, from a position on, and where to search on, or None at the end."""
    if dataset.path.suffix == store.SUFFIX:
        return store.search(dataset.path, text, start=start, count=count)
    wanted = text.casefold()
    hits = (
        (position, row)
        for position, row in enumerate(read(dataset, start), start)
        if wanted in json.dumps(row.values if row.fault is None else row.raw, ensure_ascii=False).casefold()
    )
    found = list(islice(hits, count + 1)) if text else []
    return found[:count], found[count][0] if len(found) > count else None


def outcomes(dataset: Dataset, start: int = 0) -> Iterator[tuple[Row, Example | BadRow]]:
    """Each row with what it becomes.

    Raises: DataError: the rows are gone, are not those that were registered, or cannot be read.
    """
    how = dataset.how
    for row in read(dataset, start):
        outcome = example(row, how)
        if outcome is not None:
            yield row, outcome


def verify(dataset: Dataset) -> None:
    """Raises: DataError: the rows are not those that were registered."""
    if readers.sha256(dataset.path) != dataset.sha256:
        raise DataError(f"The rows of dataset '{dataset.name}' changed since it was added. Remove and add it again.")


# --- Entries ---


def _refuse_if_nothing_valid(title: str, found: Inspection) -> None:
    if found.valid:
        return
    reasons = [str(fault) for fault in found.faults[:3]]
    if found.detection.format is None:
        reasons.append(found.detection.reason)
    told = "\n".join(reasons) if found.rows else "0 rows: the file is empty. Choose another file."
    raise DataError(f"{title} has no row that can be learned from.\n{told}")


def _same(existing: Dataset, taken: Intake) -> Dataset:
    how = taken.inspection.detection
    same_rows = existing.sha256 == taken.sha256
    if same_rows and (existing.format, existing.columns, existing.tags) == (how.format, how.columns, how.tags):
        return existing
    what = "with another mapping" if same_rows else "with other rows"
    way_out = "Choose another name" + ("." if existing.shipped else ", or remove that dataset first.")
    raise DataError(f"There is a dataset '{existing.name}' already, {what}. {way_out}")


def _delete_unused(rows: Path) -> None:
    """Delete stored rows that no dataset has."""
    if all(each.path != rows for each in _own().values()):
        store.delete(rows)


def _own_one(name: str) -> Dataset:
    dataset = get(name)
    if dataset.shipped:
        raise DataError(f"Dataset '{name}' comes with the studio and cannot be changed.")
    return dataset


@lru_cache(maxsize=64)
def _counted(path: Path, size: int, modified: int, format: str, columns: str, tags: str) -> tuple[int, int, str]:
    """Rows, valid rows and hash of a shipped file; read anew only when its size, its time or its mapping changes."""
    how = Detection(format, 1.0, "", json.loads(columns), json.loads(tags))
    outcomes = [example(row, how) for row in readers.read(path)]
    return len(outcomes), sum(isinstance(each, Example) for each in outcomes), readers.sha256(path)


def _shipped() -> dict[str, Dataset]:
    """The datasets of data/dataset_info.json, in its order."""
    found = {}
    for entry in catalogue.read(SHIPPED_DATA):
        if entry.file is None or entry.problem:
            raise DataError(f"{SHIPPED_DATA}: dataset '{entry.name}' {entry.problem}")
        about = entry.file.stat()
        mapping = (entry.format, json.dumps(entry.columns), json.dumps(entry.tags))
        rows, valid, digest = _counted(entry.file, about.st_size, about.st_mtime_ns, *mapping)
        found[entry.name] = Dataset(
            name=entry.name,
            path=entry.file,
            format=entry.format,
            columns=entry.columns,
            tags=entry.tags,
            rows=rows,
            valid=valid,
            sha256=digest,
            shipped=True,
            **entry.about,
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
        sources = tuple(Source(**each) for each in values.pop("sources", ()))
        dataset = Dataset(**values, sources=sources, path=home().uploads / file_name, shipped=False)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    texts = (dataset.name, dataset.format, dataset.sha256, dataset.title, file_name)
    whole = all(isinstance(each, str) for each in texts)
    counts = isinstance(dataset.rows, int) and isinstance(dataset.valid, int)
    maps = all(isinstance(each, dict) for each in (dataset.columns, dataset.tags, dataset.origin))
    safe = whole and counts and maps and STORE.fullmatch(file_name) and dataset.name == path.stem
    return dataset if safe and dataset.format in formats.FORMATS else None


def _entry_path(name: str) -> Path:
    return home().datasets / f"{name}.json"


def _write(dataset: Dataset) -> None:
    """Write an entry whole or not at all. Raises: DataError: there is no room for it, or no right to."""
    values: dict[str, Any] = asdict(dataset)
    del values["path"], values["shipped"]
    text = json.dumps({**values, "file_name": dataset.path.name}, ensure_ascii=False, indent=1)
    path = _entry_path(dataset.name)
    try:
        write_atomically(path, text)
    except OSError as error:
        raise DataError(f"{refused(error, path)}. Nothing was changed. Free some space, then try again.") from error


def _lock() -> FileLock:
    """Held while the registry changes: of two registrations under one name one wins and the other is told."""
    return FileLock(home().datasets / ".lock")
