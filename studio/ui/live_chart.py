"""The chart that grows while a run trains, and a still one for any plotly figure.

The live chart asks a server function for the points it does not have yet and extends its traces, so that zoom and
memory survive 10,000 points. Both draw with the plotly build that the plotly package carries; nothing comes from
outside. Not here: which figure to draw (studio.ui.plots), and what a step is (studio.events).
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
from studio.ui.texts import LANGUAGES, table

PLOTLY = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
SERIES: dict[str, Callable[[Step], float | None]] = {
    "loss": lambda step: step.loss,
    "learning_rate": lambda step: step.learning_rate,
    "grad_norm": lambda step: step.grad_norm,
}
_SCRIPTS = Path(__file__).resolve().parent


def live_chart(monitor: Monitor, *, elem_id: str) -> gr.HTML:
    """Loss, learning rate and gradient norm of the run whose id is the value; empty for none."""
    server = _server(monitor)
    return gr.HTML(
        "",
        html_template='<div class="live-chart" role="img"></div>',
        js_on_load=_script("live_chart.js"),
        server_functions=[server],
        texts={name: _texts(name) for name in LANGUAGES},
        plotly_path=_plotly_path(),
        elem_id=elem_id,
        min_height=420,
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


def points(view: JobView | None, since: int, generation: int) -> dict[str, Any]:
    """What a chart lacks that has drawn this generation up to step `since`; all, decimated, if it must draw anew.

    Returns: series: x and y by name; step: the last one; whole: whether to draw anew; live: whether more will come.
    """
    if view is None:
        return {"whole": True, "series": _whole([]), "measured": [], "step": 0, "generation": 0, "live": False}
    whole = since <= 0 or generation != view.generation
    steps = view.steps if whole else view.steps[bisect_right(view.steps, since, key=lambda step: step.step) :]
    return {
        "whole": whole,
        "series": _whole(steps) if whole else {name: _xy(steps, get) for name, get in SERIES.items()},
        "measured": [[each.step, each.scores["loss"]] for each in view.measured if each.step and "loss" in each.scores],
        "step": view.step,
        "generation": view.generation,
        "live": view.live,
    }


def _server(monitor: Monitor) -> Callable[[Any], dict[str, Any]]:
    def tail(asked: Any) -> dict[str, Any]:
        """Outside the queue: the request comes from anyone who can open the page, so nothing in it is trusted."""
        match asked:
            case {"run": str(run), "since": int(since), "generation": int(generation)} if NAME.fullmatch(run):
                return points(monitor.get(run), since, generation)
        raise gr.Error("The chart asked for something that is not a run.", print_exception=False)

    return tail


def _whole(steps: Sequence[Step]) -> dict[str, Any]:
    return {name: dict(zip("xy", decimated(*_xy(steps, get).values()), strict=True)) for name, get in SERIES.items()}


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
