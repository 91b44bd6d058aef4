"""The Train tab: what to train on one side, and the run on the other.

Start only asks studio.jobs.control, and a second press starts no second run. Not here: the run's side
(studio.ui.run_panel), and training itself, which is a process of its own.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from studio import presets, specs, templates
from studio.data import registry
from studio.errors import SpecError
from studio.hardware import choices, detect
from studio.jobs import control
from studio.ui import form, run_panel, run_view
from studio.ui.page import AllWidgets, Page, guarded
from studio.ui.texts import language, t

FIRST_PRESET = "identity"


@dataclass(frozen=True)
class Widgets:
    """form: the widget of each field by dotted path. start: the tab's one primary act. panel: the run's side."""

    form: form.Widgets
    preset: gr.Dropdown
    try_it: gr.Button
    machine: gr.HTML
    problem: gr.HTML
    start: gr.Button
    yaml: gr.Textbox
    load_yaml: gr.Button
    command: gr.Textbox
    panel: run_panel.Widgets

    @property
    def run(self) -> gr.Dropdown:
        """The id of the shown run."""
        return self.panel.run


def build(page: Page) -> Widgets:
    """Lay the tab out: what to train on the left, the run on the right; one below the other on a narrow screen."""
    made: dict[str, Any] = {}
    with gr.Row(elem_classes="columns"):
        with gr.Column(scale=5, min_width=320):
            _build_presets(made)
            fields = form.build_front()
            with gr.Column(elem_classes="always-in-sight"):
                made["problem"] = gr.HTML("", elem_id="train-problem")
                made["start"] = gr.Button(t("train.start"), variant="primary", elem_id="train-start")
            made["machine"] = gr.HTML("", elem_id="train-machine")
            fields |= form.build_folded()
            _build_yaml(made)
        with gr.Column(scale=6, min_width=320):
            made["panel"] = run_panel.build(page)
    return Widgets(form=form.in_order(fields), **made)


def wire(page: Page, all: AllWidgets) -> None:
    """Connect the tab's events."""
    widgets: Widgets = all["train"]
    _wire_form(page, widgets)
    _wire_start(page, widgets)
    run_panel.wire(page, widgets.panel, widgets.problem)


# --- layout


def _build_presets(made: dict[str, Any]) -> None:
    with gr.Row(elem_classes="actions"):
        made["try_it"] = gr.Button(t("train.try_it"), elem_id="train-try", min_width=250)
        made["preset"] = gr.Dropdown(
            presets.names(), value=None, label=t("train.preset"), elem_id="train-preset", min_width=160
        )


def _build_yaml(made: dict[str, Any]) -> None:
    with gr.Accordion(t("train.yaml_title"), open=False, elem_id="train-yaml-fold", elem_classes="fold"):
        made["yaml"] = gr.Textbox(
            label=t("train.yaml"),
            info=t("train.yaml_help"),
            lines=10,
            max_lines=24,
            interactive=True,
            buttons=["copy"],
            elem_id="train-yaml",
            elem_classes="mono",
        )
        made["load_yaml"] = gr.Button(t("train.load_yaml"), elem_id="train-load-yaml", size="sm")
        made["command"] = gr.Textbox(
            label=t("train.command"),
            lines=2,
            max_lines=8,
            interactive=False,
            buttons=["copy"],
            elem_id="train-command",
            elem_classes="mono",
        )


# --- the form


def _wire_form(page: Page, widgets: Widgets) -> None:
    fields = list(widgets.form.values())
    quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
    describing: dict[str, Any] = {
        "fn": guarded(describe),
        "inputs": fields,
        "outputs": [widgets.problem, widgets.yaml, widgets.command, widgets.machine],
        "preprocess": False,
        "trigger_mode": "always_last",
        "concurrency_limit": None,
        **quiet,
    }
    gr.on([field.input for field in widgets.form.values()], **describing, api_name="train_describe")
    loaded = [
        widgets.preset.input(guarded(_from_preset), widgets.preset, fields, api_name="train_preset", **quiet),
        widgets.load_yaml.click(guarded(_from_yaml), widgets.yaml, fields, api_name="train_load_yaml", **quiet),
    ]
    for number, event in enumerate(loaded):
        event.success(**describing, api_name=f"train_described_{number}")
    named = [widgets.form[path] for path in form.NAMED_ELSEWHERE]
    page.tabs["train"].select(guarded(_choices), named, named, preprocess=False, api_name="train_choices", **quiet)
    page.on_load(_first_look, None, [*named, widgets.yaml, widgets.command, widgets.machine])


