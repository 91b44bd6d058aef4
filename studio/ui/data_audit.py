"""The audit of the chosen dataset: what to count with, its progress, its figures with their remedies, and two charts.

An audit is a job, so a reload or another browser shows the same; this only reads the monitor. Not here: auditing
(studio.data.audit), making a set without what was found (studio.data.derive).
"""

from __future__ import annotations

import html
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from studio import specs, templates
from studio.data import derive, registry
from studio.data.intake import Progress, Watch
from studio.data.registry import Dataset
from studio.engine.models import resolve
from studio.errors import JobError, SpecError, StudioError
from studio.jobs import control
from studio.jobs.monitor import JobView
from studio.ui import audit_view, audits, data_rows, form, intake_view, job_panel, plots, run_panel, template_names
from studio.ui.audits import Audit
from studio.ui.charts import figure_json, still_chart
from studio.ui.data_rows import Place
from studio.ui.page import Page, guarded
from studio.ui.texts import language, t, table
from studio.ui.waiting import while_working

Updates = dict[Any, Any]

LOOK_S = 1.0
"""Seconds between looks at the monitor while an audit is live."""
NO_OTHER = ""
CHARTS = ("lengths", "classes")

ACT = """element.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  const { show, remedy, ask, name } = button.dataset;
  if (show) trigger("select", { show });
  const answer = remedy && prompt(ask, name);
  if (answer) trigger("submit", { remedy, name: answer });
});"""

SHOW_ROWS = """() => document.querySelector("#data-rows").scrollIntoView({ behavior: "smooth", block: "center" })"""
SHOW_SET = """() => document.querySelector("#data-set-view").scrollIntoView({ behavior: "smooth" })"""


@dataclass(frozen=True)
class Widgets:
    """seen: the state of the audit that was last shown, to send nothing twice."""

    model: gr.Textbox
    template: gr.Dropdown
    max_length: gr.Number
    against: gr.Dropdown
    validation_share: gr.Number
    near_duplicates: gr.Checkbox
    start: gr.Button
    stop: gr.Button
    problem: gr.HTML
    status: gr.HTML
    figures: gr.HTML
    lengths: gr.HTML
    classes: gr.HTML
    timer: gr.Timer
    seen: gr.State

    @property
    def shown(self) -> list[Any]:
        """Everything that `opened` may update."""
        told = [self.problem, self.status, self.figures, self.lengths, self.classes]
        return [self.template, self.against, self.stop, *told, self.timer, self.seen]

    @property
    def asked(self) -> list[Any]:
        """What `to_spec` reads, after the dataset's name."""
        return [self.model, self.template, self.max_length, self.against, self.validation_share, self.near_duplicates]


def build() -> dict[str, Any]:
    """A button, the settings folded below it, then what was found."""
    made: dict[str, Any] = {"timer": gr.Timer(LOOK_S, active=False), "seen": gr.State(None)}
    gr.Markdown(t("audit.title"), elem_classes="section")
    with gr.Row(elem_classes="actions"):
        made["start"] = gr.Button(t("audit.start"), elem_id="data-audit", scale=0, min_width=160)
        made["stop"] = gr.Button(t("job.stop"), elem_id="data-audit-stop", interactive=False, scale=0, min_width=100)
    made["problem"] = gr.HTML("", elem_id="data-audit-problem")
    with gr.Accordion(t("audit.settings"), open=False, elem_id="data-audit-settings", elem_classes="fold"):
        _build_settings(made)
    made["status"] = gr.HTML("", elem_id="data-audit-status")
    made["figures"] = gr.HTML("", elem_id="data-audit-figures", js_on_load=ACT)
    return made


def with_charts(made: dict[str, Any]) -> Widgets:
    """The charts below; they take no room while they are empty. made: by `build`."""
    for name in CHARTS:
        made[name] = still_chart(elem_id=f"data-{name}", key=f"audit.chart.{name}", min_height=0)
    return Widgets(**made)


def emptied(widgets: Widgets) -> Updates:
    """Updates that take the charts away."""
    return {widgets.lengths: "", widgets.classes: ""}


