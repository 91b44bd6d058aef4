"""The Template tab: one row as the model would see it, token by token, with what is learned marked.

It opens with what the Train form holds. Not here: encoding (studio.templates), what is shown of a row
(studio.ui.template_row), and templates that are written on the page (studio.ui.template_editor).
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from studio import specs
from studio.data import registry
from studio.errors import StudioError
from studio.ui import (
    clipboard,
    fetching,
    preview,
    run_panel,
    template_editor,
    template_names,
    template_row,
    template_rows,
    to_train,
    token_view,
)
from studio.ui.page import AllWidgets, Page, guarded
from studio.ui.template_names import NO_SECOND
from studio.ui.template_row import Asked, Draft
from studio.ui.texts import say, t

FROM_TRAIN = {
    "model": "model.name",
    "template": "template.name",
    "dataset": "data.datasets",
    "supervise": "template.supervise",
    "learn_thoughts": "template.learn_thoughts",
    "limit": "data.max_length",
    "truncation": "data.truncation",
    "system": "template.system",
}
"""Which field of the Train form each of this tab's fields begins with."""

SUPERVISE = ("assistant", "last", "all")
TRUNCATION = ("cut_answer", "drop_turns", "cut_source", "drop_row")


@dataclass(frozen=True)
class Widgets:
    """asked: what to show, by name, in the order of FROM_TRAIN.

    taken: what the Train form held when it was last read. seen: the dataset and the kind of rows that are shown.
    asked_anew: counts the times that something else than a field asked to show the row. json: what is being copied.
    """

    asked: dict[str, gr.components.Component]
    second: gr.Dropdown
    kind: gr.Dropdown
    row: gr.Number
    position: gr.HTML
    view: gr.Radio
    copy: gr.Button
    copied: gr.HTML
    json: gr.Textbox
    previous: gr.Button
    next: gr.Button
    use: gr.Button
    problem: gr.HTML
    fetch: gr.Button
    about: gr.HTML
    tokens: gr.HTML
    raw: gr.Textbox
    editor: template_editor.Widgets
    taken: gr.State
    seen: gr.State
    asked_anew: gr.State

    @property
    def inputs(self) -> list[Any]:
        """What `_asked` reads, in its order."""
        return [self.editor.draft, *self.asked.values(), self.second, self.kind, self.row, self.view]

    @property
    def shown(self) -> list[Any]:
        """What `_updates` updates, in its order."""
        place = [self.row, self.kind, self.position, self.seen, self.problem, self.fetch, self.previous, self.next]
        return [*place, self.tokens, self.about, self.raw, self.copy, *self.editor.told_of]


def build(page: Page) -> Widgets:
    """What to write on the left, how it is written on the right."""
    made: dict[str, Any] = {}
    with gr.Row(elem_classes="columns"):
        with gr.Column(scale=4, min_width=320):
            asked = _build_asked(made)
            made["editor"] = template_editor.build()
        with gr.Column(scale=7, min_width=320, elem_classes="in-sight"):
            _build_shown(made)
    return Widgets(asked=asked, taken=gr.State([]), seen=gr.State(None), asked_anew=gr.State(0), **made)


def wire(page: Page, all: AllWidgets) -> None:
    """Connect the tab's events."""
    widgets: Widgets = all["template"]
    _wire_choices(page, widgets, all["train"])
    _wire_rows(page, widgets)
    _wire_copy(widgets)
    _wire_fetch(widgets)
    template_editor.wire(
        widgets.editor, widgets.asked["model"], widgets.asked["template"], widgets.second, widgets.asked_anew,
    )  # fmt: skip
    to_train.wire(
        page, all["train"], widgets.use, widgets.asked.values(), list(FROM_TRAIN.values()), in_training,
        name="template_use",
    )  # fmt: skip


