"""The Export tab: a run becomes a folder that others can load.

Start makes a job; the rest reads that job. Not here: what each format writes (studio.engine.exporters).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import gradio as gr

from studio import specs
from studio.errors import StudioError
from studio.home import checked_name, home
from studio.jobs import folder as folders
from studio.jobs.monitor import JobView
from studio.ui import adapters, export_view, job_panel
from studio.ui.job_panel import Panel
from studio.ui.page import AllWidgets, Page, guarded
from studio.ui.texts import t

FORMATS = ("merged", "adapter")
DTYPES = ("bf16", "fp16", "fp32")


@dataclass(frozen=True)
class Widgets:
    """adapter: `RUN` or `RUN@STEP`. out: the target folder; its placeholder is where an empty one leads."""

    adapter: gr.Dropdown
    format: gr.Radio
    dtype: gr.Radio
    out: gr.Textbox
    start: gr.Button
    problem: gr.HTML
    panel: Panel
    folder: gr.Textbox
    snippet: gr.Textbox
    files: gr.HTML


def build(page: Page) -> Widgets:
    """What to export on the left, the export on the right."""
    made: dict[str, Any] = {}
    with gr.Row(elem_classes="columns"):
        with gr.Column(scale=4, min_width=320):
            _build_form(made)
        with gr.Column(scale=6, min_width=320):
            made["panel"] = job_panel.build("export")
            made["folder"] = gr.Textbox(
                label=t("export.folder"), interactive=False, buttons=["copy"], elem_id="export-folder",
                elem_classes="mono", visible=False, lines=1, max_lines=3,
            )  # fmt: skip
            made["snippet"] = gr.Textbox(
                label=t("export.snippet"), interactive=False, buttons=["copy"], elem_id="export-snippet",
                elem_classes="mono", visible=False, lines=5, max_lines=8,
            )  # fmt: skip
            made["files"] = gr.HTML("", elem_id="export-files")
    return Widgets(**made)


def wire(page: Page, all: AllWidgets) -> None:
    """Connect the tab's events."""
    widgets: Widgets = all["export"]
    panel, outputs = widgets.panel, [widgets.folder, widgets.snippet, widgets.files]
    asked = [widgets.adapter, widgets.format, widgets.dtype, widgets.out]
    quiet = {"api_visibility": "private", "show_progress": "hidden"}

    def lists(adapter: str | None, format: str, dtype: str, request: gr.Request) -> list[Any]:
        choices = adapters.choices(page.monitor)
        known = adapter in [value for _, value in choices]
        value = adapter if known else adapters.asked_for(page.monitor, request)
        return [gr.update(choices=choices, value=value), gr.update(placeholder=leads_to(value, format, dtype))]

    def changed(adapter: str | None, format: str, dtype: str) -> list[Any]:
        return [gr.update(visible=format == "merged"), gr.update(placeholder=leads_to(adapter, format, dtype))]

    job_panel.wire(page, panel, outcome, outputs)
    page.on_load(lists, asked[:3], [widgets.adapter, widgets.out])
    page.tabs["export"].select(
        guarded(lists), asked[:3], [widgets.adapter, widgets.out], api_name="export_lists", **quiet
    )
    gr.on(
        [widgets.adapter.input, widgets.format.input, widgets.dtype.input],
        guarded(changed), asked[:3], [widgets.dtype, widgets.out], api_name="export_changed", **quiet,
    )  # fmt: skip
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


def to_spec(adapter: str | None, format: str, dtype: str, out: str | None) -> specs.ExportSpec:
    """The spec that the widgets ask for.

    Raises: JobError: no run is chosen. SpecError: a value is wrong. StudioError: the folder is not one of exports/.
    """
    target = _target((out or "").strip())
    return specs.parse(specs.ExportSpec, adapters.split(adapter) | {"format": format, "dtype": dtype, "out": target})


def _target(out: str) -> str | None:
    """Whoever can open the page can send any text, so that only the shell writes elsewhere than exports/."""
    if not out:
        return None
    exports = home().exports
    return str(exports / checked_name(out.removeprefix(f"{exports}{os.sep}"), "name of a folder in exports"))


def leads_to(adapter: str | None, format: str, dtype: str) -> str:
    """Where an export without a target goes; empty while no run is chosen."""
    try:
        return str(folders.export_target(to_spec(adapter, format, dtype, None)))
    except StudioError:
        return ""


def outcome(view: JobView | None, language: str) -> list[Any]:
    """Folder, snippet and files of a finished export."""
    path = view.ended.path if view and view.ended and view.state == "finished" else None
    if path is None:
        return [gr.update(visible=False), gr.update(visible=False), ""]
    return [
        gr.update(value=path, visible=True),
        gr.update(value=export_view.snippet(view, path), visible=True),
        export_view.files(path, language),
    ]


def _build_form(made: dict[str, Any]) -> None:
    made["adapter"] = gr.Dropdown([], value=None, elem_id="export-adapter", **_texts("run"))
    made["format"] = gr.Radio(FORMATS, value=_default("format"), elem_id="export-format", **_texts("format"))
    made["dtype"] = gr.Radio(DTYPES, value=_default("dtype"), elem_id="export-dtype", **_texts("dtype"))
    made["out"] = gr.Textbox("", elem_id="export-out", elem_classes="mono", lines=1, max_lines=3, **_texts("out"))
    with gr.Row(elem_classes="actions"):
        made["start"] = gr.Button(t("export.start"), variant="primary", elem_id="export-start", min_width=120)
    made["problem"] = gr.HTML("", elem_id="export-problem")


def _default(field: str) -> Any:
    return specs.ExportSpec.model_fields[field].default


def _texts(field: str) -> dict[str, Any]:
    return {"label": t(f"export_spec.{field}.label"), "info": t(f"export_spec.{field}.help")}
