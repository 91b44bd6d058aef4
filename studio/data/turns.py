"""Reading conversations: turns in the words of the data, and prompts in all their shapes.

Two vocabularies are known, that of ShareGPT (from, value, human, gpt) and that of OpenAI (role, content, user,
assistant); tags replace single words of them. Not here: columns and texts (studio.data.fields), what a call
holds (studio.data.calls), which columns a format has (studio.data.formats).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from studio.data import decoding
from studio.data.calls import calls_of, named, written_calls
from studio.data.example import Message, Role, RowFault, Values
from studio.data.fields import at, kind, lack, optional_text, parsed, shown

Tags = Mapping[str, str]
Vocabulary = Literal["sharegpt", "openai"]

SHAREGPT: dict[str, str] = {
    "role_tag": "from",
    "content_tag": "value",
    "user_tag": "human",
    "assistant_tag": "gpt",
    "observation_tag": "observation",
    "function_tag": "function_call",
    "system_tag": "system",
}
OPENAI: dict[str, str] = {
    "role_tag": "role",
    "content_tag": "content",
    "user_tag": "user",
    "assistant_tag": "assistant",
    "observation_tag": "tool",
    "function_tag": "function",
    "system_tag": "system",
}
_USUAL = {"sharegpt": SHAREGPT, "openai": OPENAI}
_ROLES: dict[str, Role] = {
    "user_tag": "user",
    "assistant_tag": "assistant",
    "observation_tag": "tool",
    "function_tag": "assistant",
    "system_tag": "system",
}
_ALSO: dict[str, Role] = {
    "human": "user",
    "gpt": "assistant",
    "user": "user",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "developer": "system",
    "system": "system",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
}
"""Words that files mix into either vocabulary; they hold as long as no word for a role is replaced."""
_THOUGHTS = ("reasoning_content", "reasoning", "thinking")
_BESIDE = frozenset((*_THOUGHTS, "train", "weight", "name", "tool_call_id"))
"""What may stand beside the content of a turn; most turns have none of it."""


class Words(NamedTuple):
    """How turns are written. role_key: empty where turns have no role and alternate, the user first.

    content_key: empty where a turn is its text. roles: word -> role. call: the word of a turn that is a call.
    """

    role_key: str
    content_key: str
    roles: dict[str, Role]
    call: str


def words(tags: Tags, vocabulary: Vocabulary) -> Words:
    """The words of a vocabulary, with those that the tags replace."""
    return _words(vocabulary, tuple(tags.items()))


def words_of(tags: Tags, value: Any) -> Words:
    """The words of turns that may be in either vocabulary, by what the first turn looks like."""
    first = value[0] if isinstance(value, list) and value else value
    return words(tags, "sharegpt" if isinstance(first, dict) and "from" in first else "openai")


def tags_of(rows: Sequence[Values], columns: Iterable[str]) -> dict[str, str]:
    """The tags for turns under some columns, if they are in the words of ShareGPT; without tags it is OpenAI's."""
    found = (row.get(column) for column in columns for row in rows)
    firsts = (value[0] if isinstance(value, list) and value else value for value in found)
    return dict(SHAREGPT) if any(isinstance(first, dict) and "from" in first for first in firsts) else {}


def looks_like_turns(value: Any, words: Words) -> bool:
    """Whether a value is a list of turns, or the JSON text of one, judged by its first two."""
    if isinstance(value, str) and value.startswith("["):
        value = decoding.parse(value.strip()).value
    return isinstance(value, list) and bool(value) and all(_looks_like_turn(turn, words) for turn in value[:2])


def turns(value: Any, place: str, words: Words) -> tuple[Message, ...]:
    """The messages of a list of turns, or of the same list as JSON text, as tables hold it.

    Raises: RowFault.
    """
    if value is None:
        raise RowFault(place, "is missing. Fill it in, or map another column to the messages.")
    if isinstance(value, str) and value.startswith("["):
        value = parsed(value, place)
    if not isinstance(value, list):
        raise RowFault(place, f"must be a list of turns, but is {kind(value)}.")
    if not words.role_key:
        return tuple([_alternating(turn, place, index, words) for index, turn in enumerate(value)])
    return tuple([_turn(turn, place, index, words) for index, turn in enumerate(value)])


def said(value: Any, place: str, tags: Tags, *, by: Role, part: str) -> tuple[Message, ...]:
    """What someone says: a text, one turn, or a list of turns. by: whose text it is. part: what it is for.

    Raises: RowFault.
    """
    if isinstance(value, str) and not _is_written_list(value):
        if not value.strip():
            raise RowFault(place, f"is empty. The {part} needs text.")
        return (Message(by, value),)
    if isinstance(value, str):
        value = parsed(value, place)
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list):
        raise RowFault(place, f"must be text, a turn or a list of turns, but is {kind(value)}: {shown(value)}.")
    return turns(value, place, words_of(tags, value))


