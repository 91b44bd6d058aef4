"""A TrainSpec as a form: one widget for every field, built from the field's own type, limits and docstring.

`fields` lists them, `build` lays them out, `read` turns the widgets' values into a spec, `write` does the reverse.
Nothing here names a field except where a list of choices comes from elsewhere (datasets, templates). Not here: what
happens with the spec (studio.ui.tabs.train). Events that call `read` say preprocess=False, so that a wrong number
reaches the spec, which knows its field's name and what to do.
"""

from __future__ import annotations

import math
import re
import types
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import gradio as gr
from annotated_types import Ge, Gt, Le, Lt, MaxLen
from pydantic.fields import FieldInfo

from studio import specs
from studio.errors import Fault, SpecError
from studio.specs import TrainSpec
from studio.ui.texts import t, table

NAMED_ELSEWHERE = ("data.datasets", "template.name")
"""Fields whose choices are registered names, filled in when the page loads."""

Widgets = dict[str, gr.components.Component]
"""The widget of each field, by dotted path, in the order of the spec."""


@dataclass(frozen=True)
class FormField:
    """One field of the spec, as the form sees it. least and most: limits, None where there is none."""

    path: str
    kind: Literal["choice", "flag", "whole", "number", "numbers", "text", "long_text", "names"]
    optional: bool
    front: bool
    default: Any
    choices: tuple[str, ...] = ()
    least: float | None = None
    most: float | None = None

    @property
    def section(self) -> str:
        return self.path.partition(".")[0]


@cache
def fields() -> tuple[FormField, ...]:
    """Every field of TrainSpec, in order."""
    found = []
    for section, info in TrainSpec.model_fields.items():
        if section == "trainer":
            continue
        for name, inner in type(info.default).model_fields.items():
            if get_origin(inner.annotation) is not dict:
                found.append(_field(f"{section}.{name}", inner))
    return tuple(found)


def sections() -> tuple[str, ...]:
    """The sections in order."""
    return tuple(name for name in TrainSpec.model_fields if name != "trainer")


def build_front() -> Widgets:
    """The fields that stand in sight, three to a line where there is room."""
    return _in_rows([field for field in fields() if field.front])


def build_folded() -> Widgets:
    """The other fields, one closed accordion per section."""
    made: Widgets = {}
    for section in sections():
        folded = [field for field in fields() if field.section == section and not field.front]
        if folded:
            with gr.Accordion(t(f"spec.{section}.label"), open=False, elem_id=f"form-{section}", elem_classes="fold"):
                made |= _in_rows(folded)
    return made


def in_order(made: Widgets) -> Widgets:
    """The widgets in the order of the spec, which is the order of `read` and `write`."""
    return {field.path: made[field.path] for field in fields()}


def read(values: Sequence[Any]) -> TrainSpec:
    """The spec that the widgets' raw values stand for.

    Raises: SpecError: with every wrong field's dotted path and what to do.
    """
    nested: dict[str, dict[str, Any]] = {section: {} for section in sections()}
    empty = []
    for field, value in zip(fields(), values, strict=True):
        given = _given(field, value)
        if given is None and not field.optional:
            empty.append(Fault(field.path, f"is empty. Fill it in; the default is {specs.yaml_value(field.default)}."))
        else:
            nested[field.section][field.path.partition(".")[2]] = given
    try:
        spec = specs.parse(TrainSpec, nested)
    except SpecError as error:
        raise SpecError([*empty, *error.faults]) from error
    if empty:
        raise SpecError(empty)
    return spec


def write(spec: TrainSpec) -> list[Any]:
    """One update per widget, so that the form shows the spec."""
    return [gr.update(value=_shown(field, _value(spec, field.path))) for field in fields()]


def names_in(choices: Iterable[Any], spec_names: Iterable[str]) -> list[Any]:
    """Choices of a dropdown, with names that a spec asks for but nobody registered at the end, so that they show."""
    known = list(choices)
    words = {choice[1] if isinstance(choice, tuple) else choice for choice in known}
    return [*known, *(name for name in spec_names if name not in words)]


def explained(error: SpecError, language: str) -> str:
    """The faults with each field's label as the form shows it, one per line."""
    texts = table(language)
    lines = []
    for fault in error.faults:
        label = texts.get(f"spec.{fault.field}.label")
        lines.append(f"{label} ({fault.field}): {fault.reason}" if label else str(fault))
    return "\n".join(lines)


# --- from a field to a widget