def in_training(
    model: str, template: str, dataset: str | None, supervise: str, learn_thoughts: bool, limit: int | None,
    truncation: str, system: str | None,
) -> dict[str, Any]:  # fmt: skip
    """What the Train form holds when it is to train on what is shown."""
    datasets = [each.name for each in registry.every()]
    chosen = {
        "model": gr.update(value=model),
        "template": gr.update(choices=template_names.plain(), value=template),
        "dataset": gr.update(choices=[(name, name) for name in datasets], value=[dataset] if dataset else []),
        "supervise": gr.update(value=supervise),
        "learn_thoughts": gr.update(value=learn_thoughts),
        "limit": gr.update(value=limit),
        "truncation": gr.update(value=truncation),
        "system": gr.update(value=system or ""),
    }
    return {FROM_TRAIN[name]: update for name, update in chosen.items()}


# --- layout


def _build_asked(made: dict[str, Any]) -> dict[str, gr.components.Component]:
    """The fields as the Train form has them, with what it begins with."""
    spec = specs.TrainSpec()
    asked: dict[str, gr.components.Component] = {}
    with gr.Row(elem_classes="form-grid"):
        asked["model"] = gr.Textbox(spec.model.name, max_lines=1, elem_id="template-model", **_texts("model.name"))
        asked["dataset"] = gr.Dropdown(
            [], value=None, label=t("template.dataset"), info=t("template.dataset_help"), elem_id="template-dataset"
        )
        asked["template"] = _named("template", [spec.template.name], spec.template.name, _texts("template.name"))
        made["second"] = _named(
            "second", [("", NO_SECOND)], NO_SECOND, {"label": t("template.second"), "info": t("template.second_help")}
        )
        asked["supervise"] = _named(
            "supervise", list(SUPERVISE), spec.template.supervise, _texts("template.supervise")
        )  # fmt: skip
        asked["learn_thoughts"] = gr.Checkbox(
            spec.template.learn_thoughts, elem_id="template-thoughts", **_texts("template.learn_thoughts")
        )
        asked["limit"] = gr.Number(
            spec.data.max_length, precision=0, minimum=8, elem_id="template-limit", **_texts("data.max_length")
        )
        asked["truncation"] = _named(
            "truncation", list(TRUNCATION), spec.data.truncation, _texts("data.truncation")
        )  # fmt: skip
        asked["system"] = gr.Textbox(
            spec.template.system or "", lines=2, max_lines=6, elem_id="template-system", **_texts("template.system")
        )  # fmt: skip
    made["use"] = gr.Button(t("data.use"), variant="primary", elem_id="template-use")
    return {name: asked[name] for name in FROM_TRAIN}


def _named(name: str, choices: list[Any], value: str, texts: Mapping[str, Any]) -> gr.Dropdown:
    identity = "template-name" if name == "template" else f"template-{name}"
    # some sixty templates: whoever knows the name types it
    return gr.Dropdown(choices, value=value, filterable=name in ("template", "second"), elem_id=identity, **texts)


def _build_shown(made: dict[str, Any]) -> None:
    with gr.Row(elem_classes="actions"):
        made["kind"] = gr.Dropdown(
            [("", template_rows.ALL)], value=template_rows.ALL, label=t("template.rows"), filterable=False,
            elem_id="template-kind", scale=2, min_width=170,
        )  # fmt: skip
        made["row"] = gr.Number(
            1, label=t("template.row"), precision=0, minimum=1, elem_id="template-row", scale=0, min_width=90
        )
        for name in ("previous", "next"):
            made[name] = gr.Button(t(f"template.{name}"), elem_id=f"template-{name}", scale=0, min_width=100)
    made["position"] = gr.HTML("", elem_id="template-position", min_height=20)
    with gr.Row(elem_classes="actions"):
        made["view"] = gr.Radio(
            list(token_view.VIEWS), value="text", show_label=False, container=False, elem_id="template-view", scale=3
        )
        made["copied"] = gr.HTML("", elem_id="template-copied")
        made["copy"] = gr.Button(t("template.copy"), elem_id="template-copy", size="sm", scale=0, min_width=140)
    made["json"] = gr.Textbox("", visible="hidden", elem_id="template-json", show_label=False)
    made["problem"] = gr.HTML("", elem_id="template-problem")
    with gr.Row(elem_classes="actions"):
        made["fetch"] = gr.Button(
            t("template.fetch"), elem_id="template-fetch", visible=False, size="sm", scale=0, min_width=160
        )
    made["tokens"] = gr.HTML("", elem_id="template-tokens", min_height=120, js_on_load=token_view.POINT)
    made["about"] = gr.HTML("", elem_id="template-about")
    with gr.Accordion(t("template.raw_title"), open=False, elem_id="template-raw-fold", elem_classes="fold"):
        made["raw"] = gr.Textbox(
            label=t("template.raw"), lines=6, max_lines=24, interactive=False, buttons=["copy"],
            elem_id="template-raw", elem_classes="mono",
        )  # fmt: skip