def prompt(values: Values, columns: Mapping[str, str], tags: Tags) -> tuple[Message, ...]:
    """What is asked: the parts system, history, prompt (text or turns) and query, or messages; with nothing amiss.

    Raises: RowFault.
    """
    column = columns.get("messages")
    if column:
        asked = said(at(values, column), column, tags, by="user", part="prompt")
        return checked_prompt(with_system(asked, values, columns), column)
    column = columns.get("prompt", "prompt")
    value, query = at(values, column), optional_text(values, columns.get("query"))
    if value is None and not query.strip():
        raise RowFault(column, lack(values, column, "prompt"))
    if value is None or (isinstance(value, str) and query.strip()):
        value = f"{value}\n{query}" if value and value.strip() else query
    asked = said(value, column, tags, by="user", part="prompt")
    return checked_prompt(with_system((*history(values, columns), *asked), values, columns), column)


def history(values: Values, columns: Mapping[str, str]) -> tuple[Message, ...]:
    """Earlier turns, as a list of [question, answer] pairs.

    Raises: RowFault.
    """
    column = columns.get("history")
    pairs = at(values, column) if column else None
    if not column or pairs is None or pairs == "":
        return ()
    if isinstance(pairs, str):
        pairs = parsed(pairs, column)
    if not isinstance(pairs, list):
        raise RowFault(column, f"must be a list of [question, answer] pairs, but is {kind(pairs)}.")
    messages: list[Message] = []
    for index, pair in enumerate(pairs):
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(t, str) and t.strip() for t in pair):
            raise RowFault(f"{column}[{index}]", "must be a pair of a question and an answer, both text.")
        messages += [Message("user", pair[0]), Message("assistant", pair[1])]
    return tuple(messages)


def with_system(messages: tuple[Message, ...], values: Values, columns: Mapping[str, str]) -> tuple[Message, ...]:
    """The messages after the text of the part `system`, unless they bring a system turn of their own.

    Raises: RowFault.
    """
    system = optional_text(values, columns.get("system"))
    if not system or system.isspace() or any(message.role == "system" for message in messages):
        return messages
    return (Message("system", system), *messages)


def checked(messages: tuple[Message, ...], place: str) -> tuple[Message, ...]:
    """The messages, if there is something to learn from them.

    Raises: RowFault: no assistant turn, one that answers nothing, or a system turn that is not the first.
    """
    roles = [message.role for message in messages]
    if "system" in roles[1:]:
        index = roles.index("system", 1)
        raise RowFault(f"{place}[{index}]", "is a system turn that is not the first turn. Move it to the start.")
    if "assistant" not in roles:
        raise RowFault(place, "has no assistant turn, so there is nothing to learn from it.")
    if "user" not in roles:
        raise RowFault(place, "has an assistant turn that answers nothing. Add the user's turn before it.")
    return messages


def checked_prompt(messages: tuple[Message, ...], place: str) -> tuple[Message, ...]:
    """The messages, if they can be answered.

    Raises: RowFault: no user turn, a last turn that is nobody's question, or a system turn that is not the first.
    """
    if not any(message.role == "user" for message in messages):
        raise RowFault(place, "has no turn of the user, so there is nothing to answer.")
    if messages[-1].role not in ("user", "tool"):
        last = messages[-1].role
        raise RowFault(place, f"ends with a turn of the {last}. A prompt ends with the turn that is to be answered.")
    for index, message in enumerate(messages[1:], 1):
        if message.role == "system":
            raise RowFault(place, f"has a system turn as its turn {index + 1}. Move it to the start.")
    return messages


# --- Single turns ---


def _looks_like_turn(value: Any, words: Words) -> bool:
    if not words.role_key and not words.content_key:
        return isinstance(value, str)
    if not isinstance(value, dict) or (words.role_key and words.role_key not in value):
        return False
    return words.content_key in value or "tool_calls" in value


def _is_written_list(text: str) -> bool:
    """Whether a text is a list of turns as tables hold it, rather than a text that happens to begin with a bracket."""
    return text.startswith("[{") and any(looks_like_turns(text, words({}, each)) for each in _USUAL)


