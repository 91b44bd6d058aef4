"""ShareGPT rows: a list of turns under `conversations`, each with `from` and `value`; optionally tools.

The words can be other ones: the tags say which. An empty role_tag: turns without roles, the user's first. A turn of the
function_tag holds a call, or a list of calls, as JSON; one of the observation_tag holds what came of it. Not here:
turns with `role` and `content` (openai), though those words are understood where a file mixes both.
"""

from collections.abc import Mapping, Sequence

from studio.data.calls import tools
from studio.data.example import Confidence, Example, Format, Values
from studio.data.fields import at, usual_columns
from studio.data.turns import SHAREGPT, checked, looks_like_turns, turns, with_system, words

COLUMNS = {
    "messages": ("conversations", "conversation", "messages"),
    "system": ("system",),
    "tools": ("tools", "functions"),
}


def detect(rows: Sequence[Values]) -> Confidence | None:
    usual = words({}, "sharegpt")
    counts = {name: sum(looks_like_turns(row.get(name), usual) for row in rows) for name in COLUMNS["messages"]}
    name = max(counts, key=counts.__getitem__)
    if not counts[name]:
        return None
    found = {"messages": name} | usual_columns(rows, COLUMNS, ("system", "tools"))
    reason = f"{counts[name]} of {len(rows)} rows have {name} with from and value."
    return Confidence(counts[name] / len(rows), reason, found)


def convert(values: Values, columns: Mapping[str, str], tags: Mapping[str, str]) -> Example:
    column = columns.get("messages", "conversations")
    messages = turns(at(values, column), column, words(tags, "sharegpt"))
    messages = with_system(checked(messages, column), values, columns)
    return Example(messages, tools=tools(values, columns))


FORMAT = Format("sharegpt", COLUMNS, ("messages",), detect, convert, SHAREGPT)
