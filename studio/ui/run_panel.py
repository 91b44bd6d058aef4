"""The run's side of the Train tab: picker, figures, chart, samples, log, comparison, Stop and Resume.

Handlers that refresh only read the monitor, so a reload, a second browser or a restarted server shows the same run;
they send only what changed. What goes on with each step asks for itself (studio.ui.live_run). Not here: what a figure
looks like (studio.ui.run_view).
"""

from __future__ import annotations

import html
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from studio.errors import SpecError, StudioError
from studio.home import home
from studio.jobs import control, queue
from studio.jobs.folder import JobFolder
from studio.jobs.monitor import JobView, Monitor, log_tail
from studio.ui import form, plots, run_view
from studio.ui.charts import figure_json, still_chart
from studio.ui.live_run import fingerprint, live_run, showing
from studio.ui.page import Page, guarded, shown
from studio.ui.texts import language, t

_SAMPLES = Path(__file__).with_name("samples.js").read_text(encoding="utf-8")
WRITE_RUN = """(run) => {
  const address = new URL(location);
  run ? address.searchParams.set("run", run) : address.searchParams.delete("run");
  history.replaceState(null, "", address);
}"""

WRITE_AND_SHOW_RUN = f"""(run) => {{
  ({WRITE_RUN})(run);
  const status = document.querySelector("#train-status");
  const {{ top }} = status.getBoundingClientRect();
  if (top < 0 || top > innerHeight) status.scrollIntoView({{ behavior: "smooth" }});
}}"""
"""After a start: on a narrow screen the run is far below the button."""


@dataclass(frozen=True)
class Widgets:
    """run: the id of the shown run. live: how it stands, and its chart. seen: what this browser got last, as hashes."""

    run: gr.Dropdown
    stop: gr.Button
    resume: gr.Button
    slower: gr.Button
    sooner: gr.Button
    live: gr.HTML
    notes: gr.HTML
    samples: gr.HTML
    log: gr.Textbox
    compare: gr.Dropdown
    comparison: gr.HTML
    seen: gr.State

    @property
    def refreshed(self) -> list[gr.components.Component]:
        """What `look` sends, in its order."""
        buttons = [self.stop, self.resume, self.slower, self.sooner]
        parts = [self.run, self.live, self.notes, self.samples, self.log, *buttons]
        return [*parts, self.compare, self.seen]


def build(page: Page) -> Widgets:
    """Lay the panel out."""
    made: dict[str, Any] = {}
    with gr.Row(elem_classes="actions"):
        made["run"] = gr.Dropdown(
            [], value=None, label=t("train.run"), elem_id="train-run", scale=4, min_width=220, filterable=False
        )
        made["stop"] = gr.Button(t("train.stop"), elem_id="train-stop", interactive=False, min_width=80)
        made["resume"] = gr.Button(t("train.resume"), elem_id="train-resume", interactive=False, min_width=80)
        made["slower"] = gr.Button(t("train.slower"), elem_id="train-slower", visible=False, min_width=80)
        made["sooner"] = gr.Button(t("train.sooner"), elem_id="train-sooner", visible=False, min_width=80)
    made["live"] = live_run(
        page.monitor, partial(mark, page.monitor), page.ready, elem_id="train-chart", status_id="train-status"
    )
    made["notes"] = gr.HTML("", elem_id="train-notes")
    with gr.Accordion(t("train.samples"), open=True, elem_classes="fold"):
        made["samples"] = gr.HTML("", elem_id="train-samples", max_height=420, js_on_load=_SAMPLES)
    with gr.Accordion(t("train.log"), open=False, elem_id="train-log-fold", elem_classes="fold"):
        made["log"] = gr.Textbox(
            label=t("train.log_end"),
            lines=12,
            max_lines=12,
            interactive=False,
            elem_id="train-log",
            elem_classes="mono",
            buttons=["copy"],
        )
    with gr.Accordion(t("train.compare_title"), open=False, elem_id="train-compare-fold", elem_classes="fold"):
        made["compare"] = gr.Dropdown(
            [], value=[], multiselect=True, label=t("train.compare"), elem_id="train-compare", max_choices=6
        )
        made["comparison"] = still_chart(elem_id="train-comparison", key="train.compare_title")
    return Widgets(seen=gr.State({}), **made)


def wire(page: Page, widgets: Widgets, problem_place: gr.HTML) -> None:
    """Connect the panel's events. problem_place: where a refused Stop or Resume is told."""
    quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
    _wire_looks(page, widgets, quiet)

    def stop(run: str | None, request: gr.Request) -> Iterator[list[Any]]:
        yield from attempt(lambda: control.stop(_chosen(run)).id, page, request)

    def resume(run: str | None, request: gr.Request) -> Iterator[list[Any]]:
        yield from attempt(lambda: control.resume(_chosen(run), executor=page.executor).id, page, request)

    def slower(run: str | None, request: gr.Request) -> Iterator[list[Any]]:
        yield from attempt(lambda: control.resume(_chosen(run), executor=page.executor, rate=0.5).id, page, request)

    def sooner(run: str | None, request: gr.Request) -> Iterator[list[Any]]:
        yield from attempt(lambda: _moved_up(_chosen(run)), page, request)

    changed = [problem_place, *widgets.refreshed]
    acts = {"stop": stop, "resume": resume, "slower": slower, "sooner": sooner}
    for button, act, name in ((getattr(widgets, name), act, f"train_{name}") for name, act in acts.items()):
        button.click(guarded(act), widgets.run, changed, api_name=name, trigger_mode="once", **quiet)


