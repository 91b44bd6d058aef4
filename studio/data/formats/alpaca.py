"""Alpaca rows: instruction, an optional input, and the output; optionally a system text, earlier turns and tools.

Not here: single prompts with completions (prompt_completion), though the two are alike.
"""

from collections.abc import Mapping, Sequence

from studio.data.calls import tools
from studio.data.example import Confidence, Example, Format, Message, RowFault, Values
from studio.data.fields import lack, needed_text, optional_text, usual_columns
from studio.data.turns import history, with_system

COLUMNS = {
    "prompt": ("instruction",),
    "query": ("input", "context"),
    "response": ("output", "response"),
    "system": ("system",),
    "history": ("history",),
    "tools": ("tools",),
}


def detect(rows: Sequence[Values]) -> Confidence | None:
    found = usual_columns(rows, COLUMNS)
    if "prompt" not in found or "response" not in found:
        return None
    pair = found["prompt"], found["response"]
    count = sum(isinstance(row.get(pair[0]), str) and isinstance(row.get(pair[1]), str) for row in rows)
    reason = f"{count} of {len(rows)} rows have {pair[0]} and {pair[1]}."
    return Confidence(count / len(rows), reason, found) if count else None


def convert(values: Values, columns: Mapping[str, str], tags: Mapping[str, str]) -> Example:
    prompt = columns.get("prompt", "instruction")
    question = optional_text(values, prompt)
    query = optional_text(values, columns.get("query"))
    if query and not query.isspace():
        question = f"{question}\n{query}" if question and not question.isspace() else query
    elif not question or question.isspace():
        raise RowFault(prompt, lack(values, prompt, "prompt"))
    response = needed_text(values, columns.get("response", "output"), "response")
    messages = (Message("user", question), Message("assistant", response))
    if "history" in columns:
        messages = history(values, columns) + messages
    if "system" in columns:
        messages = with_system(messages, values, columns)
    return Example(messages, tools=tools(values, columns)) if "tools" in columns else Example(messages)


FORMAT = Format("alpaca", COLUMNS, ("prompt", "response"), detect, convert)
