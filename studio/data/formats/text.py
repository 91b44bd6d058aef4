"""Plain text rows: one column of text that is learned whole. No template is applied.

Not here: cutting long texts into pieces; a row longer than the cutoff loses its end.
"""

from collections.abc import Mapping, Sequence

from studio.data.example import Confidence, Example, Format, Values
from studio.data.fields import needed_text

COLUMNS = {"text": ("text", "content")}
BESIDE = {"meta", "metadata", "timestamp", "url", "id", "source", "title"}
"""Columns that tell where a text comes from. Any other makes it likely that the text is only one side of something."""


def detect(rows: Sequence[Values]) -> Confidence | None:
    for name in COLUMNS["text"]:
        count = sum(isinstance(row.get(name), str) for row in rows)
        if count:
            alone = all(set(row) <= {name, *BESIDE} for row in rows)
            reason = f"{count} of {len(rows)} rows have {name}{'' if alone else ', beside other columns'}."
            return Confidence((1.0 if alone else 0.5) * count / len(rows), reason, {"text": name})
    return None


def convert(values: Values, columns: Mapping[str, str], tags: Mapping[str, str]) -> Example:
    return Example(text=needed_text(values, columns.get("text", "text"), "text"), kind="text")


FORMAT = Format("text", COLUMNS, ("text",), detect, convert)
