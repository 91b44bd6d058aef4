"""Views and numbers as plotly figures, for comparison at rest. Pure. Not here: the chart that grows (live_chart.py)."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from studio.jobs.monitor import JobView
from studio.ui.texts import table

MOST_POINTS = 2000
"""Points of a series that a browser is given at once."""


def losses(views: Sequence[JobView], *, language: str = "en") -> go.Figure:
    """Training loss by step, one line per run; validation losses as marks of the same name."""
    figure = _figure(table(language)["train.chart.step"], table(language)["train.chart.loss"])
    for index, view in enumerate(views):
        xs, ys = decimated([step.step for step in view.steps], [step.loss for step in view.steps])
        mode = "lines" if len(xs) > 1 else "markers"
        figure.add_scatter(x=xs, y=ys, name=view.id, mode=mode, legendgroup=view.id, line={"width": 1.6})
        marks = [(each.step, each.scores["loss"]) for each in view.measured if each.step and "loss" in each.scores]
        if marks:
            figure.add_scatter(
                x=[x for x, _ in marks],
                y=[y for _, y in marks],
                name=f"{view.id} ({table(language)['train.chart.validation']})",
                mode="markers",
                legendgroup=view.id,
                marker={"symbol": "diamond", "size": 9, "color": _COLOURS[index % len(_COLOURS)]},
            )
            figure.data[-2].line.color = _COLOURS[index % len(_COLOURS)]
    return figure


def paired_losses(
    rows: Sequence[int], base: Sequence[float], adapter: Sequence[float], *, language: str = "en"
) -> go.Figure:
    """One dot per evaluated row: its loss on the base across, on the adapter upwards; below the line is better."""
    words = table(language)
    figure = _figure(words["evaluate.chart_base"], words["evaluate.chart_adapter"])
    most = max([*base, *adapter, 0.1]) * 1.05
    figure.add_scatter(
        x=[0, most],
        y=[0, most],
        mode="lines",
        line={"dash": "dot", "width": 1.2, "color": "#8a8a8a"},
        name=words["evaluate.chart_equal"],
        hoverinfo="skip",
    )
    figure.add_scatter(
        x=list(base),
        y=list(adapter),
        mode="markers",
        marker={"size": 7, "opacity": 0.85, "color": "#5b8def"},
        name=words["evaluate.chart_rows"],
        text=[f"{words['evaluate.chart_row']} {row}" for row in rows],
        hovertemplate="%{text}<br>%{x:.3f} → %{y:.3f}<extra></extra>",
    )
    figure.update_xaxes(range=[0, most])
    figure.update_yaxes(range=[0, most])
    return figure


def decimated(xs: Sequence[int], ys: Sequence[float], most: int = MOST_POINTS) -> tuple[list[int], list[float]]:
    """At most `most` points that keep every peak: the least and the greatest of each of equal stretches, in order."""
    if len(xs) <= most:
        return list(xs), list(ys)
    stretches = most // 2
    kept: list[int] = []
    for index in range(stretches):
        stretch = range(index * len(xs) // stretches, (index + 1) * len(xs) // stretches)
        kept += sorted({min(stretch, key=ys.__getitem__), max(stretch, key=ys.__getitem__)})
    return [xs[index] for index in kept], [ys[index] for index in kept]


# told apart on light and on dark
_COLOURS = ("#3366cc", "#c2410c", "#0f766e", "#7c3aed", "#a16207", "#be185d")


def _figure(x: str, y: str) -> go.Figure:
    return go.Figure(
        layout={
            "template": "none",
            "margin": {"l": 56, "r": 12, "t": 24, "b": 44},
            "height": 320,
            "colorway": list(_COLOURS),
            "legend": {"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom"},
            "xaxis": {"title": {"text": x}},
            "yaxis": {"title": {"text": y}},
        }
    )
