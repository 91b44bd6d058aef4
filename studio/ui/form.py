"""A TrainSpec as a form: one widget for every field, built from the field's own type, limits and docstring.

`build_front` and `build_folded` lay them out, `write` fills them from a spec, `switched` shows the fields of another
method or stage. Not here: what the fields are and what their values mean (studio.ui.form_fields), and what happens with
the spec (studio.ui.tabs.train). Events that call `read` say preprocess=False, so that a wrong number reaches the spec,
which knows its field's name and what to do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from itertools import groupby
from typing import Any

import gradio as gr

from studio import specs
from studio.errors import SpecError
from studio.specs import TrainSpec
from studio.ui import form_fields
from studio.ui.form_fields import NAMED_ELSEWHERE, FormField, fields, read
from studio.ui.texts import t, table

__all__ = [
    "NAMED_ELSEWHERE", "Widgets", "build_folded", "build_front", "explained", "fields", "in_order", "names_in", "read",
    "switched", "write",
]  # fmt: skip

Widgets = dict[str, gr.components.Component]
"""The widget of each field, by its key, in the order of the spec."""


def build_front(beside: Callable[[str], None]) -> Widgets:
    """The fields that stand in sight, two or three to a line where there is room.

    beside: builds what stands next to the choice of a method or stage, given the section.
    """
    made: Widgets = {}
    front = [field for field in fields() if field.front]
    for union, group in groupby(front, lambda field: field.section if field.section in specs.UNIONS else ""):
        with gr.Row(elem_classes="form-grid"):
            for field in group:
                made[field.key] = _widget(field)
                if union and field.name == "kind":
                    beside(union)
    return made


def build_folded() -> Widgets:
    """The other fields, one closed accordion per section. A field of the spec itself stands with the training's."""
    made: Widgets = {}
    for section in TrainSpec.model_fields:
        folded = [field for field in fields() if not field.front and _fold(field) == section]
        if folded:
            with (
                gr.Accordion(t(f"spec.{section}.label"), open=False, elem_id=f"form-{section}", elem_classes="fold"),
                gr.Row(elem_classes="form-grid"),
            ):
                made |= {field.key: _widget(field) for field in folded}
    return made


def in_order(made: Widgets) -> Widgets:
    """The widgets in the order of the spec, which is the order of `read` and `write`."""
    return {field.key: made[field.key] for field in fields()}


def write(spec: TrainSpec) -> list[dict[str, Any]]:
    """One update per widget, so that the form shows the spec."""
    return [_update(field, here, value) for field, here, value in form_fields.of(spec)]


def switched(section: str, kind: str | None) -> dict[str, dict[str, Any]]:
    """An update for each field that depends on a section's kind, by key: only those of the kind are left in sight,
    with its defaults and limits."""
    found = {}
    for field in fields():
        if field.section == section and field.by_kind:
            here = field.under(kind)
            found[field.key] = _update(field, here, here.default if here else None)
    return found


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
        label = _label(fault.field, texts)
        lines.append(f"{label} ({fault.field}): {fault.reason}" if label else str(fault))
    return "\n".join(lines)


# --- from a field to a widget


def _label(path: str, texts: Mapping[str, str]) -> str | None:
    """The label of a field, or of the one that a place such as data.weights.1 or trainer.adam_beta2 lies in."""
    while path and f"spec.{path}.help" not in texts:
        path = path.rpartition(".")[0]
    return texts.get(f"spec.{path}.label")


def _fold(field: FormField) -> str:
    return field.section if field.name else "training"


def _widget(field: FormField) -> gr.components.Component:
    first = TrainSpec.model_fields[field.section].default
    under = field.under(getattr(first, "kind", None))
    here = under or field
    common: dict[str, Any] = {
        "label": t(f"spec.{field.path}.label"),
        "info": t(f"spec.{field.path}.help"),
        "elem_id": f"spec-{field.key.replace('.', '-')}",
        "value": form_fields.shown(here, here.default),
        "visible": bool(under),
        "interactive": True,
        "min_width": 200,
    }
    if field.path in NAMED_ELSEWHERE:
        multiple = field.widget == "names"
        start = list(field.default) if multiple else [field.default]
        return gr.Dropdown(start, multiselect=multiple, **common)
    match field.widget:
        case "flag":
            return gr.Checkbox(**common)
        case "choice" | "picks":
            many = field.widget == "picks"
            return gr.Dropdown(_labelled(field), filterable=len(field.choices) > 12, multiselect=many, **common)
        case "whole" | "number" if field.optional:
            # gradio 6.31 shows an empty Number as 0 and does not empty it again; a box of text can be empty
            return gr.Textbox(max_lines=1, placeholder=t("train.empty"), **common)
        case "whole" | "number":
            return gr.Number(**_range(here), **common)
        case "names" | "numbers":
            return gr.Textbox(lines=2, max_lines=6, placeholder=t("train.one_per_line"), **common)
        case "mapping":
            return gr.Textbox(lines=2, max_lines=8, placeholder=t("train.name_and_value"), **common)
        case "long_text":
            return gr.Textbox(lines=2, max_lines=8, **common)
    return gr.Textbox(max_lines=1, **common)


def _labelled(field: FormField) -> list[tuple[Any, str]]:
    """Each choice with its name in the browser's language, where it has one; else as the spec writes it."""
    union = field.name == "kind" and field.section in specs.UNIONS
    place, end = (f"{field.section}.kinds", ".label") if union else (f"{field.path}.choices", "")
    keys = {each: f"spec.{place}.{each}{end}" for each in field.choices}
    return [(t(key) if key in table("en") else each, each) for each, key in keys.items()]


def _update(field: FormField, here: FormField | None, value: Any) -> dict[str, Any]:
    """What makes a widget show a value; one that the chosen kind does not have goes out of sight."""
    if here is None:
        return gr.update(visible=False)
    update = gr.update(value=form_fields.shown(here, value))
    if field.by_kind:
        update |= {"visible": True}
        if here.widget in ("whole", "number") and not here.optional:
            update |= _range(here)
    return update


def _range(here: FormField) -> dict[str, Any]:
    return {"minimum": here.least, "maximum": here.most, "step": _nudge(here)}


def _nudge(field: FormField) -> float:
    """How far one press of an arrow key goes: 1, or the order of magnitude of the default."""
    if field.widget == "whole":
        return 1
    return 10.0 ** math.floor(math.log10(field.default)) if field.default else 0.01
