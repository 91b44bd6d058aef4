"""A still chart for any plotly figure, and what it shares with the one that grows (studio.ui.live_run).

Both draw with the plotly build that the plotly package carries; nothing comes from outside. Not here: which figure to
draw (studio.ui.plots).
"""

from __future__ import annotations

from pathlib import Path

import gradio as gr
import plotly
import plotly.graph_objects as go

from studio.ui.texts import LANGUAGES, table

PLOTLY = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
_SCRIPTS = Path(__file__).resolve().parent


def still_chart(*, elem_id: str, key: str, min_height: int = 320) -> gr.HTML:
    """Shows a figure. The value is `figure_json(...)`; empty shows nothing. key: the text that screen readers say."""
    return gr.HTML(
        "",
        html_template='<div class="still-chart" role="img"></div>',
        js_on_load=script("still_chart.js"),
        plotly_path=plotly_path(),
        spoken={name: table(name)[key] for name in LANGUAGES},
        elem_id=elem_id,
        min_height=min_height,
    )


def figure_json(figure: go.Figure | None) -> str:
    """A figure as the value of `still_chart`."""
    return figure.to_json() if figure is not None else ""


def plotly_path() -> str:
    """Where the browser finds plotly, on this server."""
    gr.set_static_paths([PLOTLY])
    return f"gradio_api/file={PLOTLY}"


def script(name: str) -> str:
    """What a chart runs when it is shown: what all share, then its own."""
    return (_SCRIPTS / "charts.js").read_text(encoding="utf-8") + (_SCRIPTS / name).read_text(encoding="utf-8")