def _texts(path: str) -> dict[str, Any]:
    return {"label": t(f"spec.{path}.label"), "info": t(f"spec.{path}.help")}


# --- what can be chosen, and what the Train form holds


def _wire_choices(page: Page, widgets: Widgets, train: Any) -> None:
    fields = [train.form[path] for path in FROM_TRAIN.values()]
    asked = list(widgets.asked.values())
    outputs = [*asked, widgets.second, widgets.view, widgets.copied, widgets.taken, widgets.asked_anew]

    def opened(request: gr.Request) -> list[Any]:
        spec = specs.TrainSpec()
        held = [_value(spec, path) for path in FROM_TRAIN.values()]
        return _offered(held, [None] * len(held), held, 0, request)

    def selected(request: gr.Request, taken: list[Any], times: int, *values: Any) -> list[Any]:
        """In sight: what changed in the Train form since it was last read replaces what stands here."""
        here, there = values[: len(FROM_TRAIN)], values[len(FROM_TRAIN) :]
        before = taken or [None] * len(there)
        held = [new if new != old else own for new, old, own in zip(there, before, here, strict=True)]
        return _offered(held, here, list(there), times, request)

    page.on_load(opened, None, outputs)
    page.tabs["template"].select(
        guarded(selected), [widgets.taken, widgets.asked_anew, *asked, *fields], outputs, preprocess=False,
        api_name="template_selected", api_visibility="private", show_progress="hidden",
    )  # fmt: skip


def _value(spec: specs.TrainSpec, path: str) -> Any:
    section, _, name = path.partition(".")
    value = getattr(getattr(spec, section), name)
    return list(value) if isinstance(value, tuple) else "" if value is None else value


def _offered(held: Sequence[Any], here: Sequence[Any], taken: list[Any], times: int, request: gr.Request) -> list[Any]:
    """Updates of what can be chosen, and of the values that differ from those here, so that no typing is disturbed."""
    names = [each.name for each in registry.every()]
    choices = {
        "template": template_names.titled(request),
        "dataset": [(name, name) for name in names],
        "supervise": [(say(f"template.supervise.{each}", request), each) for each in SUPERVISE],
        "truncation": [(say(f"template.truncation.{each}", request), each) for each in TRUNCATION],
    }
    values = dict(zip(FROM_TRAIN, held, strict=True))
    values["dataset"] = _one(values["dataset"], names)
    updates = [
        gr.update(
            **({"choices": choices[name]} if name in choices else {}),
            **({"value": values[name]} if values[name] != own else {}),
        )
        for name, own in zip(FROM_TRAIN, here, strict=True)
    ]
    views = [(say(f"template.view.{each}", request), each) for each in token_view.VIEWS]
    return [
        *updates,
        gr.update(choices=template_names.seconds(request)),
        gr.update(choices=views),
        clipboard.place(request),
        taken,
        times + 1,
    ]


def _one(dataset: Any, names: Sequence[str]) -> str:
    """A registered dataset: the first of those in the Train form, the one that stands here, or just the first."""
    first = dataset[0] if isinstance(dataset, list) and dataset else dataset
    return first if first in names else names[0]


# --- the row


