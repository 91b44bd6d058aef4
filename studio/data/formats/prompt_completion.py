"""Prompt and completion rows: a question and its answer in two columns; optionally a system text and tools.

Either may be text, or a list of turns as trl's conversational sets have it. Not here: rows with an instruction and an
input (alpaca).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from studio.data.calls import tools
from studio.data.example import Confidence, Example, Format, Message, RowFault, Values
from studio.data.fields import at, lack, needed_text, usual_columns
from studio.data.turns import (
    OPENAI,
    checked,
    checked_prompt,
    looks_like_turns,
    said,
    tags_of,
    with_system,
    words_of,
)

COLUMNS = {
    "prompt": ("prompt", "question", "query", "input"),
    "response": ("completion", "answer", "response", "output"),
    "system": ("system",),
    "tools": ("tools",),
}


def detect(rows: Sequence[Values]) -> Confidence | None:
    pairs = [(prompt, response) for prompt in COLUMNS["prompt"] for response in COLUMNS["response"]]
    counts = {(p, r): sum(_readable(row.get(p)) and _readable(row.get(r)) for row in rows) for p, r in pairs}
    prompt, response = best = max(pairs, key=counts.__getitem__)
    if not counts[best]:
        return None
    found = {"prompt": prompt, "response": response} | usual_columns(rows, COLUMNS, ("system", "tools"))
    reason = f"{counts[best]} of {len(rows)} rows have {prompt} and {response}."
    return Confidence(counts[best] / len(rows), reason, found, tags_of(rows, best))


def convert(values: Values, columns: Mapping[str, str], tags: Mapping[str, str]) -> Example:
    prompt, response = columns.get("prompt", "prompt"), columns.get("response", "completion")
    asked, answered = at(values, prompt), at(values, response)
    if _may_be_turns(asked) or _may_be_turns(answered):
        messages = _conversation(values, (prompt, asked), (response, answered), tags)
    else:
        question = needed_text(values, prompt, "prompt")
        messages = (Message("user", question), Message("assistant", needed_text(values, response, "response")))
    return Example(with_system(messages, values, columns), tools=tools(values, columns))


def _conversation(
    values: Values, prompt: tuple[str, Any], response: tuple[str, Any], tags: Mapping[str, str]
) -> tuple[Message, ...]:
    for (column, value), part in ((prompt, "prompt"), (response, "response")):
        if value is None:
            raise RowFault(column, lack(values, column, part))
    asked = checked_prompt(said(prompt[1], prompt[0], tags, by="user", part="prompt"), prompt[0])
    answered = said(response[1], response[0], tags, by="assistant", part="response")
    checked((*asked, *answered), response[0])
    return (*asked, *answered)


def _may_be_turns(value: Any) -> bool:
    return value.startswith("[{") if isinstance(value, str) else isinstance(value, list | dict)


def _readable(value: Any) -> bool:
    return isinstance(value, str) or looks_like_turns(value, words_of({}, value))


FORMAT = Format("prompt_completion", COLUMNS, ("prompt", "response"), detect, convert, OPENAI)
