"""Plain text rows: one column of text that is learned whole. No template is applied.

Not here: cutting long texts into pieces; a row longer than the cutoff loses its end.
"""

from collections.abc import Mapping, Sequence

from studio.data.example import Confidence, Example, Format, Values
from studio.data.fields import needed_text

COLUMNS = {"text": ("text", "content")}


def detect(rows: Sequence[Values]) -> Confidence | None:
    for name in COLUMNS["text"]:
        count = sum(isinstance(row.get(name), str) for row in rows)
        if count:
            # further columns make it likely that the text is only one side of something
            alone = all(set(row) <= {name, "meta", "timestamp", "url", "id"} for row in rows)
            certainty = 1.0 if alone else 0.5
            reason = f"{count} of {len(rows)} rows have {name}{'' if alone else ', beside other columns'}."
            return Confidence(certainty * count / len(rows), reason, {"text": name})
    return None


def convert(values: Values, columns: Mapping[str, str], tags: Mapping[str, str]) -> Example:
    return Example(text=needed_text(values, columns.get("text", "text"), "text"))


FORMAT = Format("text", COLUMNS, ("text",), detect, convert)
