"""Calls of functions in the turns of a conversation, and the descriptions of the functions that may be called.

Not here: turns (studio.data.turns); running a function, which the studio never does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from studio.data import decoding
from studio.data.example import RowFault, ToolCall, Values
from studio.data.fields import at, kind, parsed, shown

MAX_CACHED = 16_384
"""Characters of a description of tools that is remembered, since many rows have the same one."""


def calls_of(turn: Mapping[str, Any], place: str) -> tuple[ToolCall, ...]:
    """The calls under `tool_calls`, or the one under `function_call`, as it was written before there were several.

    Raises: RowFault.
    """
    listed, single = turn.get("tool_calls"), turn.get("function_call")
    if not listed:
        return (_call(single, f"{place}.function_call"),) if single else ()
    if isinstance(listed, str):
        listed = parsed(listed, f"{place}.tool_calls")
    if not isinstance(listed, list):
        raise RowFault(f"{place}.tool_calls", f"must be a list of calls, but is {kind(listed)}.")
    return tuple([_call(each, f"{place}.tool_calls[{index}]") for index, each in enumerate(listed)])


def written_calls(value: Any, place: str) -> tuple[ToolCall, ...]:
    """The call, or the list of calls, that a turn holds as JSON text.

    Raises: RowFault.
    """
    fault = RowFault(place, "is not a JSON object with name and arguments, nor a list of them.")
    if isinstance(value, str):
        value = decoding.parse(value.strip()).value
    found = value if isinstance(value, list) else [value]
    if not found or not all(isinstance(each, dict) and {"name", "arguments"} <= each.keys() for each in found):
        raise fault
    try:
        return tuple([_call(each, place) for each in found])
    except RowFault:
        raise fault from None


def tools(values: Values, columns: Mapping[str, str]) -> str:
    """The part `tools` as a JSON list of {"type": "function", "function": …}; "" where there are none.

    Raises: RowFault: it is no list of objects.
    """
    column = columns.get("tools")
    value = at(values, column) if column else None
    if not column or not value:
        return ""
    try:
        if isinstance(value, str) and len(value) <= MAX_CACHED:
            return _described(value)
        return _listed_tools(value)
    except RowFault as fault:
        raise RowFault(column, fault.reason) from None


def named(value: Mapping[str, Any], key: str, place: str) -> str:
    """A name or an id; "" where there is none. A number serves too, because some files count their calls.

    Raises: RowFault.
    """
    found = value.get(key)
    if found is None:
        return ""
    if isinstance(found, bool) or not isinstance(found, str | int):
        raise RowFault(f"{place}.{key}", f"must be text, but is {kind(found)}: {shown(found)}.")
    return str(found)


def _call(value: Any, place: str) -> ToolCall:
    number = named(value, "id", place) if isinstance(value, dict) and "id" in value else ""
    if isinstance(value, dict) and value.get("function") is not None:
        value, place = value["function"], f"{place}.function"
    if not isinstance(value, dict):
        raise RowFault(place, f"must be an object with name and arguments, but is {kind(value)}.")
    name = value.get("name")
    if not isinstance(name, str) or not name.strip():
        raise RowFault(f"{place}.name", "is missing. A call needs the name of its function.")
    return ToolCall(name, _arguments(value.get("arguments"), f"{place}.arguments"), number)


def _arguments(value: Any, place: str) -> str:
    """The arguments of a call as the text of a JSON object."""
    if value is None or value == "":
        return "{}"
    if isinstance(value, str):
        value = parsed(value, place)
    if not isinstance(value, dict):
        raise RowFault(place, f"must be a JSON object, but is {kind(value)}.")
    return _written(value, place)


@lru_cache(maxsize=256)
def _described(text: str) -> str:
    return _listed_tools(parsed(text.strip(), "")) if text.strip() else ""


def _listed_tools(value: Any) -> str:
    if isinstance(value, str):
        value = parsed(value, "")
    found = [value] if isinstance(value, dict) else [] if value is None else value
    if not isinstance(found, list):
        raise RowFault("", f"must be a JSON list of descriptions of functions, but is {kind(value)}.")
    for number, each in enumerate(found, 1):
        if not isinstance(each, dict):
            raise RowFault("", f"must be a list of descriptions of functions, but entry {number} is {kind(each)}.")
    return _written([_function(each) for each in found], "") if found else ""


def _function(tool: dict[str, Any]) -> dict[str, Any]:
    """A description as chat templates expect it, with the function in an object of its own; others stay as they are."""
    if "function" in tool or not isinstance(tool.get("name"), str) or tool.get("type", "function") != "function":
        return tool
    return {"type": "function", "function": {key: value for key, value in tool.items() if key != "type"}}


def _written(value: Any, place: str) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (ValueError, TypeError, RecursionError) as error:
        raise RowFault(place, f"cannot be written as JSON: {error}.") from error
