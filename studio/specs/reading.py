"""Specs from plain values, YAML and `section.field=value` overrides, and back. Not here: the fields (sections)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from studio.errors import Fault, SpecError
from studio.specs.faults import faults, kind_of
from studio.specs.sections import Section, TrainSpec


def parse(kind: type[Section], values: Mapping[str, Any]) -> Any:
    """Build a spec from nested plain values.

    Raises: SpecError: with every wrong field, its dotted path, and what to do.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise SpecError(faults(kind, error)) from error


def load(path: Path, kind: type[Section] = TrainSpec, overrides: Iterable[str] = ()) -> Any:
    """Read a spec from a YAML file and apply `section.field=value` overrides.

    Raises: SpecError: the file cannot be read, is not YAML, or has wrong fields.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError([Fault(str(path), f"cannot be read: {getattr(error, 'strerror', None) or error}.")]) from error
    return parse(kind, with_overrides(read_yaml(text, str(path)), overrides))


def read_yaml(text: str, source: str = "spec", *, holds: str = "sections such as model: and data:") -> dict[str, Any]:
    """The mapping that a YAML text holds. holds: what it should hold, for the message.

    Raises: SpecError: it is not YAML, with line and column, or not a mapping.
    """
    try:
        values = load_yaml(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        reason = f"is not valid YAML{place}: {getattr(error, 'problem', error)}."
        raise SpecError([Fault(source, reason)]) from error
    if not isinstance(values, dict):
        raise SpecError([Fault(source, f"must hold {holds}, but holds {kind_of(values)}.")])
    return values


_Fast = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def load_yaml(text: str) -> Any:
    """The value of a YAML text, read in C where PyYAML was built with it.

    Raises: yaml.YAMLError: it is none, is nested too deeply, or unfolds out of proportion: an alias stands for as much
        as its anchor, and aliases of aliases for any amount.
    """
    try:
        value = yaml.load(text, _Fast)
    except yaml.YAMLError:
        value = yaml.safe_load(text)  # which says what is wrong in better words
    except (RecursionError, ValueError, OverflowError) as error:
        raise yaml.YAMLError(_UNREADABLE.get(type(error), "it holds a value that cannot be read")) from error
    if not _is_bounded(value):
        raise yaml.YAMLError(f"it unfolds to more than {MAX_VALUES:,} values, or is nested {MAX_DEPTH} deep")
    return value


MAX_VALUES, MAX_DEPTH = 100_000, 50
_UNREADABLE = {RecursionError: f"it is nested {MAX_DEPTH} deep"}


def _is_bounded(value: Any) -> bool:
    """Whether a value holds at most so many, those counted again that stand in several places, and so deep."""
    count, waiting = 0, [(value, 0)]
    while waiting:
        here, depth = waiting.pop()
        count += 1
        if count > MAX_VALUES or depth > MAX_DEPTH:
            return False
        inside = here.values() if isinstance(here, dict) else here if isinstance(here, list) else ()
        waiting.extend((each, depth + 1) for each in inside)
    return True


def with_overrides(values: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """A copy with `section.field=value` applied; values are read as YAML, so `[a, b]`, `null` and `true` work."""
    result = _copy(values)
    for item in overrides:
        path, separator, text = item.partition("=")
        if not separator or not path.strip():
            raise SpecError([Fault(item, "is not of the form section.field=value.")])
        *sections, field = path.strip().split(".")
        place = result
        for section in sections:
            place = place.setdefault(section, {})
            if not isinstance(place, dict):
                raise SpecError([Fault(path, f"{section} is a value, not a section.")])
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise SpecError([Fault(path, f"{text!r} is not a YAML value.")]) from error
        if field == "kind" and sections and place.get(field, value) != value:
            place.clear()  # what was set for another kind of method or stage means nothing to this one
        place[field] = value
    return result


def dump(spec: Section, *, only_changes: bool = False) -> str:
    """The spec as YAML, sections in the order of the class. only_changes: leave out what equals the default."""
    values = _changed(spec) if only_changes else spec.model_dump(mode="json")
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=100)


def changes(spec: Section) -> list[str]:
    """The spec as `section.field=value` overrides of the defaults, for a command line."""

    def flat() -> Iterable[tuple[str, Any]]:
        for name, value in _changed(spec).items():
            if isinstance(value, dict):  # a section, whose own mappings stay whole: their names have dots
                yield from ((f"{name}.{field}", inner) for field, inner in value.items())
            else:
                yield name, value

    return [f"{path}={yaml_value(value)}" for path, value in flat()]


def _changed(spec: Section) -> dict[str, Any]:
    """What differs from the defaults, as nested plain values; a kind of a union always says which one it is."""
    values = spec.model_dump(mode="json", exclude_defaults=True)
    for name, info in type(spec).model_fields.items():
        if info.discriminator and (kind := getattr(spec, name).kind) != info.default.kind:
            values[name] = {"kind": kind, **values.get(name, {})}
    return {name: values[name] for name in type(spec).model_fields if name in values}


def yaml_value(value: Any) -> str:
    """One value as one line of YAML."""
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=math.inf)
    return text.removesuffix("\n").removesuffix("\n...").strip()


def yaml_block(values: Mapping[str, Any]) -> str:
    """A mapping as YAML, one `name: value` per line."""
    text = yaml.safe_dump(dict(values), allow_unicode=True, sort_keys=False, width=math.inf)
    return text.removesuffix("\n")


def _copy(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _copy(value) if isinstance(value, Mapping) else value for key, value in values.items()}