def _field(path: str, info: FieldInfo) -> FormField:
    annotation, optional = _without_none(info.annotation)
    choices = get_args(annotation) if get_origin(annotation) is Literal else ()
    limits = _limits(info.metadata)
    return FormField(
        path=path,
        kind="choice" if choices else _kind(annotation, info.metadata),
        optional=optional,
        front=bool((info.json_schema_extra or {}).get("front")),  # type: ignore[union-attr]
        default=info.get_default(),
        choices=tuple(map(str, choices)),
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


def _kind(annotation: Any, metadata: Iterable[Any]) -> Any:
    if get_origin(annotation) is tuple:
        return "numbers" if get_args(annotation)[0] is float else "names"
    if annotation is str and any(isinstance(each, MaxLen) and each.max_length > 1000 for each in metadata):
        return "long_text"
    return {bool: "flag", int: "whole", float: "number", str: "text"}[annotation]


def _limits(metadata: Iterable[Any]) -> dict[str, float]:
    found = {}
    for each in metadata:
        match each:
            case Ge(ge=limit) | Gt(gt=limit):
                found["least"] = limit
            case Le(le=limit) | Lt(lt=limit):
                found["most"] = limit
    return found


def _in_rows(chosen: list[FormField]) -> Widgets:
    made: Widgets = {}
    with gr.Row(elem_classes="form-grid"):
        for field in chosen:
            made[field.path] = _widget(field)
    return made


def _widget(field: FormField) -> gr.components.Component:
    common: dict[str, Any] = {
        "label": t(f"spec.{field.path}.label"),
        "info": t(f"spec.{field.path}.help"),
        "elem_id": f"spec-{field.path.replace('.', '-')}",
        "value": _shown(field, field.default),
        "interactive": True,
    }
    if field.path in NAMED_ELSEWHERE:
        multiple = field.kind == "names"
        start = list(field.default) if multiple else [field.default]
        return gr.Dropdown(start, multiselect=multiple, min_width=200, **common)
    match field.kind:
        case "flag":
            return gr.Checkbox(min_width=200, **common)
        case "choice":
            return gr.Dropdown(list(field.choices), filterable=False, min_width=200, **common)
        case "whole" | "number" if field.optional:
            # gradio 6.31 shows an empty Number as 0 and does not empty it again; a box of text can be empty
            return gr.Textbox(max_lines=1, min_width=200, placeholder=t("train.empty"), **common)
        case "whole" | "number":
            limits = {"minimum": field.least, "maximum": field.most}
            return gr.Number(step=_nudge(field), min_width=200, **limits, **common)
        case "names" | "numbers":
            return gr.Textbox(lines=2, max_lines=6, placeholder=t("train.one_per_line"), min_width=200, **common)
        case "long_text":
            return gr.Textbox(lines=2, max_lines=8, min_width=200, **common)
    return gr.Textbox(max_lines=1, min_width=200, **common)


def _nudge(field: FormField) -> float:
    """How far one press of an arrow key goes: 1, or the order of magnitude of the default."""
    if field.kind == "whole":
        return 1
    return 10.0 ** math.floor(math.log10(field.default)) if field.default else 0.01


# --- from a value to what a widget holds, and back


def _value(spec: TrainSpec, path: str) -> Any:
    section, _, name = path.partition(".")
    return getattr(getattr(spec, section), name)


def _shown(field: FormField, value: Any) -> Any:
    if field.path in NAMED_ELSEWHERE and field.kind == "names":
        return list(value)
    if field.kind == "names":
        return "\n".join(each.replace("\\", "\\\\").replace("\n", "\\n") for each in value)
    if field.kind == "numbers":
        return "\n".join(f"{each:g}" if float(f"{each:g}") == each else str(each) for each in value)
    if field.kind in ("text", "long_text"):
        return value or ""
    if field.optional and field.kind in ("whole", "number"):
        return "" if value is None else str(value)
    return value


def _given(field: FormField, value: Any) -> Any:
    if field.kind == "names":
        return list(value or ()) if field.path in NAMED_ELSEWHERE else _lines(value or "")
    if field.kind == "numbers":
        return re.split(r"[\s,;]+", value.strip()) if value and value.strip() else []
    if isinstance(value, str) and not value.strip():
        return None
    return value


def _lines(text: str) -> list[str]:
    r"""One name per line; \n inside a line is a line break of that name."""
    unescaped = {r"\\": "\\", r"\n": "\n"}
    lines = (re.sub(r"\\[\\n]", lambda found: unescaped[found[0]], line.strip()) for line in text.splitlines())
    return [line for line in lines if line]
