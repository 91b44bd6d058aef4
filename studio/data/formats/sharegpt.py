"""ShareGPT rows: a list of turns under `conversations`, each with `from` and `value`.

The words can be other ones: the tags role_tag, content_tag, user_tag, assistant_tag and system_tag say which.
Not here: tool calls and their results, which are faults for now.
"""

from collections.abc import Mapping, Sequence

from studio.data.example import Confidence, Example, Format, Message, Values
from studio.data.fields import conversation, optional_text, turns

COLUMNS = {"messages": ("conversations", "conversation"), "system": ("system",)}


def detect(rows: Sequence[Values]) -> Confidence | None:
    fits = [(row, name) for row in rows for name in COLUMNS["messages"] if _reads(row.get(name))]
    if not fits:
        return None
    row, name = fits[0]
    columns = {"messages": name} | ({"system": "system"} if "system" in row else {})
    return Confidence(
        len(fits) / len(rows), f"{len(fits)} of {len(rows)} rows have {name} with from and value.", columns
    )


def convert(values: Values, columns: Mapping[str, str], tags: Mapping[str, str]) -> Example:
    column = columns.get("messages", "conversations")
    messages = turns(
        values.get(column),
        column,
        role_key=tags.get("role_tag", "from"),
        content_key=tags.get("content_tag", "value"),
        roles={
            tags.get("user_tag", "human"): "user",
            tags.get("assistant_tag", "gpt"): "assistant",
            tags.get("system_tag", "system"): "system",
            **({} if tags else {"user": "user", "assistant": "assistant"}),  # many files mix both vocabularies
        },
    )
    system = optional_text(values, columns.get("system"))
    if system.strip() and not any(message.role == "system" for message in messages):
        messages = (Message("system", system), *messages)
    return conversation(messages, column)


def _reads(value: object) -> bool:
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        return False
    return all(isinstance(turn, Mapping) and "from" in turn and "value" in turn for turn in value[:2])


FORMAT = Format("sharegpt", COLUMNS, ("messages",), detect, convert)