def _wire_rows(page: Page, widgets: Widgets) -> None:
    """One event for all that changes what is shown: two could answer in the other order than they were asked."""
    asked = widgets.asked
    # change rather than input: a list that gets its choices and its value in one go holds the old value for a moment
    changes = [
        *(asked[name].change for name in ("template", "dataset", "supervise", "learn_thoughts", "limit", "truncation")),
        *(event for name in ("model", "system") for event in (asked[name].submit, asked[name].blur)),
        widgets.second.change, widgets.kind.input, widgets.row.change, widgets.view.input, widgets.asked_anew.change,
    ]  # fmt: skip

    def show(request: gr.Request, seen: list[str] | None, *values: Any) -> list[Any]:
        what = _asked(*values)
        if not what.dataset:
            return [gr.skip()] * len(widgets.shown)  # the box for the row reports itself before the choices are there
        return _updates(page, what, seen, values[-2], request)

    gr.on(
        changes, guarded(show), [widgets.seen, *widgets.inputs], widgets.shown, trigger_mode="always_last",
        preprocess=False, api_name="template_show", api_visibility="private", show_progress="hidden",
    )  # fmt: skip
    for button, by in ((widgets.previous, -1), (widgets.next, 1)):
        step = template_rows.STEP.format(by=by)
        button.click(None, [widgets.row, widgets.kind], widgets.row, js=step, api_visibility="private")


def _asked(draft: Draft | None, *values: Any) -> Asked:
    *held, second, kind, row, view = values
    fields = dict(zip(FROM_TRAIN, held, strict=True))
    draft = draft if draft is not None and draft.over == fields["template"] else None
    return Asked.of(
        fields, second=second or NO_SECOND, draft=draft, kind=kind or template_rows.ALL, row=_row(row), view=view
    )


def _row(row: Any) -> int:
    """The row as a whole number from 1; the box may hold nothing for a moment."""
    return max(1, int(row)) if isinstance(row, int | float) else 1


def _updates(page: Page, what: Asked, seen: list[str] | None, boxed: Any, request: gr.Request) -> list[Any]:
    """Updates of what is shown. seen: what was shown before. boxed: what stands in the box for the row."""
    before, kind = seen or (what.dataset, template_rows.ALL)
    if before != what.dataset:
        what = Asked(what.model, what.template, what.dataset, what.policy, what.second, what.draft, view=what.view)
    found = template_row.look(page.monitor, what, request, begin=what.kind not in (kind, template_rows.ALL))
    where = found.place
    refused = bool(found.problem)
    return [
        gr.skip() if where.row == boxed or (boxed in (None, "") and where.row == 1) else where.row,
        gr.update(choices=found.kinds, value=where.kind),
        found.position,
        [what.dataset, where.kind],
        found.problem,
        gr.update(visible=found.fetchable, interactive=True),
        gr.update(interactive=not where.first),
        gr.update(interactive=not where.last),
        found.panes,
        found.about,
        gr.skip() if found.raw is None else found.raw,
        gr.update(interactive=not refused),
        *template_editor.standing(what.template, what.draft),
    ]


def _wire_copy(widgets: Widgets) -> None:
    def as_json(*values: Any) -> str:
        return preview.as_json(template_row.first(_asked(*values)))

    widgets.copy.click(
        guarded(as_json), widgets.inputs, widgets.json, preprocess=False, trigger_mode="once",
        api_name="template_json", api_visibility="private", show_progress="hidden",
    ).success(None, widgets.json, None, js=clipboard.COPY, api_visibility="private")  # fmt: skip


# --- the bundled model


def _wire_fetch(widgets: Widgets) -> None:
    def fetch(times: int, request: gr.Request) -> Iterator[list[Any]]:
        yield [_progress("", request), gr.update(interactive=False), gr.skip()]
        try:
            for line in fetching.fetch():
                yield [_progress(line, request), gr.skip(), gr.skip()]
        except StudioError as error:
            yield [run_panel.problem(str(error)), gr.update(interactive=True), gr.skip()]
            return
        yield [gr.skip(), gr.skip(), times + 1]

    widgets.fetch.click(
        guarded(fetch), widgets.asked_anew, [widgets.problem, widgets.fetch, widgets.asked_anew],
        trigger_mode="once", api_name="template_fetch", api_visibility="private", show_progress="hidden",
    )  # fmt: skip


def _progress(line: str, request: gr.Request) -> str:
    key, share = fetching.phase(line)
    text = say(f"template.fetching.{key}", request) if key else line or say("template.fetching.start", request)
    return f'<p class="note" role="status">{html.escape(f"{text} {share}".rstrip())}</p>'
