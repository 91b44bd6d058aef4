"""OpenAI rows: a list of turns under `messages`, each with `role` and `content`; optionally calls and tools.

An assistant's turn may call functions under `tool_calls`, and turns of the role `tool` hold what came of it; the older
`function_call` and role `function` are read too. Not here: images and audio, which are faults.
"""

from collections.abc import Mapping, Sequence

from studio.data.calls import tools
from studio.data.example import Confidence, Example, Format, Values
from studio.data.fields import at, usual_columns
from studio.data.turns import OPENAI, checked, looks_like_turns, turns, with_system, words

COLUMNS = {
    "messages": ("messages", "conversations", "conversation"),
    "system": ("system",),
    "tools": ("tools", "functions"),
}


def detect(rows: Sequence[Values]) -> Confidence | None:
    usual = words({}, "openai")
    counts = {name: sum(looks_like_turns(row.get(name), usual) for row in rows) for name in COLUMNS["messages"]}
    name = max(counts, key=counts.__getitem__)
    if not counts[name]:
        return None
    found = {"messages": name} | usual_columns(rows, COLUMNS, ("system", "tools"))
    reason = f"{counts[name]} of {len(rows)} rows have {name} with role and content."
    return Confidence(counts[name] / len(rows), reason, found)


def convert(values: Values, columns: Mapping[str, str], tags: Mapping[str, str]) -> Example:
    column = columns.get("messages", "messages")
    messages = turns(at(values, column), column, words(tags, "openai"))
    messages = with_system(checked(messages, column), values, columns)
    return Example(messages, tools=tools(values, columns))


FORMAT = Format("openai", COLUMNS, ("messages",), detect, convert, OPENAI)
