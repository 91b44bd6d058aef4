"""The fields of a TrainSpec as a form needs them, and what a widget holds for a value, both ways.

A field that several methods or stages have is one field, with each kind's own default and limits. Nothing here names a
field except where a list of choices comes from elsewhere (datasets, templates). Not here: widgets (studio.ui.form).
"""

from __future__ import annotations

import re
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MaxLen
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from studio import specs
from studio.errors import Fault, SpecError
from studio.specs import TrainSpec

NAMED_ELSEWHERE = ("data.datasets", "template.name")
"""Fields whose choices are registered names, filled in when the page loads."""

Widget = Literal["choice", "picks", "flag", "whole", "number", "numbers", "text", "long_text", "names", "mapping"]


@dataclass(frozen=True)
class FormField:
    """One field of the spec, as the form sees it. least and most: limits, None where there is none.

    by_kind: the field as each kind of method or stage has it; empty where the field is always there.
    apart: it stands in sight under some kinds and is folded under others; this is the folded one.
    """

    path: str
    widget: Widget
    optional: bool
    front: bool
    default: Any
    choices: tuple[str, ...] = ()
    least: float | None = None
    most: float | None = None
    by_kind: Mapping[str, FormField] = field(default_factory=dict, repr=False)
    apart: bool = False

    @property
    def section(self) -> str:
        return self.path.partition(".")[0]

    @property
    def name(self) -> str:
        """Its name in its section; empty for a field of the spec itself."""
        return self.path.partition(".")[2]

    @property
    def key(self) -> str:
        """The dotted path, which names the widget."""
        return f"{self.path}.folded" if self.apart else self.path

    def under(self, kind: str | None) -> FormField | None:
        """The field as a kind of its section has it. None: that kind has no such field."""
        return self.by_kind.get(kind or "") if self.by_kind else self


@cache
def fields() -> tuple[FormField, ...]:
    """Every field of TrainSpec, under every kind, in order."""
    return tuple(each for section in TrainSpec.model_fields for each in _of_section(section))


def read(values: Sequence[Any]) -> TrainSpec:
    """The spec that the widgets' raw values stand for; what the chosen method or stage does not have is passed over.

    Raises: SpecError: with every wrong field's dotted path and what to do.
    """
    given = list(zip(fields(), values, strict=True))
    chosen = {each.section: value for each, value in given if each.name == "kind"}
    nested: dict[str, Any] = {}
    faults: list[Fault] = []
    for each, value in given:
        here = each.under(chosen.get(each.section))
        if here is None:
            continue
        try:
            _put(nested, each, _given(here, value))
        except SpecError as error:
            faults += error.faults
    try:
        spec = specs.parse(TrainSpec, nested)
    except SpecError as error:
        raise SpecError([*faults, *error.faults]) from error
    if faults:
        raise SpecError(faults)
    return spec


def of(spec: TrainSpec) -> Iterator[tuple[FormField, FormField | None, Any]]:
    """Each field, the field as the spec's method or stage has it (None: it has none), and its value there."""
    for each in fields():
        place = getattr(spec, each.section) if each.name else spec
        here = each.under(getattr(place, "kind", None))
        yield each, here, getattr(place, each.name or each.section) if here else None


def shown(here: FormField, value: Any) -> Any:
    """What the widget holds for a value."""
    match here.widget:
        case "names" if here.path in NAMED_ELSEWHERE:
            return list(value)
        case "picks":
            return list(value)
        case "names":
            return "\n".join(each.replace("\\", "\\\\").replace("\n", "\\n") for each in value)
        case "numbers":
            return "\n".join(f"{each:g}" if float(f"{each:g}") == each else str(each) for each in value)
        case "mapping":
            return specs.yaml_block(value) if value else ""
        case "text" | "long_text":
            return value or ""
        case "whole" | "number" if here.optional:
            return "" if value is None else str(value)
    return value


# --- from the spec's classes to fields


def _of_section(section: str) -> Iterator[FormField]:
    info = TrainSpec.model_fields[section]
    if section in specs.UNIONS:
        yield from _of_union(section)
    elif isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
        for name, inner in info.annotation.model_fields.items():
            yield _field(f"{section}.{name}", inner)
    else:
        yield _field(section, info)


