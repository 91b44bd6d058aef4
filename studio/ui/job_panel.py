"""The part of a tab that shows one job of its kind: which one, how it stands, Stop, and earlier ones to reopen.

Evaluate and Export share it. It only reads the monitor, so a reload or a second browser shows the same. Not here: the
job's outcome, which each tab shows in its own way.
"""

from __future__ import annotations

import html
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from studio.errors import JobError, StudioError
from studio.jobs import control
from studio.jobs.monitor import JobView
from studio.specs import Spec
from studio.ui import run_panel
from studio.ui.page import Page, guarded
from studio.ui.texts import language, t, table

Outcome = Callable[[JobView | None, str], Sequence[Any]]
"""(view, language) -> the updates of a tab's own outputs."""

LOOK_S = 1.0
"""Seconds between looks at the monitor while the shown job is live."""


@dataclass(frozen=True)
class Panel:
    """kind: evaluate or export. job: the id of the shown job. seen: what was shown last, to send nothing twice."""

    kind: str
    job: gr.Dropdown
    stop: gr.Button
    status: gr.HTML
    seen: gr.State
    timer: gr.Timer


def build(kind: str) -> Panel:
    """Lay the panel out."""
    with gr.Row(elem_classes="actions"):
        job = gr.Dropdown(
            [], value=None, label=t(f"{kind}.job"), elem_id=f"{kind}-job", scale=4, min_width=220, filterable=False
        )
        stop = gr.Button(t("job.stop"), elem_id=f"{kind}-stop", interactive=False, scale=0, min_width=100)
    status = gr.HTML("", elem_id=f"{kind}-status")
    return Panel(kind, job, stop, status, gr.State(None), gr.Timer(LOOK_S, active=False))


def wire(page: Page, panel: Panel, outcome: Outcome, outputs: Sequence[Any]) -> None:
    """Show the chosen job and its outcome, on load, on choice, and while it is live."""
    told = [panel.job, *_told(panel), *outputs]
    quiet = {"api_visibility": "private", "show_progress": "hidden", "concurrency_limit": None}

    def opened(request: gr.Request) -> list[Any]:
        return chosen(page, panel, outcome, None, language(request))

    def selected(job: str | None, request: gr.Request) -> list[Any]:
        return chosen(page, panel, outcome, job, language(request))

    def look(job: str | None, seen: Any, request: gr.Request) -> list[Any]:
        return _shown(page, panel, job, seen, outcome, len(outputs), language(request))

    def stop(job: str | None, request: gr.Request) -> list[Any]:
        if not job:
            raise JobError("No job is chosen. Choose one in the list.")
        control.stop(job)
        page.monitor.refresh()
        return chosen(page, panel, outcome, job, language(request))

    page.on_load(opened, None, told)
    page.tabs[panel.kind].select(guarded(selected), panel.job, told, api_name=f"{panel.kind}_selected", **quiet)
    panel.job.input(guarded(selected), panel.job, told, api_name=f"{panel.kind}_chosen", **quiet)
    panel.timer.tick(guarded(look), [panel.job, panel.seen], told, api_name=f"{panel.kind}_look", **quiet)
    panel.stop.click(guarded(stop), panel.job, told, api_name=f"{panel.kind}_stop", **quiet)


def wire_start(
    page: Page,
    panel: Panel,
    outcome: Outcome,
    outputs: Sequence[Any],
    *,
    button: gr.Button,
    problem: gr.HTML,
    inputs: Sequence[Any],
    to_spec: Callable[..., Spec],
) -> None:
    """Make the button start a job of `to_spec(*inputs)` and show it; what is wrong stands in `problem`, beside it."""
    told = [problem, panel.job, *_told(panel), *outputs]

    def start(request: gr.Request, *values: Any) -> list[Any]:
        try:
            folder = control.submit(to_spec(*values), executor=page.executor)
        except StudioError as error:
            return [run_panel.problem(str(error)), *[gr.skip()] * (len(told) - 1)]
        page.monitor.refresh()
        return ["", *chosen(page, panel, outcome, folder.id, language(request))]

    button.click(
        guarded(start),
        inputs,
        told,
        api_name=f"{panel.kind}_start",
        api_visibility="private",
        show_progress="hidden",
        trigger_mode="once",
    )


