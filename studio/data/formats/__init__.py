"""The formats that a dataset can have, and which of them some rows are in.

A new format is one file here and one name in FORMATS. Not here: reading files (studio.data.readers), a mapping for
columns without usual names (suggestion).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from studio.data.example import Confidence, Format, Values
from studio.data.formats import (
    alpaca,
    classification,
    kto,
    openai,
    preference,
    prompt,
    prompt_completion,
    sharegpt,
    suggestion,
    text,
)
from studio.errors import DataError, unknown

FORMATS: dict[str, Format] = {
    module.FORMAT.name: module.FORMAT
    for module in (alpaca, sharegpt, openai, prompt_completion, text, classification, preference, kto, prompt)
}
LOOKED_AT = 200
"""Rows by which a format is judged."""

_TELLING = (
    "preference",
    "kto",
    "openai",
    "sharegpt",
    "alpaca",
    "prompt_completion",
    "classification",
    "text",
    "prompt",
)
"""Formats by how much of a row they account for, most first: a set of preferences may also read as alpaca."""


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
    """Which format most of the rows are in, by the first of them. A confidence below 0.5 is a suggestion."""
    if not rows:
        return Detection(None, 0.0, "There is no readable row to look at.")
    rows = rows[:LOOKED_AT]
    found = {name: fit for name in _TELLING if (fit := FORMATS[name].detect(rows))}
    if suggested := _suggested(rows, found):
        return suggested
    if not found:
        names = ", ".join(dict.fromkeys(name for row in rows for name in row)) or "none"
        return Detection(None, 0.0, f"No known format fits the columns {names[:200]}. Choose a format and map them.")
    name = _best(found)
    best = found[name]
    return Detection(name, best.value, best.reason, best.columns, best.tags)


def _suggested(rows: Sequence[Values], found: dict[str, Confidence]) -> Detection | None:
    """A mapping from what the columns hold, if none of the formats that were found explains more."""
    most = max((fit.value for fit in found.values()), default=0.0)
    guess = suggestion.suggest(rows) if most < suggestion.MOST else None
    if guess is None or guess[1].value <= most:
        return None
    name, fit = guess
    return Detection(name, fit.value, fit.reason, fit.columns, fit.tags)


def _best(found: dict[str, Confidence]) -> str:
    """The surest; or one that tells more, where it fits nearly as many rows and must share some with the surest."""
    most = max(fit.value for fit in found.values())
    telling = (name for name, fit in found.items() if fit.value >= 0.7 * most and fit.value + most > 1)
    return next(telling, max(found, key=lambda name: found[name].value))