def describe(request: gr.Request, *values: Any) -> list[Any]:
    """What is wrong with the form, or its YAML, its command, and what "auto" becomes."""
    try:
        return ["", *_told(form.read(values), request)]
    except SpecError as error:
        return [run_panel.problem(form.explained(error, language(request))), gr.skip(), gr.skip(), gr.skip()]


def _told(spec: specs.TrainSpec, request: gr.Request) -> list[str]:
    hardware = detect()
    auto = run_view.machine(hardware, choices(spec, hardware), language(request))
    return [specs.dump(spec, only_changes=True), command(spec), auto]


def _first_look(request: gr.Request) -> list[Any]:
    spec = specs.TrainSpec()
    return [*_choices(list(spec.data.datasets), spec.template.name), *_told(spec, request)]


def _choices(datasets: list[str] | None, template: str | None) -> list[Any]:
    """What the two fields that name something registered can be, with what they hold now."""
    known = [dataset.name for dataset in registry.every()]
    return [
        gr.update(choices=_pairs(form.names_in(known, datasets or ()))),
        gr.update(choices=_pairs(form.names_in(_template_names(), [template or "auto"]))),
    ]


def _pairs(names: list[str]) -> list[tuple[str, str]]:
    return [(name, name) for name in names]


def _template_names() -> list[str]:
    return [templates.AUTO, *templates.names()]


def _from_preset(name: str | None) -> list[Any]:
    return _written(from_preset(name) if name else specs.TrainSpec())


def _from_yaml(text: str | None) -> list[Any]:
    return _written(specs.parse(specs.TrainSpec, specs.read_yaml(text or "{}", "YAML")))


def _written(spec: specs.TrainSpec) -> list[Any]:
    """Updates that show the spec, with its datasets and template among the choices."""
    updates = dict(zip((field.path for field in form.fields()), form.write(spec), strict=True))
    for path, update in zip(form.NAMED_ELSEWHERE, _choices(list(spec.data.datasets), spec.template.name), strict=True):
        updates[path] |= update
    return list(updates.values())


def from_preset(name: str) -> specs.TrainSpec:
    """The spec that a preset holds."""
    return specs.parse(specs.TrainSpec, specs.read_yaml(presets.text(name), name))


def command(spec: specs.TrainSpec) -> str:
    """The shell command that starts the same run."""
    return shlex.join(["studio", "train", *(word for change in specs.changes(spec) for word in ("--set", change))])


# --- start


def _wire_start(page: Page, widgets: Widgets) -> None:
    fields = list(widgets.form.values())
    changed = [widgets.problem, *widgets.panel.refreshed]
    quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "trigger_mode": "once"}

    def start(request: gr.Request, *values: Any) -> Iterator[list[Any]]:
        yield from run_panel.attempt(
            lambda: control.submit(form.read(values), executor=page.executor).id, page, request
        )

    def try_it(request: gr.Request) -> Iterator[list[Any]]:
        spec = from_preset(FIRST_PRESET)
        for update in run_panel.attempt(lambda: control.submit(spec, executor=page.executor).id, page, request):
            yield [*_written(spec), *_told(spec, request), *update]

    told = [widgets.yaml, widgets.command, widgets.machine]
    started = widgets.start.click(guarded(start), fields, changed, preprocess=False, api_name="train_start", **quiet)
    tried = widgets.try_it.click(guarded(try_it), None, [*fields, *told, *changed], api_name="train_try", **quiet)
    for event in (started, tried):
        event.success(None, widgets.run, None, js=run_panel.WRITE_AND_SHOW_RUN, api_visibility="private")