def chosen(page: Page, panel: Panel, outcome: Outcome, job: str | None, spoken: str) -> list[Any]:
    """The list of jobs with one of them shown: the wanted one, else a live one, else the newest."""
    views = page.monitor.views(panel.kind)
    view = page.monitor.get(job) or next((view for view in views if view.live), views[0] if views else None)
    return [_listed(views, view, spoken), *_parts(view, spoken), *outcome(view, spoken)]


def status(view: JobView | None, spoken: str, none: str = "job.none") -> str:
    """State, phase, progress, message and notes as markup. Everything that a job said is escaped."""
    words = table(spoken)
    if view is None:
        return f'<p class="quiet">{html.escape(words[none])}</p>'
    state = html.escape(words[f"train.state.{view.state}"])
    notes = "".join(f'<p class="note">{html.escape(note)}</p>' for note in view.notes)
    return (
        f'<div class="run" data-state="{view.state}"><div class="run-head">'
        f'<span class="state state-{view.state}">{state}</span>'
        f'<span class="doing" role="status">{html.escape(_doing(view, words))}</span></div>'
        f"{_progress(view, state)}{notes}</div>"
    )


def _listed(views: Sequence[JobView], view: JobView | None, spoken: str) -> Any:
    return gr.update(choices=[(label(each, spoken), each.id) for each in views], value=view.id if view else None)


def label(view: JobView, spoken: str) -> str:
    """A job in a list: of which run, when, and how it stands."""
    spec = view.spec or {}
    step = f" @{spec['checkpoint']}" if spec.get("checkpoint") else ""
    when = time.strftime("%m-%d %H:%M:%S", time.localtime(view.created))
    return f"{spec.get('run', view.id)}{step} · {when} · {table(spoken)[f'train.state.{view.state}']}"


def _told(panel: Panel) -> list[Any]:
    return [panel.status, panel.stop, panel.timer, panel.seen]


def _parts(view: JobView | None, spoken: str) -> list[Any]:
    live = view is not None and view.live
    return [status(view, spoken), gr.update(interactive=live), gr.Timer(active=live), _key(view)]


def _shown(page: Page, panel: Panel, job: str | None, seen: Any, outcome: Outcome, count: int, spoken: str) -> Any:
    """Nothing new is nothing sent; the outcome is looked at again only when scores came or the state changed."""
    view = page.monitor.get(job)
    key = _key(view)
    if key == seen:
        return [gr.skip()] * (5 + count)
    if seen is not None and key is not None and key[:3] == seen[:3]:
        return [gr.skip(), *_parts(view, spoken), *[gr.skip()] * count]
    return [_listed(page.monitor.views(panel.kind), view, spoken), *_parts(view, spoken), *outcome(view, spoken)]


def _key(view: JobView | None) -> list[Any] | None:
    if view is None:
        return None
    phase = view.phase
    return [
        view.id,
        view.state,
        [each.time for each in view.measured],
        phase and [phase.name, phase.done],
        len(view.notes),
    ]


def _doing(view: JobView, words: Any) -> str:
    if not view.live:
        return view.ended.message if view.ended else ""
    if view.phase is None:
        return ""
    name = words.get(f"job.phase.{view.phase.name}", view.phase.name)
    if view.phase.done is None:
        return name
    unit = words.get(f"job.unit.{view.phase.unit}", view.phase.unit)
    return f"{name} {view.phase.done:,}{f' / {view.phase.total:,}' if view.phase.total else ''} {unit}".rstrip()


def _progress(view: JobView, label: str) -> str:
    if not view.live:
        return ""
    phase = view.phase
    if phase is None or not phase.total:
        return f"<progress aria-label='{label}' max='1'></progress>"
    return f"<progress aria-label='{label}' max='{phase.total}' value='{min(phase.done or 0, phase.total)}'></progress>"
