"""The Evaluate tab: the adapter beside its base, on rows that it did not learn from.

Start makes a job; everything else reads that job's folder, so that earlier evaluations open the same way. Not here:
measuring (studio.engine.evaluation.answers).
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from studio import specs
from studio.errors import JobError
from studio.home import home
from studio.jobs import folder as folders
from studio.jobs.monitor import JobView
from studio.ui import adapters, classification_view, evaluation_view, job_panel, plots
from studio.ui.charts import figure_json, still_chart
from studio.ui.job_panel import Panel
from studio.ui.page import AllWidgets, Page, guarded
from studio.ui.texts import say, t

HELD_OUT = ""
"""The choice of rows that stands for what the run held out."""

CLICK_LINK = "() => setTimeout(() => document.querySelector('#evaluate-file').click(), 300)"


@dataclass(frozen=True)
class Widgets:
    """adapter: `RUN` or `RUN@STEP`. file: hidden; holds the copy that `download` made."""

    adapter: gr.Dropdown
    dataset: gr.Dropdown
    max_samples: gr.Textbox
    generate: gr.Checkbox
    max_new_tokens: gr.Number
    start: gr.Button
    problem: gr.HTML
    panel: Panel
    scores: gr.HTML
    chart_box: gr.Column
    chart: gr.HTML
    answers: gr.HTML
    download: gr.Button
    file: gr.DownloadButton


def build(page: Page) -> Widgets:
    """What to measure on the left, the scores on the right, the answers below."""
    made: dict[str, Any] = {}
    with gr.Row(elem_classes="columns"):
        with gr.Column(scale=4, min_width=320):
            _build_form(made)
        with gr.Column(scale=6, min_width=320):
            made["panel"] = job_panel.build("evaluate")
            made["scores"] = gr.HTML("", elem_id="evaluate-scores")
            with gr.Column(visible=False, elem_id="evaluate-chart-box") as made["chart_box"]:
                made["chart"] = still_chart(elem_id="evaluate-chart", key="evaluate.chart")
    made["answers"] = gr.HTML("", elem_id="evaluate-answers")
    with gr.Row(elem_classes="actions"):
        made["download"] = gr.Button(
            t("evaluate.download"), elem_id="evaluate-download", size="sm", visible=False, scale=0, min_width=260
        )
        made["file"] = gr.DownloadButton(visible="hidden", elem_id="evaluate-file")
    return Widgets(**made)


def wire(page: Page, all: AllWidgets) -> None:
    """Connect the tab's events."""
    widgets: Widgets = all["evaluate"]
    panel = widgets.panel
    outputs = [widgets.scores, widgets.chart_box, widgets.chart, widgets.answers, widgets.download]
    asked = [widgets.adapter, widgets.dataset, widgets.max_samples, widgets.generate, widgets.max_new_tokens]
    quiet = {"api_visibility": "private", "show_progress": "hidden"}

    def lists(adapter: str | None, dataset: str | None, request: gr.Request) -> list[Any]:
        return [_adapters(page, adapter, request), _datasets(dataset, request)]

    job_panel.wire(page, panel, outcome, outputs)
    chosen = [widgets.adapter, widgets.dataset]
    page.on_load(lists, chosen, chosen)
    page.tabs["evaluate"].select(guarded(lists), chosen, chosen, api_name="evaluate_lists", **quiet)
    job_panel.wire_start(
        page,
        panel,
        outcome,
        outputs,
        button=widgets.start,
        problem=widgets.problem,
        inputs=asked,
        to_spec=to_spec,
    )
    widgets.download.click(
        guarded(copy_for_download), panel.job, widgets.file, api_name="evaluate_download", **quiet
    ).success(None, None, None, js=CLICK_LINK, api_visibility="private")


