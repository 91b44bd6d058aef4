"""Unpaired answers: a prompt, one answer to it, and a label that says whether the answer is a good one.

The rows are a conversation that ends in the answer, or a prompt and its completion. Not here: two answers to one
prompt (preference).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from studio.data.calls import tools
from studio.data.example import Confidence, Example, Format, Message, RowFault, Values
from studio.data.fields import at, lack, shown, usual_columns
from studio.data.turns import (
    OPENAI,
    checked,
    checked_prompt,
    looks_like_turns,
    prompt,
    said,
    tags_of,
    with_system,
    words_of,
)

COLUMNS = {
    "messages": ("messages", "conversations", "conversation"),
    "prompt": ("prompt", "instruction", "question"),
    "query": ("input",),
    "response": ("completion", "response", "output", "answer"),
    "label": ("label", "kto_tag"),
    "system": ("system",),
    "history": ("history",),
    "tools": ("tools",),
}
_WORDS = {"true": True, "false": False, "1": True, "0": False}


def detect(rows: Sequence[Values]) -> Confidence | None:
    found = usual_columns(rows, COLUMNS)
    if "label" not in found:
        return None
    count = sum(_good(row.get(found["label"])) is not None and _answered(row, found) for row in rows)
    if not count:
        return None
    unused = ("prompt", "query", "response", "history") if "messages" in found else ()
    if found.get("prompt") != "instruction":
        unused += ("query",)
    columns = {part: name for part, name in found.items() if part not in unused}
    answer = columns["messages"] if "messages" in columns else columns["response"]
    reason = f"{count} of {len(rows)} rows have {answer} and say under {columns['label']} whether it is good."
    return Confidence(count / len(rows), reason, columns, tags_of(rows, columns.values()))


def convert(values: Values, columns: Mapping[str, str], tags: Mapping[str, str]) -> Example:
    if "response" in columns:
        asked, answer = prompt(values, columns, tags), _completion(values, columns["response"], tags)
    else:
        asked, answer = _parted(values, columns, tags)
    label = _label(values, columns.get("label", "label"))
    return Example(asked, kind="unpaired", label=label, chosen=answer, tools=tools(values, columns))


def _parted(
    values: Values, columns: Mapping[str, str], tags: Mapping[str, str]
) -> tuple[tuple[Message, ...], tuple[Message, ...]]:
    """A conversation as its prompt and its last turn, which is the answer."""
    column = columns.get("messages", "messages")
    value = at(values, column)
    if value is None:
        raise RowFault(column, "is missing. Fill it in, or map another column to the messages.")
    messages = checked(said(value, column, tags, by="user", part="conversation"), column)
    if messages[-1].role != "assistant":
        raise RowFault(column, f"ends with a turn of the {messages[-1].role}. The last turn is the answer.")
    return checked_prompt(with_system(messages[:-1], values, columns), column), messages[-1:]


def _completion(values: Values, column: str, tags: Mapping[str, str]) -> tuple[Message, ...]:
    value = at(values, column)
    if value is None:
        raise RowFault(column, lack(values, column, "response"))
    answer = said(value, column, tags, by="assistant", part="response")
    if not answer or answer[-1].role != "assistant":
        raise RowFault(column, "has no turn of the assistant at its end. That turn is the answer.")
    return answer


def _label(values: Values, column: str) -> bool:
    value = at(values, column)
    good = _good(value)
    if good is None and value is None:
        raise RowFault(column, "is missing. It says whether the answer is a good one: true or false.")
    if good is None:
        raise RowFault(column, f"must be true or false, but is {shown(value)}.")
    return good


def _good(value: Any) -> bool | None:
    if isinstance(value, str):
        return _WORDS.get(value.strip().lower())
    return bool(value) if isinstance(value, int | float) and value in (0, 1) else None


def _answered(row: Values, found: Mapping[str, str]) -> bool:
    if "messages" in found:
        value = row.get(found["messages"])
        return looks_like_turns(value, words_of({}, value))
    sides = (row.get(found.get(part, "")) for part in ("prompt", "response"))
    return all(isinstance(side, str) or looks_like_turns(side, words_of({}, side)) for side in sides)


FORMAT = Format("kto", COLUMNS, ("label",), detect, convert, OPENAI)