def _build_settings(made: dict[str, Any]) -> None:
    with gr.Row(elem_classes="form-grid"):
        made["model"] = gr.Textbox("", max_lines=1, elem_id="audit-model", **_texts("model"))
        made["template"] = gr.Dropdown(
            [templates.AUTO], value=templates.AUTO, elem_id="audit-template",
            label=t("spec.template.name.label"), info=t("spec.template.name.help"),
        )  # fmt: skip
        made["max_length"] = gr.Number(
            _default("max_length"), precision=0, minimum=8, elem_id="audit-max-length", **_texts("max_length")
        )
        made["against"] = gr.Dropdown([], value=None, elem_id="audit-against", **_texts("against"))
        made["validation_share"] = gr.Number(
            _default("validation_share"), minimum=0, maximum=0.5, step=0.05, elem_id="audit-validation-share",
            **_texts("validation_share"),
        )  # fmt: skip
        made["near_duplicates"] = gr.Checkbox(
            _default("near_duplicates"), elem_id="audit-near", **_texts("near_duplicates")
        )


def wire(
    page: Page,
    widgets: Widgets,
    name: gr.State,
    rows: data_rows.Widgets,
    listed: list[Any],
    show: Callable[..., Updates],
) -> None:
    """Connect the panel's events. name: of the chosen dataset. show(name, request): updates of `listed`."""
    quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
    out = widgets.shown

    def start(request: gr.Request, dataset: str, *values: Any) -> Updates:
        spoken = language(request)
        try:
            control.submit(to_spec(dataset, *values), executor=page.executor)
        except StudioError as error:
            text = form.explained(error, spoken) if isinstance(error, SpecError) else str(error)
            return {widgets.problem: run_panel.problem(text)}
        page.monitor.refresh()
        return {widgets.problem: "", **_standing(page, widgets, registry.get(dataset), spoken)}

    def stop(dataset: str, request: gr.Request) -> Updates:
        chosen = registry.get(dataset)
        view = audits.latest(page.monitor, chosen)
        if view is None or not view.live:
            raise JobError("No audit of this dataset is running.")
        control.stop(view.id)
        page.monitor.refresh()
        return _standing(page, widgets, chosen, language(request))

    def tick(dataset: str, seen: Any, place: Place, request: gr.Request) -> Updates:
        chosen, spoken = registry.get(dataset), language(request)
        view = audits.latest(page.monitor, chosen)
        if _key(view) == seen:
            return {widgets.seen: seen}
        if view is not None and view.live:
            return _standing(page, widgets, chosen, spoken)
        # the rows too, which now have findings to be shown by
        return {**opened(page, widgets, chosen, spoken, settings=False), **data_rows.look(page, rows, place, spoken)}

    def finding(event: gr.EventData, place: Place, request: gr.Request) -> Updates:
        kind = str(event._data.get("show", ""))
        return data_rows.look(page, rows, Place(place.name, "finding", kind, raw=place.raw), language(request))

    def remedy(event: gr.EventData, dataset: str, request: gr.Request) -> Iterator[Updates]:
        asked = event._data
        yield from _remedied(
            page, widgets, dataset, str(asked.get("remedy", "")), str(asked.get("name", "")), show, request
        )

    page.on_load(_model_here, None, widgets.model)
    widgets.start.click(
        guarded(start), [name, *widgets.asked], out, trigger_mode="once", preprocess=False, api_name="data_audit",
        **quiet,
    )  # fmt: skip
    widgets.stop.click(guarded(stop), name, out, api_name="data_audit_stop", **quiet)
    widgets.timer.tick(
        guarded(tick), [name, widgets.seen, rows.place], [*out, *rows.shown], api_name="data_audit_look", **quiet
    )
    widgets.figures.select(guarded(finding), rows.place, rows.shown, api_name="data_audit_rows", **quiet).success(
        None, None, None, js=SHOW_ROWS, api_visibility="private"
    )
    widgets.figures.submit(guarded(remedy), name, listed, trigger_mode="once", api_name="data_remedy", **quiet).success(
        None, None, None, js=SHOW_SET, api_visibility="private"
    )