def _turn(value: Any, place: str, index: int, words: Words) -> Message:
    if not isinstance(value, dict):
        what = f"{words.role_key} and {words.content_key}"
        raise RowFault(f"{place}[{index}]", f"must be a turn with {what}, but is {kind(value)}.")
    word = value.get(words.role_key)
    role = words.roles.get(word) if isinstance(word, str) else None
    if role is None:
        raise RowFault(f"{place}[{index}].{words.role_key}", _role_fault(word, words))
    content = value.get(words.content_key)
    beside = {} if len(value) < 3 or _BESIDE.isdisjoint(value) else _beside(value, role, f"{place}[{index}]")
    if word == words.call:
        return Message("assistant", "", written_calls(content, f"{place}[{index}].{words.content_key}"), **beside)
    calls = calls_of(value, f"{place}[{index}]") if role == "assistant" else ()
    if not isinstance(content, str):
        content = "" if calls and content is None else _content(content, f"{place}[{index}].{words.content_key}")
    # the result of a call may well be nothing
    if (not content or content.isspace()) and not calls and role != "tool":
        raise RowFault(f"{place}[{index}].{words.content_key}", f"is empty. A turn of the {role} needs text.")
    return Message(role, content, calls, **beside) if beside else Message(role, content, calls)


def _beside(turn: Mapping[str, Any], role: Role, place: str) -> dict[str, Any]:
    """What stands beside the content, as far as it means something for the role."""
    if role == "assistant":
        return {"thought": _thought(turn, place), "train": _trained(turn, place)}
    if role == "tool":
        return {"name": named(turn, "name", place), "call_id": named(turn, "tool_call_id", place)}
    return {}


def _thought(turn: Mapping[str, Any], place: str) -> str:
    for key in _THOUGHTS:
        found = turn.get(key)
        if found is not None and not isinstance(found, str):
            raise RowFault(f"{place}.{key}", f"must be text, but is {kind(found)}: {shown(found)}.")
        if found and not found.isspace():
            return found
    return ""


def _trained(turn: Mapping[str, Any], place: str) -> bool | None:
    """Whether an answer is learned, as `train` or as `weight` says it; None where neither does."""
    train, weight = turn.get("train"), turn.get("weight")
    if train is not None and not isinstance(train, bool):
        raise RowFault(f"{place}.train", f"must be true or false, but is {shown(train)}.")
    if weight is None:
        return train
    if not isinstance(weight, bool | int | float) or weight not in (0, 1):
        raise RowFault(f"{place}.weight", f"must be 0 (not learned) or 1 (learned), but is {shown(weight)}.")
    if train is not None and train != bool(weight):
        raise RowFault(f"{place}.weight", f"is {shown(weight)}, but train is {shown(train)}. Keep one of the two.")
    return bool(weight)


def _alternating(value: Any, place: str, index: int, words: Words) -> Message:
    role: Role = "assistant" if index % 2 else "user"
    inner = f".{words.content_key}" if words.content_key else ""
    beside: dict[str, Any] = {}
    if words.content_key:
        if not isinstance(value, dict):
            raise RowFault(f"{place}[{index}]", f"must be a turn with {words.content_key}, but is {kind(value)}.")
        if not _BESIDE.isdisjoint(value):
            beside = _beside(value, role, f"{place}[{index}]")
        value = value.get(words.content_key)
    content = _content(value, f"{place}[{index}]{inner}")
    if not content.strip():
        raise RowFault(f"{place}[{index}]{inner}", f"is empty. A turn of the {role} needs text.")
    return Message(role, content, **beside)


def _role_fault(word: Any, words: Words) -> str:
    if word is None:
        return "is missing."
    if not isinstance(word, str):
        return f"must be text, but is {kind(word)}."
    return f"is the unknown role {shown(word)}. Known: {', '.join(words.roles)}."


def _content(value: Any, place: str) -> str:
    """Text, or a list of parts that are all text, as some chat services write it."""
    if isinstance(value, list):
        return "".join([_part(part, f"{place}[{index}]") for index, part in enumerate(value)])
    if not isinstance(value, str):
        raise RowFault(place, "is missing." if value is None else f"must be text, but is {kind(value)}.")
    return value


def _part(part: Any, place: str) -> str:
    if isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str):
        return part["text"]
    raise RowFault(place, f"must be a text part, but is {shown(part)}. Only text can be learned here.")


# --- Vocabularies ---


@lru_cache(maxsize=64)
def _words(vocabulary: Vocabulary, tags: tuple[tuple[str, str], ...]) -> Words:
    usual = _USUAL[vocabulary]
    chosen = {**usual, **dict(tags)}
    roles = {chosen[tag]: role for tag, role in _ROLES.items()}
    call = chosen["function_tag"]
    if call == "function":  # with OpenAI this word is a result's, as the older name of `tool`
        roles[call], call = "tool", ""
    if all(chosen[tag] == usual[tag] for tag in _ROLES):
        roles |= {word: role for word, role in _ALSO.items() if word not in roles}
    return Words(chosen["role_tag"], chosen["content_tag"], roles, call)
