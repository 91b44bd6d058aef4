"""The run that is shown, as it goes on: how it stands, and the chart that grows.

The browser asks a server function for what it does not have yet, twice a second, and extends the chart's traces, so
that zoom and memory survive 10,000 points. Where the answer says that more has changed than that, it asks for a look
(the event `tick`): a look passes through gradio's queue and costs the server ten times as much, and most steps change
nothing else. Which of the stage's figures stands above is chosen in the browser. Not here: how the run's state looks
(studio.ui.run_view), and what a step is (studio.events).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Any
from zlib import crc32

import gradio as gr

from studio.events import Step
from studio.home import NAME
from studio.jobs.monitor import JobView, Monitor
from studio.ui import run_view
from studio.ui.charts import plotly_path, script
from studio.ui.plots import decimated
from studio.ui.run_figures import LOSS, WINDOW, figures_of, spikes, stage_of, validations
from studio.ui.texts import LANGUAGES, table

Mark = Callable[[JobView | None, str], str]
"""(view, language) -> what a look would show now, as a short text that changes with it."""


def live_run(
    monitor: Monitor, mark: Mark, ready: Callable[[], None] = lambda: None, *, elem_id: str, status_id: str
) -> gr.HTML:
    """State and figures of a run, and its loss or another figure, learning rate and gradient norm.

    Its value is `showing(...)`, or empty before anything was looked at. ready: called while somebody looks and the run
    is not live.
    """
    return gr.HTML(
        "",
        html_template=f'<div class="live-status" id="{status_id}"></div>'
        '<div class="chart-bar"><select></select></div><div class="live-chart" role="img"></div>',
        js_on_load=script("live_run.js"),
        server_functions=[_server(monitor, mark, ready)],
        texts={name: _texts(name) for name in LANGUAGES},
        plotly_path=plotly_path(),
        elem_id=elem_id,
        min_height=610,
    )


def showing(view: JobView | None, mark: str) -> dict[str, str]:
    """The value of `live_run`: which run, and the mark of the look that says so."""
    return {"run": view.id if view else "", "mark": mark}


def points(view: JobView | None, since: int, generation: int, figure: str = "") -> dict[str, Any]:
    """What a chart lacks that has drawn this generation up to step `since`; all, decimated, if it must draw anew.

    figure: the one above; empty, or one that the run does not have: what its stage is about.
    Returns: series: x and y by name; spikes: steps and losses among these; figures: all there are; figure: the one
    that is given; measured: its values in validations; step: the last one; whole: whether to draw anew.
    """
    if view is None:
        nothing: dict[str, Any] = {"series": _series([], LOSS, True), "measured": [], "spikes": []}
        nothing |= {"figure": LOSS, "figures": []}
        return {**nothing, "whole": True, "step": 0, "generation": 0, "nats": False}
    names = figures_of(view)
    figure = figure if figure in names else names[0]
    whole = since <= 0 or generation != view.generation
    steps = view.steps if whole else view.steps[bisect_right(view.steps, since, key=lambda step: step.step) :]
    return {
        "whole": whole,
        "series": _series(steps, figure, whole),
        "spikes": _spikes(view.steps, len(view.steps) - len(steps)) if figure == LOSS else [],
        "measured": [[each.step, each.scores[figure]] for each in validations(view) if figure in each.scores],
        "figure": figure,
        "figures": names,
        "nats": figure == LOSS and stage_of(view) in ("sft", "pretrain"),
        "step": view.step,
        "generation": view.generation,
    }


def _spikes(steps: Sequence[Step], first: int) -> list[list[float]]:
    around = steps[max(0, first - WINDOW) :]
    skipped = len(steps) - len(around)
    return [[around[at].step, around[at].loss] for at in spikes([step.loss for step in around], first - skipped)]


def _server(monitor: Monitor, mark: Mark, ready: Callable[[], None]) -> Callable[[Any], dict[str, Any]]:
    def tail(asked: Any) -> dict[str, Any]:
        """Outside the queue: the request comes from anyone who can open the page, so nothing in it is trusted."""
        match asked:
            case {
                "run": str(run),
                "since": int(since),
                "generation": int(generation),
                "figure": str(figure),
                "status": str(status),
                "language": str(language),
            } if language in LANGUAGES and (not run or NAME.fullmatch(run)):
                view = monitor.now(run) if run else None
                told = run_view.status(view, language)
                stamp = fingerprint(told)
                live = view is not None and (view.live or view.state == "queued")
                if not live:
                    ready()
                return points(view, since, generation, figure) | {
                    "status": None if stamp == status else {"stamp": stamp, "html": told},
                    "mark": mark(view, language),
                    "live": live,
                }
        raise gr.Error("The chart asked for something that is not a run.", print_exception=False)

    return tail


def fingerprint(text: str) -> str:
    """Short, and another one for another text. Not against an adversary."""
    return f"{crc32(text.encode()):08x}"


def _series(steps: Sequence[Step], figure: str, whole: bool) -> dict[str, Any]:
    chosen: dict[str, Callable[[Step], float | None]] = {
        "figure": (lambda step: step.loss) if figure == LOSS else (lambda step: step.figures.get(figure)),
        "learning_rate": lambda step: step.learning_rate,
        "grad_norm": lambda step: step.grad_norm,
    }
    series = {name: _xy(steps, get) for name, get in chosen.items()}
    if whole:
        series = {name: dict(zip("xy", decimated(xy["x"], xy["y"]), strict=True)) for name, xy in series.items()}
    return series


def _xy(steps: Sequence[Step], get: Callable[[Step], float | None]) -> dict[str, list[Any]]:
    known = [(step.step, value) for step in steps if (value := get(step)) is not None]
    return {"x": [x for x, _ in known], "y": [y for _, y in known]}


def _texts(language: str) -> dict[str, str]:
    prefix = "train.chart."
    return {key.removeprefix(prefix): text for key, text in table(language).items() if key.startswith(prefix)}
