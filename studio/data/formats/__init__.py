"""The formats that a dataset can have, and which of them some rows are in.

A new format is one file here and one name in FORMATS. Not here: reading files (studio.data.readers).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from studio.data.example import Format, Values
from studio.data.formats import alpaca, openai, prompt_completion, sharegpt, text
from studio.errors import DataError, unknown

FORMATS: dict[str, Format] = {
    module.FORMAT.name: module.FORMAT for module in (alpaca, sharegpt, openai, prompt_completion, text)
}


@dataclass(frozen=True)
class Detection:
    """The format that fits best, or None. confidence: 0 to 1. columns: part -> column. reason: one sentence."""

    format: str | None
    confidence: float
    reason: str
    columns: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)


def get(name: str) -> Format:
    """A format by its name. Raises: DataError: there is none; the nearest name is suggested."""
    if name not in FORMATS:
        raise DataError(unknown("format", name, FORMATS))
    return FORMATS[name]


def detect(rows: Sequence[Values]) -> Detection:
    """Which format most of the rows are in."""
    if not rows:
        return Detection(None, 0.0, "There is no readable row to look at.")
    found = [(name, fit) for name, each in FORMATS.items() if (fit := each.detect(rows))]
    if not found:
        names = ", ".join(dict.fromkeys(name for row in rows for name in row)) or "none"
        return Detection(None, 0.0, f"No known format fits the columns {names[:200]}. Choose a format and map them.")
    name, best = max(found, key=lambda each: each[1].value)
    return Detection(name, best.value, best.reason, best.columns, best.tags)
