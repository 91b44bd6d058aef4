"""What is wrong with a spec, in words that name the field and what to do. Not here: the limits (sections)."""

from __future__ import annotations

import difflib
import types
from collections.abc import Mapping
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from studio.errors import Fault, unknown


def faults(kind: type[BaseModel], error: ValidationError) -> list[Fault]:
    """Pydantic's errors in our words. A validator over several fields may carry several faults, one per line."""
    faults = []
    for entry in error.errors(include_url=False):
        path = _without_tags(kind, [str(part) for part in entry["loc"]])
        if entry["type"] == "value_error":
            faults += [_split(line, path) for line in str(entry["ctx"]["error"]).splitlines()]
        else:
            faults.append(Fault(".".join(path) or "spec", _reason(kind, path, entry)))
    return faults


def kind_of(value: Any) -> str:
    names = {"NoneType": "nothing", "list": "a list", "str": "text", "dict": "a section", "int": "a number"}
    return names.get(type(value).__name__, f"a {type(value).__name__}")


def _split(line: str, path: list[str]) -> Fault:
    field, separator, reason = line.partition(": ")
    return Fault(field, reason) if separator else Fault(".".join(path) or "spec", line)


_LIMITS = {
    "greater_than": "must be above {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than": "must be below {lt:g}",
    "less_than_equal": "must be at most {le:g}",
    "too_short": "needs at least {min_length}",
    "too_long": "takes at most {max_length}",
    "string_too_short": "must not be empty",
    "string_too_long": "takes at most {max_length} characters",
    "literal_error": "must be one of {expected}",
    "missing": "is missing. Fill it in",
    "finite_number": "must be a finite number",
    "string_pattern_mismatch": "may hold letters, digits, dots, dashes, underscores, and starts with a letter or digit",
    "int_from_float": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "string_type": "must be text",
    "tuple_type": "must be a list",
}


def _reason(kind: type[BaseModel], path: list[str], entry: Mapping[str, Any]) -> str:
    if entry["type"] == "extra_forbidden":
        known = sorted(_section(kind, [str(part) for part in entry["loc"][:-1]]).model_fields)
        near = difflib.get_close_matches(path[-1], known, n=1)
        what = f"is not a field{_of(entry)}"
        return f"{what}. Did you mean {near[0]}?" if near else f"{what}. Known: {', '.join(known)}."
    if entry["type"] == "union_tag_invalid":
        tags = [tag.strip().strip("'") for tag in entry["ctx"]["expected_tags"].split(",")]
        return unknown("kind", entry["ctx"]["tag"], tags)
    if entry["type"] in ("model_type", "model_attributes_type"):
        return f"must be a section with fields, but is {kind_of(entry['input'])}."
    text = _LIMITS.get(entry["type"])
    said = text.format(**entry.get("ctx", {})) if text else entry["msg"][0].lower() + entry["msg"][1:]
    given = "" if entry["type"] == "missing" else f", but is {_shown(entry['input'])}"
    return f"{said}{given}."


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _section(kind: type[BaseModel], loc: list[str]) -> type[BaseModel]:
    """The class of the section at a place, where a union's part is named by its tag."""
    section: Any = kind
    for part in loc:
        section = section.model_fields[part].annotation if isinstance(section, type) else _tagged(section)[part]
    return section


def _tagged(union: Any) -> dict[str, type[BaseModel]]:
    """The classes of a discriminated union by their kind."""
    return {get_args(each.model_fields["kind"].annotation)[0]: each for each in get_args(union)}


def _without_tags(kind: type[BaseModel], loc: list[str]) -> list[str]:
    """A place as a user writes it: pydantic also names the kind of a union that it is in."""
    if len(loc) > 1 and loc[0] in kind.model_fields:
        annotation = kind.model_fields[loc[0]].annotation
        if get_origin(annotation) in (Union, types.UnionType) and loc[1] in _tagged_or_none(annotation):
            return [loc[0], *loc[2:]]
    return loc


def _tagged_or_none(annotation: Any) -> dict[str, type[BaseModel]]:
    parts = get_args(annotation)
    models = all(isinstance(each, type) and issubclass(each, BaseModel) for each in parts)
    return _tagged(annotation) if models else {}


def _of(entry: Mapping[str, Any]) -> str:
    loc = entry["loc"]
    return f" of {loc[0]} {loc[1]}" if len(loc) > 2 else ""
