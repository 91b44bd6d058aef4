"""What the commands print: JSON for programs, aligned columns for people, and only harmless characters on a terminal.

Results go to stdout, everything else to stderr. Not here: a job's progress (studio.cli.follow).
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def emit(value: Any) -> None:
    """One JSON value on one line of stdout."""
    print(json.dumps(value, ensure_ascii=False, allow_nan=False, default=str), flush=True)


def plain(text: Any) -> str:
    """The text without control characters: data and models must not steer the terminal."""
    return _CONTROL.sub("", str(text).replace("\r\n", "\n"))


def line(text: str = "") -> None:
    """One line of a result, on stdout."""
    print(plain(text), flush=True)


def note(text: str) -> None:
    """One line beside the result, on stderr."""
    print(plain(text), file=sys.stderr, flush=True)


def table(headings: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Aligned columns, never cut, because an id that is cut cannot be copied."""
    from rich.cells import cell_len

    lines = [list(headings), *([one_line(cell) for cell in row] for row in rows)]
    widths = [max(cell_len(row[column]) for row in lines) for column in range(len(headings))]
    for row in lines:
        padded = (cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True))
        line("  ".join(padded).rstrip())


def one_line(value: Any, most: int | None = None) -> str:
    """A value in one line; an ellipsis stands for what is beyond `most` characters."""
    text = " ".join(plain("" if value is None else value).split())
    return text if most is None or len(text) <= most else text[: most - 1] + "…"


def when(seconds: float) -> str:
    """Local date and time."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def number(value: float | None) -> str:
    """A score with four digits that matter; an empty cell for none."""
    return "" if value is None else f"{value:.4g}"
