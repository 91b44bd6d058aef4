"""Reading fields of a row, and turns of a conversation, with faults that name the place and what was found there.

Not here: which fields a format has (studio.data.formats).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from studio.data.example import Example, Message, Role, RowFault, Values

_KINDS = {
    "NoneType": "nothing",
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "list": "a list",
    "dict": "an object",
}


def kind(value: Any) -> str:
    """The type of a value, in words."""
    name = type(value).__name__
    return _KINDS.get(name, f"a {name}")


def needed_text(values: Values, column: str, part: str) -> str:
    """The text of a column that must be there and must not be blank. part: what it is for, such as `response`.

    Raises: RowFault.
    """
    if values.get(column) is None:
        raise RowFault(column, f"is missing. Fill it in, or map another column to the {part}{_others(values, column)}.")
    text = optional_text(values, column)
    if not text.strip():
        raise RowFault(column, f"is empty. The {part} needs text.")
    return text


def optional_text(values: Values, column: str | None) -> str:
    """The text of a column, or "" where the column, or its value in this row, is absent.

    Raises: RowFault: the value is not text.
    """
    value = values.get(column) if column else None
    if value is None:
        return ""
    if not isinstance(value, str):
        raise RowFault(str(column), f"must be text, but is {kind(value)}: {shown(value)}.")
    return value


def turns(value: Any, place: str, *, role_key: str, content_key: str, roles: Mapping[str, Role]) -> tuple[Message, ...]:
    """The messages of a list of {role, content} objects. roles: the words the data uses, and what they mean.

    Raises: RowFault.
    """
    if value is None:
        raise RowFault(place, "is missing. Fill it in, or map another column to the messages.")
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise RowFault(place, f"must be a list of turns, but is {kind(value)}.")
    return tuple(_turn(each, f"{place}[{index}]", role_key, content_key, roles) for index, each in enumerate(value))


def conversation(messages: tuple[Message, ...], place: str) -> Example:
    """An Example of the messages, if there is something to learn from them.

    Raises: RowFault: there is no assistant turn, or a system turn that is not the first.
    """
    for index, message in enumerate(messages):
        if message.role == "system" and index > 0:
            raise RowFault(f"{place}[{index}]", "is a system turn that is not the first turn. Move it to the start.")
    if not any(message.role == "assistant" for message in messages):
        raise RowFault(place, "has no assistant turn, so there is nothing to learn from it.")
    if messages[0].role == "assistant" and len(messages) == 1:
        raise RowFault(place, "has an assistant turn that answers nothing. Add the user's turn before it.")
    return Example(messages=messages)


def shown(value: Any) -> str:
    """A value, short enough for a message."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _turn(value: Any, place: str, role_key: str, content_key: str, roles: Mapping[str, Role]) -> Message:
    if not isinstance(value, Mapping):
        raise RowFault(place, f"must be a turn with {role_key} and {content_key}, but is {kind(value)}.")
    word = value.get(role_key)
    if not isinstance(word, str):
        raise RowFault(f"{place}.{role_key}", "is missing." if word is None else f"must be text, but is {kind(word)}.")
    role = roles.get(word)
    if role is None:
        raise RowFault(f"{place}.{role_key}", f"is the unknown role {shown(word)}. Known: {', '.join(roles)}.")
    content = _content(value.get(content_key), f"{place}.{content_key}")
    if not content.strip():
        raise RowFault(f"{place}.{content_key}", f"is empty. A turn of the {role} needs text.")
    return Message(role, content)


def _content(value: Any, place: str) -> str:
    """Text, or a list of parts that are all text, as some chat services write it."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "".join(_part(part, f"{place}[{index}]") for index, part in enumerate(value))
    if not isinstance(value, str):
        raise RowFault(place, "is missing." if value is None else f"must be text, but is {kind(value)}.")
    return value


def _part(part: Any, place: str) -> str:
    if isinstance(part, Mapping) and part.get("type") == "text" and isinstance(part.get("text"), str):
        return part["text"]
    raise RowFault(place, f"must be a text part, but is {shown(part)}. Only text can be learned here.")


def _others(values: Values, column: str) -> str:
    names = [name for name, value in values.items() if name != column and isinstance(value, str) and value.strip()]
    return f" (columns with text in this row: {', '.join(names[:8])})" if names else ""
