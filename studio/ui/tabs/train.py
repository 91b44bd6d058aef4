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
from studio.jobs.monitor import Monitor
from studio.ui import fit_view, form, method_view, run_panel, run_view
from studio.ui.page import AllWidgets, Page, guarded
from studio.ui.texts import language, t

FIRST_PRESET = "identity"
CHANGEABLE = (
    "training.gradient_checkpointing",
    "training.batch_size",
    "training.accumulation",
    "quantization.kind",
    "data.max_length",
)
"""Fields that studio.engine.fit.changes may change."""
QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}


@dataclass(frozen=True)
class Widgets:
    """form: the widget of each field by its key. start: the tab's one primary act. panel: the run's side.

    method and stage: what stands beside the choice of each. count: what trains, in numbers. fit and needs: what the run
    needs, as a bar and in words. advice and apply: what would make it fit. replaced: the quantisation that the form
    turned off, to turn it on again.
    """

    form: form.Widgets
    preset: gr.Dropdown
    try_it: gr.Button
    machine: gr.HTML
    method: gr.HTML
    stage: gr.HTML
    count: gr.HTML
    fit: gr.HTML
    needs: gr.HTML
    advice: gr.HTML
    apply: gr.Button
    replaced: gr.State
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

    @property
    def fields(self) -> list[gr.components.Component]:
        """The form's widgets, in the order in which it is read and written."""
        return list(self.form.values())

    @property
    def told(self) -> list[gr.components.Component]:
        """What is said about a form that is right."""
        return [self.yaml, self.command, self.machine, self.method, self.stage, self.count, *self.needed]

    @property
    def needed(self) -> list[gr.components.Component]:
        """What is said about what the run needs."""
        return [self.fit, self.needs, self.advice, self.apply]

    @property
    def changeable(self) -> list[gr.components.Component]:
        """The fields that a change to make a run fit may change."""
        return [self.form[path] for path in CHANGEABLE]


def build(page: Page) -> Widgets:
    """Lay the tab out: what to train on the left, the run on the right; one below the other on a narrow screen."""
    made: dict[str, Any] = {}
    with gr.Row(elem_classes="columns"):
        with gr.Column(scale=5, min_width=320):
            _build_presets(made)
            fields = form.build_front(lambda section: made.update({section: _build_note(section)}))
            with gr.Column(elem_classes="always-in-sight"):
                made["problem"] = gr.HTML("", elem_id="train-problem")
                made["count"] = gr.HTML(method_view.no_count(), elem_id="train-count", min_height=22)
                made["fit"] = gr.HTML(fit_view.bar(None, "en"), elem_id="train-fit", min_height=34)
                made["start"] = gr.Button(t("train.start"), variant="primary", elem_id="train-start")
            _build_needs(made)
            made["machine"] = gr.HTML("", elem_id="train-machine")
            fields |= form.build_folded()
            _build_yaml(made)
        with gr.Column(scale=6, min_width=320):
            made["panel"] = run_panel.build(page)
    return Widgets(form=form.in_order(fields), replaced=gr.State(""), **made)


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
        known = [(f"{name} · {what}", name) for name, what in presets.described().items()]
        made["preset"] = gr.Dropdown(known, value=None, label=t("train.preset"), elem_id="train-preset", min_width=160)


def _build_note(section: str) -> gr.HTML:
    return gr.HTML("", elem_id=f"train-{section}", elem_classes="beside")


def _build_needs(made: dict[str, Any]) -> None:
    with gr.Row(elem_classes="fit-advice"):
        made["advice"] = gr.HTML("", elem_id="train-fit-advice")
        made["apply"] = gr.Button(
            t("train.fit.apply"), elem_id="train-fit-apply", size="sm", min_width=80, visible=False
        )
    made["needs"] = gr.HTML("", elem_id="train-needs")


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


def describing(page: Page, widgets: Widgets) -> dict[str, Any]:
    """An event, but for its name, that says what is to be said about the form."""

    def described(request: gr.Request, *values: Any) -> list[Any]:
        return describe(page.monitor, request, *values)

    return {
        "fn": guarded(described),
        "inputs": [*widgets.fields, widgets.replaced],
        "outputs": [widgets.problem, *widgets.told],
        "preprocess": False,
        "concurrency_limit": None,
        **QUIET,
    }