def _of_union(section: str) -> Iterator[FormField]:
    kinds = specs.kinds(section)
    default = TrainSpec.model_fields[section].default.kind
    help_and_front = kinds[default].model_fields["kind"]
    yield replace(_field(f"{section}.kind", help_and_front), choices=tuple(kinds), front=True, default=default)
    found: dict[tuple[str, bool], dict[str, FormField]] = {}
    for kind, each in kinds.items():
        for name, info in each.model_fields.items():
            if name != "kind":
                here = _field(f"{section}.{name}", info)
                found.setdefault((name, here.front), {})[kind] = here
    for (name, front), by_kind in found.items():
        first = by_kind.get(default) or next(iter(by_kind.values()))
        yield replace(first, by_kind=by_kind, apart=not front and (name, True) in found)


def _field(path: str, info: FieldInfo) -> FormField:
    annotation, optional = _without_none(info.annotation)
    limits = _limits(info.metadata)
    return FormField(
        path=path,
        widget=_widget(annotation, info.metadata),
        optional=optional,
        front=bool((info.json_schema_extra or {}).get("front")),  # type: ignore[union-attr]
        default=info.get_default(call_default_factory=True),
        choices=tuple(map(str, _choices(annotation))),
        least=limits.get("least"),
        most=limits.get("most"),
    )


def _without_none(annotation: Any) -> tuple[Any, bool]:
    if get_origin(annotation) is Annotated:
        return _without_none(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        (inner,) = [part for part in get_args(annotation) if part is not type(None)]
        return inner, True
    return annotation, False


def _choices(annotation: Any) -> tuple[Any, ...]:
    if get_origin(annotation) is tuple:
        annotation = get_args(annotation)[0]
    return get_args(annotation) if get_origin(annotation) is Literal else ()


def _widget(annotation: Any, metadata: Iterable[Any]) -> Widget:
    if get_origin(annotation) is dict:
        return "mapping"
    if get_origin(annotation) is tuple:
        inner, _ = _without_none(get_args(annotation)[0])
        return "picks" if _choices(annotation) else "names" if inner is str else "numbers"
    if get_origin(annotation) is Literal:
        return "choice"
    if annotation is str and any(isinstance(each, MaxLen) and each.max_length > 1000 for each in metadata):
        return "long_text"
    plain: dict[Any, Widget] = {bool: "flag", int: "whole", float: "number", str: "text"}
    return plain[annotation]


def _limits(metadata: Iterable[Any]) -> dict[str, float]:
    found = {}
    for each in metadata:
        match each:
            case Ge(ge=limit) | Gt(gt=limit):
                found["least"] = limit
            case Le(le=limit) | Lt(lt=limit):
                found["most"] = limit
    return found


# --- from what a widget holds to a value


def _put(nested: dict[str, Any], each: FormField, value: Any) -> None:
    if each.name:
        nested.setdefault(each.section, {})[each.name] = value
    else:
        nested[each.section] = value


def _given(here: FormField, value: Any) -> Any:
    """Raises: SpecError: it is empty and must not be, or no mapping."""
    text = value.strip() if isinstance(value, str) else value
    match here.widget:
        case "picks":
            return list(value or ())
        case "names":
            return list(value or ()) if here.path in NAMED_ELSEWHERE else _lines(value or "")
        case "numbers":
            return re.split(r"[\s,;]+", text) if text else []
        case "mapping":
            return specs.read_yaml(text, here.path, holds="lines of the form name: value") if text else {}
    if text not in (None, ""):
        return value
    if here.optional:
        return None
    default = specs.yaml_value(here.default)
    raise SpecError([Fault(here.path, f"is empty. Fill it in; the default is {default}.")])


def _lines(text: str) -> list[str]:
    r"""One name per line; \n inside a line is a line break of that name."""
    unescaped = {r"\\": "\\", r"\n": "\n"}
    lines = (re.sub(r"\\[\\n]", lambda found: unescaped[found[0]], line.strip()) for line in text.splitlines())
    return [line for line in lines if line]
