"""OpenAI rows: a list of turns under `messages`, each with `role` and `content`.

Not here: tool calls and their results, images and audio, which are faults for now.
"""

from collections.abc import Mapping, Sequence

from studio.data.example import Confidence, Example, Format, Message, Role, Values
from studio.data.fields import conversation, optional_text, turns

COLUMNS = {"messages": ("messages", "conversations", "conversation"), "system": ("system",)}
ROLES: dict[str, Role] = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}


def detect(rows: Sequence[Values]) -> Confidence | None:
    fits = [(row, name) for row in rows for name in COLUMNS["messages"] if _reads(row.get(name))]
    if not fits:
        return None
    row, name = fits[0]
    columns = {"messages": name} | ({"system": "system"} if isinstance(row.get("system"), str) else {})
    reason = f"{len(fits)} of {len(rows)} rows have {name} with role and content."
    return Confidence(len(fits) / len(rows), reason, columns)


def convert(values: Values, columns: Mapping[str, str], tags: Mapping[str, str]) -> Example:
    column = columns.get("messages", "messages")
    messages = turns(values.get(column), column, role_key="role", content_key="content", roles=ROLES)
    system = optional_text(values, columns.get("system"))
    if system.strip() and not any(message.role == "system" for message in messages):
        messages = (Message("system", system), *messages)
    return conversation(messages, column)


def _reads(value: object) -> bool:
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        return False
    return all(isinstance(turn, Mapping) and "role" in turn and "content" in turn for turn in value[:2])


FORMAT = Format("openai", COLUMNS, ("messages",), detect, convert)
