"""Take rows in from files: read, validate and store them in one pass, with progress, and a way to stop.

Memory is constant, however large the files are. Nothing is registered yet: what was taken in is looked at, mapped
differently if need be, and then registered or discarded. Not here: the names of datasets (registry).
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

from studio.data import formats, readers, sources, store
from studio.data.example import BadRow, Example, Row, RowFault
from studio.data.formats import Detection
from studio.errors import DataError, unknown
from studio.home import home, refused

PREVIEW_ROWS = 200
"""Rows that a format is detected from, and that can be looked at before anything is registered."""
LISTED_FAULTS = 200

_STAGED = ".staged-"
_KEPT_S = 24 * 3600
"""Seconds after which rows that nobody registered are deleted."""


@dataclass(frozen=True)
class Source:
    """A file that rows came from, as it was then. path: empty where it was uploaded. modified: nanoseconds."""

    name: str
    sha256: str
    bytes: int
    rows: int
    path: str = ""
    modified: int = 0


@dataclass(frozen=True)
class Inspection:
    """What some rows hold, read in one way.

    valid: rows that become examples. faults: the first ones; faults_total: all of them. warnings: about whole files.
    """

    detection: Detection
    preview: list[Row]
    columns: list[str]
    rows: int
    valid: int
    faults: list[BadRow]
    faults_total: int
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Progress:
    """How far a pass is. total: bytes of all files; 0 where it is not known."""

    done: int
    total: int
    rows: int


@dataclass
class Watch:
    """Who is told how far a pass is, and who may stop it."""

    tell: Callable[[Progress], None] | None = None
    stopping: Callable[[], bool] = lambda: False

    def check(self, done: int, total: int, rows: int) -> None:
        """Raises: Stopped: somebody wants the pass to end."""
        if self.stopping():
            raise Stopped("Stopped. Nothing was added.")
        if self.tell:
            self.tell(Progress(done, total, rows))


class Stopped(DataError):
    """A pass over rows that was ended by its user."""


@dataclass(frozen=True)
class Intake:
    """Rows that are stored but not registered. path: their store. title: what the files are called."""

    path: Path
    sources: tuple[Source, ...]
    sha256: str
    inspection: Inspection
    title: str = ""
    notes: dict[str, str] = field(default_factory=dict)

    def mapped(
        self,
        *,
        format: str | None = None,
        columns: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
        watch: Watch | None = None,
    ) -> Intake:
        """The same rows, read in another way. A part whose column is an empty text is played by none.

        Raises: DataError: there is no such format or part. Stopped.
        """
        watch = watch or Watch()
        total = self.path.stat().st_size
        rows = _watched(store.read(self.path), watch, total, self.inspection.rows)
        found = _inspect(rows, format, columns, tags)
        return replace(self, inspection=replace(found, warnings=self.inspection.warnings))

    def discard(self) -> None:
        """Delete the rows."""
        store.delete(self.path)


def take_in(
    source: str | Path | Sequence[str | Path],
    *,
    format: str | None = None,
    columns: Mapping[str, str] | None = None,
    tags: Mapping[str, str] | None = None,
    unit: readers.Unit = "line",
    max_rows: int | None = None,
    uploaded: bool = False,
    watch: Watch | None = None,
) -> Intake:
    """Read, validate and store the rows of a file, of several, of a folder or of a glob.

    format, columns, tags: how a row reads, in place of what is detected. unit: what one row of a plain text file is.
    uploaded: the files are copies that nobody else knows, so their place is not recorded.
    Raises: DataError: a source is refused, or cannot be read at all. Stopped.
    """
    files = sources.find(source)
    watch = watch or Watch()
    total = sum(path.stat().st_size for path in files)
    reading = _Reading(files, unit, watch, total, uploaded)
    rows = reading.rows() if max_rows is None else islice(reading.rows(), max_rows)
    whole = Path(source).name if isinstance(source, str | Path) else files[0].name
    title = files[0].name if len(files) == 1 else f"{whole} ({len(files)} files)"
    return taken(rows, format, columns, tags, title=title, warnings=reading.warnings, sources=reading.sources)


def taken(
    rows: Iterable[Row],
    format: str | None = None,
    columns: Mapping[str, str] | None = None,
    tags: Mapping[str, str] | None = None,
    *,
    title: str,
    warnings: Callable[[], tuple[str, ...]] = tuple,
    sources: Callable[[], tuple[Source, ...]] = tuple,
    notes: dict[str, str] | None = None,
) -> Intake:
    """Validate and store rows from anywhere. warnings and sources are asked for once all rows were read."""
    _sweep()
    writer = store.Writer(home().uploads / f"{_STAGED}{secrets.token_hex(8)}{store.SUFFIX}")
    try:
        found = _inspect(rows, format, columns, tags, writer.write)
        came_from = sources()
        digest = writer.sha256
        writer.close()
    except OSError as error:
        writer.abandon()
        place = writer.path.parent
        raise DataError(f"{refused(error, place)}. Nothing was added. Free some space, then try again.") from error
    except BaseException:
        writer.abandon()
        raise
    return Intake(writer.path, came_from, digest, replace(found, warnings=warnings()), title, notes or {})


def example(row: Row, how: Detection) -> Example | BadRow | None:
    """What a row becomes when it is read like this. None: there is no format to read it by."""
    if row.values is None:
        return BadRow(row.number, "", row.fault or "cannot be read.", row.file)
    if how.format is None:
        return None
    try:
        return formats.get(how.format).convert(row.values, how.columns, how.tags)
    except RowFault as fault:
        return BadRow(row.number, fault.field, fault.reason, row.file)


def chosen(
    start: Sequence[Row],
    format: str | None = None,
    columns: Mapping[str, str] | None = None,
    tags: Mapping[str, str] | None = None,
) -> Detection:
    """The detected format; or the chosen one with the columns that it usually has, and the chosen ones on top.

    Raises: DataError: there is no such format, or it has no such part or tag.
    """
    values = [row.values for row in start if row.values is not None]
    found = formats.detect(values)
    if format is None and not columns and not tags:
        return found
    name = format or found.format
    if name is None:
        raise DataError("The columns are chosen, but not the format. Choose one of " + ", ".join(formats.FORMATS) + ".")
    kind = formats.get(name)
    if name == found.format:
        usual, words, confidence = found.columns, found.tags, found.confidence
    else:
        fit = kind.detect(values) if values else None
        usual, words, confidence = (fit.columns, fit.tags, fit.value) if fit else ({}, {}, 0.0)
    mapped = {part: column for part, column in {**usual, **(columns or {})}.items() if column}
    for given, known, what in ((mapped, kind.columns, "part"), (tags or {}, kind.tags, "tag")):
        if wrong := sorted(set(given) - set(known)):
            raise DataError(unknown(f"{what} of format {name}", wrong[0], known))
    return Detection(name, confidence, "Chosen by hand.", mapped, {**words, **(tags or {})})


# --- one pass


class _Reading:
    """The rows of some files after each other; while they are read their bytes are hashed in another thread."""

    def __init__(self, files: Sequence[Path], unit: readers.Unit, watch: Watch, total: int, uploaded: bool):
        self._files, self._unit, self._watch, self._total, self._uploaded = files, unit, watch, total, uploaded
        self._count = self._before = 0
        self._sources: list[Source] = []
        self._warnings: list[str] = []

    def sources(self) -> tuple[Source, ...]:
        return tuple(self._sources)

    def warnings(self) -> tuple[str, ...]:
        return tuple(self._warnings)

    def rows(self) -> Iterator[Row]:
        with ThreadPoolExecutor(1) as pool:
            for path in self._files:
                yield from self._rows_of(path, pool)

    def _rows_of(self, path: Path, pool: ThreadPoolExecutor) -> Iterator[Row]:
        about, first = path.stat(), self._count
        digest = pool.submit(readers.sha256, path)
        sniffed = readers.sniff(path)
        self._warnings += sniffed.warnings
        name = path.name
        self._watch.check(self._before, self._total, self._count)
        for number, values, fault, _, raw in readers.read(path, unit=self._unit, tell=self._tell):
            self._count += 1
            yield Row(number, values, fault, name, raw)  # _replace would take three times as long
        self._before += about.st_size
        self._watch.check(self._before, self._total, self._count)
        self._note(path, about, digest, self._count - first)

    def _tell(self, done: int) -> None:
        self._watch.check(self._before + done, self._total, self._count)

    def _note(self, path: Path, about: object, digest: Future[str], rows: int) -> None:
        now = path.stat()
        if (now.st_size, now.st_mtime_ns) != (about.st_size, about.st_mtime_ns):  # type: ignore[attr-defined]
            raise DataError(f"{path.name} changed while it was read. Add it again once nothing writes to it.")
        place = "" if self._uploaded else str(path.absolute())
        self._sources.append(Source(path.name, digest.result(), now.st_size, rows, place, now.st_mtime_ns))


def _watched(rows: Iterable[Row], watch: Watch, total: int, count: int) -> Iterator[Row]:
    for number, row in enumerate(rows):
        if number % 5000 == 0:
            watch.check(total * number // max(count, 1), total, number)
        yield row


def _inspect(
    rows: Iterable[Row],
    format: str | None,
    columns: Mapping[str, str] | None,
    tags: Mapping[str, str] | None,
    write: Callable[[Row], Row] | None = None,
) -> Inspection:
    """What the rows hold. write: keeps each of them."""
    rows = iter(rows)
    start = list(islice(rows, PREVIEW_ROWS))
    how = chosen(start, format, columns, tags)
    tally = _Tally(how, write)
    tally.add(start)
    tally.add(rows)
    return Inspection(how, start, list(tally.names), tally.rows, tally.valid, tally.faults, tally.faults_total)


class _Tally:
    """Counts what rows become."""

    def __init__(self, how: Detection, write: Callable[[Row], Row] | None):
        self._how, self._write = how, write
        self.names: dict[str, None] = {}
        self.rows = self.faults_total = 0
        self.faults: list[BadRow] = []

    @property
    def valid(self) -> int:
        return self.rows - self.faults_total if self._how.format else 0

    def add(self, rows: Iterable[Row]) -> None:
        """The hot path of every import, so it is one loop over local names."""
        how, write, count = self._how, self._write, 0
        convert = formats.get(how.format).convert if how.format else None
        columns, tags = how.columns, how.tags
        keys: object = None
        for row in rows:
            count += 1
            if write is not None:
                row = write(row)
            number, values, fault, file, _ = row
            if values is None:
                self._fault(BadRow(number, "", fault or "cannot be read.", file))
                continue
            if values.keys() != keys:
                keys = values.keys()
                self.names.update(dict.fromkeys(values))
            if convert is None:
                continue
            try:
                convert(values, columns, tags)
            except RowFault as found:
                self._fault(BadRow(number, found.field, found.reason, file))
        self.rows += count

    def _fault(self, fault: BadRow) -> None:
        self.faults_total += 1
        if len(self.faults) < LISTED_FAULTS:
            self.faults.append(fault)


def _sweep() -> None:
    """Delete rows that were taken in long ago and never registered, such as those of a closed page."""
    old = time.time() - _KEPT_S
    for path in home().uploads.glob(f"{_STAGED}*"):
        try:
            if path.stat().st_mtime < old:
                path.unlink()
        except FileNotFoundError:  # another process swept it
            continue