def to_spec(
    adapter: str | None, dataset: str | None, rows: str | None, generate: bool, tokens: int | None
) -> specs.EvaluateSpec:
    """The spec that the widgets ask for. Raises: JobError: no run is chosen. SpecError: a value is wrong."""
    values = adapters.split(adapter) | {
        "dataset": dataset or None,
        "max_samples": rows or None,
        "generate": generate,
    }
    return specs.parse(specs.EvaluateSpec, values | ({} if tokens is None else {"max_new_tokens": tokens}))


def outcome(view: JobView | None, language: str) -> list[Any]:
    """Scores as soon as there are some; the chart and the answers when the job has ended."""
    scores = evaluation_view.scores(view, language)
    if view is None or view.live:
        return [scores, gr.update(visible=False), "", "", gr.update(visible=False)]
    path = folders.find(view.id).predictions
    if (classified := classification_view.read(path)) is not None:
        shown = scores + classification_view.labels(classified, language)
        rows = classification_view.rows(classified, language)
        return [shown, gr.update(visible=False), "", rows, gr.update(visible=True)]
    rows = evaluation_view.read(path)
    figure = plots.paired_losses(*evaluation_view.losses(rows), language=language) if len(rows) > 1 else None
    return [
        scores,
        gr.update(visible=figure is not None),
        figure_json(figure),
        evaluation_view.answers(rows, language),
        gr.update(visible=bool(rows)),
    ]


def copy_for_download(job: str | None) -> Any:
    """A copy of the answers under exports/, the only folder whose files the page hands out."""
    if not job:
        raise JobError("No evaluation is chosen. Choose one in the list.")
    source = folders.find(job).predictions
    target = home().exports / f"{job}-answers.jsonl"
    try:
        shutil.copyfile(source, target)
    except OSError as error:
        raise JobError(f"{source} cannot be copied to {target}: {error.strerror}.") from error
    return gr.update(value=str(Path(target)))


def _build_form(made: dict[str, Any]) -> None:
    made["adapter"] = gr.Dropdown([], value=None, elem_id="evaluate-adapter", **_texts("run"))
    made["dataset"] = gr.Dropdown([], value=None, elem_id="evaluate-dataset", **_texts("dataset"))
    with gr.Row():
        # gradio shows an empty Number as 0, and empty means all
        made["max_samples"] = gr.Textbox(
            str(_default("max_samples")),
            placeholder=t("train.empty"),
            max_lines=1,
            min_width=140,
            elem_id="evaluate-max-samples",
            **_texts("max_samples"),
        )
        made["max_new_tokens"] = gr.Number(
            _default("max_new_tokens"),
            precision=0,
            minimum=1,
            min_width=140,
            elem_id="evaluate-max-new-tokens",
            **_texts("max_new_tokens"),
        )
    made["generate"] = gr.Checkbox(_default("generate"), elem_id="evaluate-generate", **_texts("generate"))
    with gr.Row(elem_classes="actions"):
        made["start"] = gr.Button(t("evaluate.start"), variant="primary", elem_id="evaluate-start", min_width=120)
    made["problem"] = gr.HTML("", elem_id="evaluate-problem")


def _default(field: str) -> Any:
    return specs.EvaluateSpec.model_fields[field].default


def _texts(field: str) -> dict[str, Any]:
    """Label and help of a field of the spec."""
    return {"label": t(f"evaluate_spec.{field}.label"), "info": t(f"evaluate_spec.{field}.help")}


def _adapters(page: Page, adapter: str | None, request: gr.Request) -> Any:
    choices = adapters.choices(page.monitor)
    known = adapter in [value for _, value in choices]
    return gr.update(choices=choices, value=adapter if known else adapters.asked_for(page.monitor, request))


def _datasets(dataset: str | None, request: gr.Request) -> Any:
    from studio.data import registry

    names = [each.name for each in registry.every()]
    choices = [(say("evaluate.held_out", request), HELD_OUT), *((name, name) for name in names)]
    return gr.update(choices=choices, value=dataset if dataset in names else HELD_OUT)
