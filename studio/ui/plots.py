"""Views and numbers as plotly figures, for comparison at rest. Pure. Not here: the chart that grows (live_run.py)."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import plotly.graph_objects as go

from studio.jobs.monitor import JobView
from studio.ui.texts import table

MOST_POINTS = 2000
"""Points of a series that a browser is given at once."""
MOST_CLASSES = 20
"""Bars of one chart."""


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


def token_lengths(tokens: Mapping[str, Any], *, language: str = "en") -> go.Figure:
    """How many rows have how many tokens: whole rows as bars, prompts and answers as lines, the cutoff upright.

    tokens: those of an audit's report; the last bin holds all longer rows too.
    """
    words = table(language)
    figure = _figure(words["audit.chart.tokens"], words["audit.chart.rows"])
    counts, edges = tokens["histogram"], tokens["histogram"]["edges"]
    middles = [(low + high) / 2 for low, high in pairwise(edges)]
    spans = [f"{low:,}–{high - 1:,}" for low, high in pairwise(edges)]
    spans[-1:] = [f"≥ {edges[-2]:,}"] if spans else []
    said = {"customdata": spans, "hovertemplate": "%{customdata}: %{y:,}<extra>%{fullData.name}</extra>"}
    figure.add_bar(x=middles, y=counts["total"], name=words["audit.chart.total"], marker={"opacity": 0.45}, **said)
    for name in ("prompt", "response"):
        figure.add_scatter(
            x=middles, y=counts[name], name=words[f"audit.chart.{name}"], mode="lines",
            line={"shape": "hvh", "width": 1.6}, **said,
        )  # fmt: skip
    most, cutoff = edges[-1], tokens["max_length"]
    figure.update_layout(bargap=0.04)
    if cutoff <= 1.3 * most:
        text = words["audit.chart.cutoff"].format(most=f"{cutoff:,}")
        figure.add_vline(x=cutoff, line={"dash": "dash", "width": 1.4, "color": "#8a8a8a"})
        figure.add_annotation(
            x=cutoff, y=1, yref="paper", text=text, showarrow=False, yanchor="top",
            xanchor="right" if cutoff > most / 2 else "left", xshift=-4 if cutoff > most / 2 else 4,
        )  # fmt: skip
        most = max(most, cutoff * 1.02)
    figure.update_xaxes(range=[0, most])
    return figure


def class_sizes(classes: Mapping[str, int], *, language: str = "en") -> go.Figure:
    """How many rows each class has, the largest first; beyond MOST_CLASSES the rest is one bar."""
    words = table(language)
    figure = _figure(words["audit.chart.rows"], "")
    shown = list(classes.items())[:MOST_CLASSES]
    rest = list(classes.values())[MOST_CLASSES:]
    if rest:
        shown.append((words["audit.chart.others"].format(count=f"{len(rest):,}"), sum(rest)))
    # plotly renders some tags in labels, and these are data
    names = [html.escape(name if len(name) <= 40 else f"{name[:39]}…") for name, _ in shown]
    places = list(range(len(shown)))
    sizes = [count for _, count in shown]
    figure.add_bar(
        x=sizes, y=places, orientation="h", marker={"opacity": 0.75}, texttemplate="%{x:,}", textposition="auto",
        customdata=names, hovertemplate="%{customdata}: %{x:,}<extra></extra>", showlegend=False,
    )  # fmt: skip
    figure.update_yaxes(tickvals=places, ticktext=names, autorange="reversed", ticks="")
    figure.update_layout(height=max(160, 90 + 26 * len(shown)))
    return figure


def decimated(xs: Sequence[int], ys: Sequence[float], most: int = MOST_POINTS) -> tuple[list[int], list[float]]:
    """At most `most` points that keep every peak: the least and the greatest of each of equal stretches, in order."""
    if len(xs) <= most:
        return list(xs), list(ys)
    stretches, values = most // 2, np.asarray(ys)
    kept: list[int] = []
    for index in range(stretches):
        first, last = index * len(xs) // stretches, (index + 1) * len(xs) // stretches
        stretch = values[first:last]
        kept += sorted({first + int(stretch.argmin()), first + int(stretch.argmax())})
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