def _wire_looks(page: Page, widgets: Widgets, quiet: dict[str, Any]) -> None:
    def first(request: gr.Request) -> list[Any]:
        page.ready()
        return look(page.monitor, str(request.query_params.get("run", "")), {}, request)

    def choose(run: str | None, request: gr.Request) -> list[Any]:
        return look(page.monitor, run, {}, request)

    def again(run: str | None, seen: dict[str, int], request: gr.Request) -> list[Any]:
        return look(page.monitor, run, seen, request)

    def compare(runs: list[str] | None, request: gr.Request) -> str:
        views = [view for run in runs or () if (view := page.monitor.get(run))]
        return figure_json(plots.losses(views, language=language(request)) if views else None)

    page.on_load(first, None, widgets.refreshed)
    widgets.run.input(guarded(choose), widgets.run, widgets.refreshed, api_name="train_choose", **quiet)
    widgets.run.input(None, widgets.run, None, js=WRITE_RUN, api_visibility="private")
    looking: dict[str, Any] = {"concurrency_limit": None, **quiet}
    widgets.live.tick(guarded(again), [widgets.run, widgets.seen], widgets.refreshed, api_name="train_look", **looking)
    widgets.compare.change(guarded(compare), widgets.compare, widgets.comparison, api_name="train_compare", **looking)


def attempt(act: Callable[[], str], page: Page, request: gr.Request) -> Iterator[list[Any]]:
    """Do something to a job, which gives its id, and show it. What is wrong stands on the page and in a message.

    Yields: updates of [the place for problems, *Widgets.refreshed].
    """
    try:
        run = act()
    except StudioError as error:
        text = form.explained(error, language(request)) if isinstance(error, SpecError) else str(error)
        yield [problem(text), *[gr.skip()] * len(PARTS), gr.skip()]
        raise shown(text) from error
    page.monitor.refresh()
    yield ["", *look(page.monitor, run, {}, request)]


def look(monitor: Monitor, run: str | None, seen: dict[str, int], request: gr.Request) -> list[Any]:
    """Updates of what changed since `seen`, for a run; without one, for the newest live run, else the newest."""
    view = monitor.get(run) or _newest(monitor)
    parts = _parts(monitor, view, language(request))
    now = {name: hash(repr(update)) for name, update in parts.items()}
    updates = [gr.skip() if seen.get(name) == now[name] else parts[name] for name in PARTS]
    return [*updates, gr.skip() if seen == now else now]


PARTS = ("run", "live", "notes", "samples", "log", "stop", "resume", "slower", "sooner", "compare")


def mark(monitor: Monitor, view: JobView | None, words: str) -> str:
    """Changes with whatever a look at this run would send, and costs less than that."""
    around = [(each.id, each.state, each.place) for each in monitor.views("train")]
    return fingerprint(repr((words, view and (view.id, view.news, view.skipped_lines, _log_size(view)), around)))


def problem(text: str) -> str:
    """An error as markup that keeps its lines and is read out at once."""
    return f'<div class="problem" role="alert">{html.escape(text)}</div>' if text else ""


def _parts(monitor: Monitor, view: JobView | None, words: str) -> dict[str, Any]:
    runs = [(run_view.choice_label(each, words), each.id) for each in monitor.views("train")]
    live = view is not None and (view.live or view.state == "queued")
    return {
        "run": gr.update(choices=runs, value=view.id if view else None),
        "live": showing(view, mark(monitor, view, words)),
        "notes": run_view.notes(view, words),
        "samples": run_view.samples(view, words),
        "log": log_tail(JobFolder(home().jobs / view.id)) if view else "",
        "stop": gr.update(interactive=live and view.state != "stopping"),
        "resume": gr.update(interactive=view is not None and not live and view.state != "finished"),
        "slower": gr.update(visible=view is not None and view.state == "diverged"),
        "sooner": gr.update(visible=view is not None and view.place > 1),
        "compare": gr.update(choices=[(each.id, each.id) for each in monitor.views("train")]),
    }


def _log_size(view: JobView) -> int:
    log = JobFolder(home().jobs / view.id).log
    return log.stat().st_size if log.is_file() else 0


def _newest(monitor: Monitor) -> JobView | None:
    runs = monitor.views("train")
    return next((view for view in runs if view.live), runs[0] if runs else None)


def _moved_up(run: str) -> str:
    place = next((place for place, folder in enumerate(queue.waiting(), start=1) if folder.id == run), 0)
    queue.move(run, place - 1)
    return run


def _chosen(run: str | None) -> str:
    if not run:
        raise StudioError("No run is chosen. Choose one above the chart.")
    return run