def to_spec(
    dataset: str, model: str | None, template: str, max_length: Any, against: str | None, share: Any, near: bool
) -> specs.AuditSpec:
    """The spec that the widgets ask for. Raises: SpecError: a value is wrong."""
    values = {
        "dataset": dataset,
        "model": (model or "").strip() or None,
        "template": {"name": template},
        "max_length": max_length,
        "against": against or None,
        "validation_share": share,
        "near_duplicates": near,
    }
    return specs.parse(specs.AuditSpec, {key: value for key, value in values.items() if value is not None})


def opened(page: Page, widgets: Widgets, dataset: Dataset, spoken: str, *, settings: bool = True) -> Updates:
    """Updates that show the newest audit of a dataset as it is now. settings: also what can be chosen for another."""
    audit = audits.newest(page.monitor, dataset)
    names = [each.name for each in registry.every()]
    report = audit.report if audit else None
    tokens = report.tokens if report else None
    classes = report.classes if report else None
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(audit.view.created)) if audit else ""
    chosen = _choices(widgets, dataset, names, spoken) if settings else {}
    return {
        **chosen,
        **_standing(page, widgets, dataset, spoken, audit),
        widgets.problem: "",
        widgets.figures: audit_view.figures(report, when, names, spoken) if report else "",
        widgets.lengths: figure_json(plots.token_lengths(tokens, language=spoken) if tokens else None),
        widgets.classes: figure_json(plots.class_sizes(classes, language=spoken) if classes else None),
    }


def _choices(widgets: Widgets, dataset: Dataset, names: list[str], spoken: str) -> Updates:
    other = [(table(spoken)["audit.no_other"], NO_OTHER), *((each, each) for each in names if each != dataset.name)]
    return {
        widgets.template: gr.update(choices=template_names.plain()),
        widgets.against: gr.update(choices=other, value=NO_OTHER),
    }


def _standing(page: Page, widgets: Widgets, dataset: Dataset, spoken: str, audit: Audit | None = None) -> Updates:
    """How the audit that was started last stands; what it found is told elsewhere."""
    view = audits.latest(page.monitor, dataset)
    live = view is not None and view.live
    if audit is not None and view is not None and view.id == audit.view.id:
        told = ""
    elif view is None or view.state == "finished":
        told = "" if audit is not None else f"<p class='quiet'>{html.escape(table(spoken)['audit.none'])}</p>"
    else:
        told = job_panel.status(view, spoken)
    return {
        widgets.status: told,
        widgets.stop: gr.update(interactive=live),
        widgets.timer: gr.Timer(active=live),
        widgets.seen: _key(view),
    }


def _key(view: JobView | None) -> list[Any] | None:
    if view is None:
        return None
    return [view.id, view.state, view.phase and [view.phase.name, view.phase.done], len(view.notes)]


def _remedied(
    page: Page, widgets: Widgets, dataset: str, remedy: str, new: str, show: Callable[..., Updates], request: gr.Request
) -> Iterator[Updates]:
    """Make a new dataset without what was found, and show it; or why it was refused."""
    spoken = language(request)
    audit = audits.newest(page.monitor, registry.get(dataset))
    newest: list[Progress] = []

    def told(seconds: float) -> Updates:
        return {widgets.problem: intake_view.progress(new, newest[-1] if newest else None, seconds, spoken)}

    try:
        made = yield from while_working(
            lambda: derive.derive(
                dataset, remedy, new.strip(), findings=audit.findings if audit else None,
                watch=Watch(tell=newest.append),
            ),
            told,
        )  # fmt: skip
    except StudioError as error:
        yield {widgets.problem: run_panel.problem(str(error))}
        return
    yield show(made.name, request)


def _model_here() -> Any:
    """The bundled model if it is on this machine; an audit with a model that is not would be refused."""
    try:
        return specs.BUNDLED_MODEL if resolve.peek(specs.BUNDLED_MODEL).where else gr.skip()
    except StudioError:
        return gr.skip()


def _default(field: str) -> Any:
    return specs.AuditSpec.model_fields[field].default


def _texts(field: str) -> dict[str, Any]:
    return {"label": t(f"audit_spec.{field}.label"), "info": t(f"audit_spec.{field}.help")}
