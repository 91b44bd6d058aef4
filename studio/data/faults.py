"""The rows that are left out: where they stand, what is in them, and all of them in one file.

Not here: what makes a row faulty (studio.data.formats), and the findings of an audit (studio.data.audit).
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from pathlib import Path

from studio.data import intake, store
from studio.data.example import BadRow, Row
from studio.data.formats import Detection
from studio.data.intake import Source, Watch
from studio.errors import DataError

TOLD_ROWS = 5000


def text(row: Row) -> str:
    """A row as it stands in its file, as far as it could be read."""
    return row.raw if row.values is None else json.dumps(row.values, ensure_ascii=False, default=str)


def rows(path: Path, sources: Sequence[Source], faults: Iterable[BadRow]) -> list[Row | None]:
    """The stored row of each fault; None where it is not found. Looks at a few rows for each, however many there are.

    Row numbers rise within a file, and each file's rows lie together.
    """
    starts = [sum(source.rows for source in sources[:index]) for index in range(len(sources))]
    places = [(source.name, start, source.rows) for source, start in zip(sources, starts, strict=True)]
    return [_row(path, places, fault) for fault in faults]


def write(path: Path, how: Detection, target: Path, *, total: int, watch: Watch | None = None) -> int:
    """Write every row that is left out, with its file, number, field, reason and text, as JSON lines.

    Returns: how many there are. Raises: DataError: the rows or the target fail. Stopped.
    """
    watch = watch or Watch()
    size, count = path.stat().st_size, 0
    try:
        with target.open("w", encoding="utf-8") as file:
            for number, row in enumerate(store.read(path)):
                if number % TOLD_ROWS == 0:
                    watch.check(size * number // max(total, 1), size, number)
                bad = intake.example(row, how)
                if isinstance(bad, BadRow):
                    told = {"file": bad.file, "row": bad.row, "field": bad.field, "reason": bad.reason}
                    file.write(json.dumps(told | {"text": text(row)}, ensure_ascii=False) + "\n")
                    count += 1
    except OSError as error:
        raise DataError(f"{target} cannot be written: {error.strerror or error}.") from error
    return count


def _row(path: Path, places: Sequence[tuple[str, int, int]], fault: BadRow) -> Row | None:
    for name, start, count in places or (("", 0, fault.row),):
        if places and name != fault.file:
            continue
        # blank lines have a number but no row, so the row stands at its number or before it
        most = min(count, fault.row)
        at = bisect_left(range(most), fault.row, key=lambda place, start=start: _number(path, start + place))
        row = next(store.read(path, start + at), None)
        if row is not None and row.number == fault.row and (not places or row.file == fault.file):
            return row
    return None


def _number(path: Path, position: int) -> int:
    row = next(store.read(path, position), None)
    return row.number if row is not None else 1 << 62
