"""Classification rows: a text and its label, which is a word or a number.

Not here: labels that are measured rather than chosen (ratings with decimals), and several labels of one text.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from studio.data.example import Confidence, Example, Format, RowFault, Values
from studio.data.fields import at, kind, lack, needed_text, shown

COLUMNS = {
    "text": ("text", "sentence", "content", "review", "comment", "utterance", "tweet", "sms", "message"),
    "label": ("label_text", "label_name", "label", "labels", "category", "class", "intent", "sentiment", "target"),
}
LONGEST_LABEL = 80
"""Characters; a longer one is an answer rather than a label."""


def detect(rows: Sequence[Values]) -> Confidence | None:
    pairs = [(text, label) for text in COLUMNS["text"] for label in COLUMNS["label"]]
    counts = {pair: sum(_fits(row, *pair) for row in rows) for pair in pairs}
    text, label = best = max(pairs, key=counts.__getitem__)
    labels = [str(row[label]) for row in rows if _fits(row, text, label)]
    if not labels or not _few(labels):
        return None
    reason = f"{counts[best]} of {len(rows)} rows have {text} and one of {len(set(labels))} values of {label}."
    return Confidence(counts[best] / len(rows), reason, {"text": text, "label": label})


def convert(values: Values, columns: Mapping[str, str], tags: Mapping[str, str]) -> Example:
    text = needed_text(values, columns.get("text", "text"), "text")
    column = columns.get("label", "label")
    return Example(text=text, kind="classification", label=_label(values, column))


def _label(values: Values, column: str) -> str:
    value = at(values, column)
    if isinstance(value, str):
        label = value.strip()
    elif isinstance(value, bool):
        label = "true" if value else "false"
    elif isinstance(value, int | float):
        # a column of whole numbers with a gap in it comes out of tables as decimals
        label = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
    elif value is None:
        raise RowFault(column, lack(values, column, "label"))
    else:
        raise RowFault(column, f"must be text or a number, but is {kind(value)}: {shown(value)}.")
    if not label:
        raise RowFault(column, lack(values, column, "label"))
    return label


def _fits(row: Values, text: str, label: str) -> bool:
    return text != label and isinstance(row.get(text), str) and _is_label(row.get(label))


def _is_label(value: Any) -> bool:
    if isinstance(value, float):
        return value.is_integer()
    return isinstance(value, int) or (isinstance(value, str) and 0 < len(value) <= LONGEST_LABEL)


def _few(labels: Sequence[str]) -> bool:
    """Whether labels recur. 150 of them, well mixed, show about 110 different ones in 200 rows."""
    different = len(set(labels))
    return different <= 10 or different <= len(labels) * 2 / 3


FORMAT = Format("classification", COLUMNS, ("text", "label"), detect, convert)
