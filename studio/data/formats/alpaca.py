"""Alpaca rows: instruction, an optional input, and the output; optionally a system text and earlier turns.

Not here: single prompts with completions (prompt_completion), though the two are alike.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from studio.data.example import Confidence, Example, Format, Message, RowFault, Values
from studio.data.fields import kind, needed_text, optional_text

COLUMNS = {
    "prompt": ("instruction",),
    "query": ("input",),
    "response": ("output", "response"),
    "system": ("system",),
    "history": ("history",),
}


def detect(rows: Sequence[Values]) -> Confidence | None:
    fits = [row for row in rows if isinstance(row.get("instruction"), str) and _response(row)]
    if not fits:
        return None
    names = set(fits[0])
    columns = {part: next((name for name in usual if name in names), None) for part, usual in COLUMNS.items()}
    found = {part: name for part, name in columns.items() if name}
    reason = f"{len(fits)} of {len(rows)} rows have instruction and {found['response']}."
    return Confidence(len(fits) / len(rows), reason, found)


def convert(values: Values, columns: Mapping[str, str], tags: Mapping[str, str]) -> Example:
    prompt, query = columns.get("prompt", "instruction"), columns.get("query")
    question = "\n".join(text for text in (optional_text(values, prompt), optional_text(values, query)) if text.strip())
    if not question:
        needed_text(values, prompt, "prompt")
    response = needed_text(values, columns.get("response", "output"), "response")
    system = optional_text(values, columns.get("system"))
    messages = [Message("system", system)] if system.strip() else []
    messages += _history(values, columns.get("history"))
    return Example(messages=(*messages, Message("user", question), Message("assistant", response)))


def _response(row: Values) -> str | None:
    return next((name for name in COLUMNS["response"] if name in row), None)


def _history(values: Values, column: str | None) -> list[Message]:
    """Earlier turns, as a list of [question, answer] pairs."""
    pairs: Any = values.get(column) if column else None
    if pairs is None or pairs == []:
        return []
    if not isinstance(pairs, Sequence) or isinstance(pairs, str):
        raise RowFault(str(column), f"must be a list of [question, answer] pairs, but is {kind(pairs)}.")
    messages = []
    for index, pair in enumerate(pairs):
        if not isinstance(pair, Sequence) or len(pair) != 2 or not all(isinstance(t, str) and t.strip() for t in pair):
            raise RowFault(f"{column}[{index}]", "must be a pair of a question and an answer, both text.")
        messages += [Message("user", pair[0]), Message("assistant", pair[1])]
    return messages


FORMAT = Format("alpaca", COLUMNS, ("prompt", "response"), detect, convert)