def _wire_form(page: Page, widgets: Widgets) -> None:
    describe_it = {**describing(page, widgets), "trigger_mode": "always_last"}
    kinds = {f"{section}.kind" for section in specs.UNIONS}
    gr.on(
        [_changed_by_hand(widget) for key, widget in widgets.form.items() if key not in kinds],
        **describe_it,
        api_name="train_describe",
    )
    filled = [*widgets.fields, widgets.replaced]
    loaded = [
        *_wire_kinds(widgets),
        widgets.preset.select(guarded(_from_preset), widgets.preset, filled, api_name="train_preset", **QUIET),
        widgets.load_yaml.click(guarded(_from_yaml), widgets.yaml, filled, api_name="train_load_yaml", **QUIET),
        _wire_apply(page, widgets),
    ]
    for number, event in enumerate(loaded):
        event.success(**describe_it, api_name=f"train_described_{number}")
    named = [widgets.form[path] for path in form.NAMED_ELSEWHERE]
    page.tabs["train"].select(guarded(_choices), named, named, preprocess=False, api_name="train_choices", **QUIET)

    def first_look(request: gr.Request) -> list[Any]:
        return _first_look(page.monitor, request)

    page.on_load(first_look, None, [*named, *widgets.told])


def _wire_apply(page: Page, widgets: Widgets) -> Any:
    """Put the change that makes the run fit into the form. It is found anew: the machine may be busier by now."""

    def apply(*values: Any) -> list[Any]:
        spec = form.read(values)
        fit = fit_view.estimated(spec, _needs(page.monitor))
        changes = fit.change.fields if fit and fit.change else {}
        return [gr.update(value=changes[path]) if path in changes else gr.skip() for path in CHANGEABLE]

    return widgets.apply.click(
        guarded(apply), widgets.fields, widgets.changeable, preprocess=False, api_name="train_apply", **QUIET
    )


def _changed_by_hand(widget: Any) -> Any:
    """The event of it. gradio 6.31's Dropdown tells one choice twice as `input`, and once as `select`."""
    once = isinstance(widget, gr.Dropdown) and not widget.multiselect
    return widget.select if once else widget.input


def _wire_kinds(widgets: Widgets) -> Iterator[Any]:
    """Another method or stage brings its own fields, with its defaults."""
    quantised, method, stage = (widgets.form[key] for key in ("quantization.kind", "method.kind", "stage.kind"))
    of_method = [widgets.form[key] for key in form.switched("method", None)]
    of_stage = [widgets.form[key] for key in form.switched("stage", None)]
    held = [quantised, widgets.replaced]
    yield method.select(
        guarded(_other_method), [method, *held], [*of_method, *held, widgets.method], api_name="train_method", **QUIET
    )
    yield stage.select(guarded(_other_stage), stage, [*of_stage, widgets.stage], api_name="train_stage", **QUIET)


def _other_method(kind: str | None, quantised: str, replaced: str, request: gr.Request) -> list[Any]:
    """The fields of a method. Where it cannot train on the chosen quantisation, that is turned off until one can."""
    method = specs.kinds("method").get(kind or "")
    if method is None:
        return [*form.switched("method", None).values(), gr.skip(), gr.skip(), ""]
    wanted = replaced or quantised
    held = ["none", wanted] if not _can_train_on(method(), wanted) else [wanted, ""]
    said = method_view.method(method(), language(request), unquantised=bool(held[1]))
    return [*form.switched("method", kind).values(), *held, said]


def _other_stage(kind: str | None, request: gr.Request) -> list[Any]:
    stage = specs.kinds("stage").get(kind or "")
    return [*form.switched("stage", kind).values(), method_view.stage(stage(), language(request)) if stage else ""]


def _can_train_on(method: specs.Method, quantised: str) -> bool:
    can = specs.ability(method)
    return {"nf4": can.nf4, "fp4": can.nf4, "int8": can.int8}.get(quantised, True)


