"""The Template tab: one row as the model would see it, token by token, with what is learned marked.

It opens with what the Train form holds. Not here: encoding (studio.templates) and markup (studio.ui.token_view).
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from studio import specs, templates
from studio.data import registry
from studio.engine.models.bundled import SOURCE
from studio.errors import StudioError
from studio.ui import fetching, preview, run_panel, to_train, token_view
from studio.ui.page import AllWidgets, Page, guarded
from studio.ui.preview import NotHere
from studio.ui.texts import language, say, t

FROM_TRAIN = {
    "model": "model.name",
    "template": "template.name",
    "dataset": "data.datasets",
    "supervise": "template.supervise",
    "system": "template.system",
    "limit": "data.max_length",
}
"""Which field of the Train form each of this tab's fields begins with."""

SUPERVISE = ("assistant", "last", "all")


@dataclass(frozen=True)
class Widgets:
    """asked: what to show, by name, in the order of FROM_TRAIN.

    taken: what the Train form held when it was last read. seen: the dataset that is shown. asked_anew: counts the times
    that something else than a field asked to show the row.
    """

    asked: dict[str, gr.components.Component]
    row: gr.Number
    view: gr.Radio
    previous: gr.Button
    next: gr.Button
    use: gr.Button
    problem: gr.HTML
    fetch: gr.Button
    about: gr.HTML
    tokens: gr.HTML
    raw: gr.Textbox
    taken: gr.State
    seen: gr.State
    asked_anew: gr.State

    @property
    def inputs(self) -> list[Any]:
        return [*self.asked.values(), self.row, self.view]

    @property
    def shown(self) -> list[Any]:
        """What `_shown` updates, in its order."""
        return [
            self.row,
            self.seen,
            self.problem,
            self.fetch,
            self.about,
            self.tokens,
            self.raw,
            self.previous,
            self.next,
        ]


def build(page: Page) -> Widgets:
    """What to write on the left, how it is written on the right."""
    made: dict[str, Any] = {}
    with gr.Row(elem_classes="columns"):
        with gr.Column(scale=4, min_width=320):
            asked = _build_asked(made)
        with gr.Column(scale=7, min_width=320):
            _build_shown(made)
    return Widgets(asked=asked, taken=gr.State([]), seen=gr.State(""), asked_anew=gr.State(0), **made)


def wire(page: Page, all: AllWidgets) -> None:
    """Connect the tab's events."""
    widgets: Widgets = all["template"]
    _wire_choices(page, widgets, all["train"])
    _wire_rows(widgets)
    _wire_fetch(widgets)
    to_train.wire(
        page, all["train"], widgets.use, widgets.asked.values(), list(FROM_TRAIN.values()), in_training,
        name="template_use",
    )  # fmt: skip


def in_training(
    model: str, template: str, dataset: str | None, supervise: str, system: str | None, limit: int | None
) -> dict[str, Any]:
    """What the Train form holds when it is to train on what is shown."""
    datasets = [each.name for each in registry.every()]
    chosen = {
        "model": gr.update(value=model),
        "template": gr.update(choices=_template_names(), value=template),
        "dataset": gr.update(choices=[(name, name) for name in datasets], value=[dataset] if dataset else []),
        "supervise": gr.update(value=supervise),
        "system": gr.update(value=system or ""),
        "limit": gr.update(value=limit),
    }
    return {FROM_TRAIN[name]: update for name, update in chosen.items()}


# --- layout


def _build_asked(made: dict[str, Any]) -> dict[str, gr.components.Component]:
    """The fields as the Train form has them, with what it begins with."""
    spec = specs.TrainSpec()
    asked: dict[str, gr.components.Component] = {}
    with gr.Row(elem_classes="form-grid"):
        asked["model"] = gr.Textbox(spec.model.name, max_lines=1, elem_id="template-model", **_texts("model.name"))
        asked["template"] = gr.Dropdown(
            [spec.template.name],
            value=spec.template.name,
            elem_id="template-name",
            filterable=False,
            **_texts("template.name"),
        )
        asked["dataset"] = gr.Dropdown(
            [], value=None, label=t("template.dataset"), info=t("template.dataset_help"), elem_id="template-dataset"
        )
        asked["supervise"] = gr.Dropdown(
            list(SUPERVISE),
            value=spec.template.supervise,
            filterable=False,
            elem_id="template-supervise",
            **_texts("template.supervise"),
        )
        asked["limit"] = gr.Number(
            spec.data.max_length, precision=0, minimum=8, elem_id="template-limit", **_texts("data.max_length")
        )
        asked["system"] = gr.Textbox(
            spec.template.system or "", lines=2, max_lines=6, elem_id="template-system", **_texts("template.system")
        )  # fmt: skip
    made["use"] = gr.Button(t("data.use"), variant="primary", elem_id="template-use")
    return {name: asked[name] for name in FROM_TRAIN}


