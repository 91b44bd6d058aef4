"""The chart that grows while a run trains, and a still one for any plotly figure.

The live chart asks a server function for the points it does not have yet and extends its traces, so that zoom and
memory survive 10,000 points. Which of the stage's figures stands above is chosen in the browser. Both draw with the
plotly build that the plotly package carries; nothing comes from outside. Not here: which figure to draw
(studio.ui.plots), and what a step is (studio.events).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
import plotly
import plotly.graph_objects as go

from studio.events import Step
from studio.home import NAME
from studio.jobs.monitor import JobView, Monitor
from studio.ui.plots import decimated
from studio.ui.run_figures import LOSS, WINDOW, figures_of, spikes, stage_of, validations
from studio.ui.texts import LANGUAGES, table

PLOTLY = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
_SCRIPTS = Path(__file__).resolve().parent


def live_chart(monitor: Monitor, *, elem_id: str) -> gr.HTML:
    """Loss or another figure, learning rate and gradient norm of the run whose id is the value; empty for none."""
    server = _server(monitor)
    return gr.HTML(
        "",
        html_template='<div class="chart-bar"><select></select></div><div class="live-chart" role="img"></div>',
        js_on_load=_script("live_chart.js"),
        server_functions=[server],
        texts={name: _texts(name) for name in LANGUAGES},
        plotly_path=_plotly_path(),
        elem_id=elem_id,
        min_height=452,
    )


def still_chart(*, elem_id: str, key: str, min_height: int = 320) -> gr.HTML:
    """Shows a figure. The value is `figure_json(...)`; empty shows nothing. key: the text that screen readers say."""
    return gr.HTML(
        "",
        html_template='<div class="still-chart" role="img"></div>',
        js_on_load=_script("still_chart.js"),
        plotly_path=_plotly_path(),
        spoken={name: table(name)[key] for name in LANGUAGES},
        elem_id=elem_id,
        min_height=min_height,
    )


def figure_json(figure: go.Figure | None) -> str:
    """A figure as the value of `still_chart`."""
    return figure.to_json() if figure is not None else ""


def points(view: JobView | None, since: int, generation: int, figure: str = "") -> dict[str, Any]:
    """What a chart lacks that has drawn this generation up to step `since`; all, decimated, if it must draw anew.

    figure: the one above; empty, or one that the run does not have: what its stage is about.
    Returns: series: x and y by name; spikes: steps and losses among these; figures: all there are; figure: the one
    that is given; measured: its values in
    validations; step: the last one; whole: whether to draw anew; live: whether more will come.
    """
    if view is None:
        nothing: dict[str, Any] = {"series": _series([], LOSS, True), "measured": [], "spikes": []}
        nothing |= {"figure": LOSS, "figures": []}
        return {**nothing, "whole": True, "step": 0, "generation": 0, "live": False, "nats": False}
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
        "live": view.live,
    }


def _spikes(steps: Sequence[Step], first: int) -> list[list[float]]:
    around = steps[max(0, first - WINDOW) :]
    skipped = len(steps) - len(around)
    return [[around[at].step, around[at].loss] for at in spikes([step.loss for step in around], first - skipped)]


def _server(monitor: Monitor) -> Callable[[Any], dict[str, Any]]:
    def tail(asked: Any) -> dict[str, Any]:
        """Outside the queue: the request comes from anyone who can open the page, so nothing in it is trusted."""
        match asked:
            case {"run": str(run), "since": int(since), "generation": int(generation), "figure": str(figure)} if (
                NAME.fullmatch(run)
            ):
                return points(monitor.now(run), since, generation, figure)
        raise gr.Error("The chart asked for something that is not a run.", print_exception=False)

    return tail


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


def _plotly_path() -> str:
    gr.set_static_paths([PLOTLY])
    return f"gradio_api/file={PLOTLY}"


def _script(name: str) -> str:
    return (_SCRIPTS / "charts.js").read_text(encoding="utf-8") + (_SCRIPTS / name).read_text(encoding="utf-8")