def describe(monitor: Monitor, request: gr.Request, *values: Any) -> list[Any]:
    """What is wrong with the form, or its YAML, its command, what "auto" becomes, what trains, and what that needs.

    values: those of the form's widgets, and the quantisation that the form turned off, or "".
    """
    *fields, replaced = values
    try:
        spec = form.read(fields)
    except SpecError as error:
        return [_problem(error, request), *[gr.skip()] * 5, *_uncounted(request)]
    try:
        return ["", *_told(spec, request, replaced), *_counted(spec, monitor, request)]
    except SpecError as error:
        return [_problem(error, request), *_told(spec, request, replaced), *_uncounted(request)]


def _counted(spec: specs.TrainSpec, monitor: Monitor, request: gr.Request) -> list[Any]:
    """The count, and Widgets.needed. Raises: SpecError: a field names what the model does not have."""
    words = language(request)
    return [method_view.counted(spec, words, _count), *_needed(fit_view.estimated(spec, _needs(monitor)), words)]


def _uncounted(request: gr.Request) -> list[Any]:
    """The same while something in the form is wrong."""
    return [method_view.no_count(), *_needed(None, language(request))]


def _needed(fit: Any, words: str) -> list[Any]:
    button = gr.update(visible=fit is not None and fit.change is not None)
    return [fit_view.bar(fit, words), fit_view.details(fit, words), fit_view.advice(fit, words), button]


def _problem(error: SpecError, request: gr.Request) -> str:
    return run_panel.problem(form.explained(error, language(request)))


def _told(spec: specs.TrainSpec, request: gr.Request, replaced: str = "") -> list[str]:
    """All of Widgets.told but the count and what is needed."""
    hardware, words = detect(), language(request)
    auto = run_view.machine(hardware, choices(spec, hardware), words)
    method = method_view.method(spec.method, words, unquantised=bool(replaced) and spec.quantization.kind == "none")
    return [specs.dump(spec, only_changes=True), command(spec), auto, method, method_view.stage(spec.stage, words)]


def _count(spec: specs.TrainSpec) -> Any:
    from studio.engine.counting import count  # not before the page stands, which it would hold up

    return count(spec)


def _needs(monitor: Monitor) -> fit_view.Needs:
    from studio.jobs.needs import needs  # not before the page stands

    return lambda spec: needs(spec, monitor)


def _first_look(monitor: Monitor, request: gr.Request) -> list[Any]:
    spec = specs.TrainSpec()
    named = _choices(list(spec.data.datasets), spec.template.name)
    return [*named, *_told(spec, request), *_counted(spec, monitor, request)]


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
    return [*_written(from_preset(name) if name else specs.TrainSpec()), ""]


def _from_yaml(text: str | None) -> list[Any]:
    return [*_written(specs.parse(specs.TrainSpec, specs.read_yaml(text or "{}", "YAML"))), ""]


def _written(spec: specs.TrainSpec) -> list[Any]:
    """Updates that show the spec, with its datasets and template among the choices."""
    updates = dict(zip((field.key for field in form.fields()), form.write(spec), strict=True))
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
    changed = [widgets.problem, *widgets.panel.refreshed]
    once: dict[str, Any] = {**QUIET, "trigger_mode": "once"}

    def start(request: gr.Request, *values: Any) -> Iterator[list[Any]]:
        yield from run_panel.attempt(
            lambda: control.submit(form.read(values), executor=page.executor).id, page, request
        )

    def try_it(request: gr.Request) -> Iterator[list[Any]]:
        spec = from_preset(FIRST_PRESET)
        counted = _counted(spec, page.monitor, request)
        for update in run_panel.attempt(lambda: control.submit(spec, executor=page.executor).id, page, request):
            yield [*_written(spec), "", *_told(spec, request), *counted, *update]

    fields, filled = widgets.fields, [*widgets.fields, widgets.replaced, *widgets.told]
    started = widgets.start.click(guarded(start), fields, changed, preprocess=False, api_name="train_start", **once)
    tried = widgets.try_it.click(guarded(try_it), None, [*filled, *changed], api_name="train_try", **once)
    for event in (started, tried):
        event.success(None, widgets.run, None, js=run_panel.WRITE_AND_SHOW_RUN, api_visibility="private")