def _build_shown(made: dict[str, Any]) -> None:
    with gr.Row(elem_classes="actions"):
        made["row"] = gr.Number(
            1, label=t("template.row"), precision=0, minimum=1, elem_id="template-row", scale=0, min_width=90
        )
        for name in ("previous", "next"):
            made[name] = gr.Button(t(f"template.{name}"), elem_id=f"template-{name}", scale=0, min_width=100)
    made["view"] = gr.Radio(
        list(token_view.VIEWS), value="text", show_label=False, container=False, elem_id="template-view"
    )
    made["problem"] = gr.HTML("", elem_id="template-problem")
    with gr.Row(elem_classes="actions"):
        made["fetch"] = gr.Button(
            t("template.fetch"), elem_id="template-fetch", visible=False, size="sm", scale=0, min_width=160
        )
    made["tokens"] = gr.HTML("", elem_id="template-tokens", min_height=120)
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
    outputs = [*asked, widgets.view, widgets.taken, widgets.asked_anew]

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
    return list(value) if isinstance(value, tuple) else value or ""


def _offered(held: Sequence[Any], here: Sequence[Any], taken: list[Any], times: int, request: gr.Request) -> list[Any]:
    """Updates of what can be chosen, and of the values that differ from those here, so that no typing is disturbed."""
    names = [each.name for each in registry.every()]
    kinds = [(say(f"template.supervise.{kind}", request), kind) for kind in SUPERVISE]
    views = [(say(f"template.view.{each}", request), each) for each in token_view.VIEWS]
    choices = {
        "template": _template_names(request),
        "dataset": [(name, name) for name in names],
        "supervise": kinds,
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
    return [*updates, gr.update(choices=views), taken, times + 1]


def _one(dataset: Any, names: Sequence[str]) -> str:
    """A registered dataset: the first of those in the Train form, the one that stands here, or just the first."""
    first = dataset[0] if isinstance(dataset, list) and dataset else dataset
    return first if first in names else names[0]


def _template_names(request: gr.Request | None = None) -> list[tuple[str, str]]:
    """Names with titles; without a request just the names, as the Train form has them."""
    if request is None:
        return [(name, name) for name in (templates.AUTO, *templates.names())]
    own = (f"{templates.AUTO} · {say('template.own', request)}", templates.AUTO)
    return [own, *((f"{each.name} · {each.title}", each.name) for each in templates.every())]


# --- the row


def _wire_rows(widgets: Widgets) -> None:
    """One event for all that changes what is shown: two could answer in the other order than they were asked."""
    asked = widgets.asked
    changes = [
        *(asked[name].input for name in ("template", "dataset", "supervise", "limit")),
        *(event for name in ("model", "system") for event in (asked[name].submit, asked[name].blur)),
        widgets.row.change, widgets.view.input, widgets.asked_anew.change,
    ]  # fmt: skip

    def show(request: gr.Request, seen: str, *values: Any) -> list[Any]:
        *held, row, view = values
        fields = dict(zip(FROM_TRAIN, held, strict=True))
        if not fields["dataset"]:
            return [gr.skip()] * len(widgets.shown)  # the box for the row reports itself before the choices are there
        return _shown(*held, row if fields["dataset"] == seen else 1, view, request, row)

    gr.on(
        changes, guarded(show), [widgets.seen, *widgets.inputs], widgets.shown, trigger_mode="always_last",
        preprocess=False, api_name="template_show", api_visibility="private", show_progress="hidden",
    )  # fmt: skip
    for button, by in ((widgets.previous, -1), (widgets.next, 1)):
        step = f"(row) => Math.max(1, (row ?? 0) + {by})"
        button.click(None, widgets.row, widgets.row, js=step, api_visibility="private")


def _row(row: Any) -> int:
    """The row as a whole number from 1; the box may hold nothing for a moment."""
    return max(1, int(row)) if isinstance(row, int | float) else 1


def _shown(
    model: str, template: str, dataset: str, supervise: Any, system: str | None, limit: Any, row: Any, view: str,
    request: gr.Request, boxed: Any,
) -> list[Any]:  # fmt: skip
    """Updates of what is shown: the row, or what stands in the way. boxed: what stands in the box for the row."""
    number, spoken = _row(row), language(request)
    place = [gr.skip() if number == boxed or boxed in (None, "") else number, dataset]
    limit = int(limit) if isinstance(limit, int | float) and limit >= 1 else None
    try:
        found = preview.written(
            (model or "").strip(), template, dataset, number, supervise=supervise, system=(system or "").strip() or None
        )
    except StudioError as error:
        return [*place, *_refused(error, model, number, request)]
    encoded, reader = found.encoded, found.tokenizer
    about = [
        token_view.counts(encoded, limit, spoken),
        token_view.legend(spoken),
        token_view.stops(templates.stop_tokens(found.template, reader), reader, spoken),
        token_view.notes(templates.concerns(found.template, reader)),
    ]
    return [
        *place,
        "",
        gr.update(visible=False),
        "".join(about),
        token_view.shown(encoded, reader.special_strings, limit, view, spoken),
        found.template.text,
        gr.update(interactive=number > 1),
        gr.update(interactive=number < found.rows),
    ]


def _refused(error: StudioError, model: str, row: int, request: gr.Request) -> list[Any]:
    """What stands in the way, and for the bundled model the button that helps."""
    absent = isinstance(error, NotHere) and error.kind != "folder"
    if not absent:
        told = run_panel.problem(str(error))
    else:
        size = f"{SOURCE.size / 1e6:.0f}"
        text = say(f"template.not_here.{error.kind}", request, model=model, size=size)
        told = f'<p class="note">{html.escape(text)}</p>'
    helps = gr.update(visible=absent and error.kind == "bundled", interactive=True)
    return [told, helps, "", "", gr.skip(), gr.update(interactive=row > 1), gr.update(interactive=True)]


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
