"""An evaluation as markup and numbers: its scores, its answers, and the losses to plot. Pure; all data is escaped here.

Not here: the evaluation (studio.engine.evaluation.answers), and the drawing (studio.ui.plots).
"""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from studio.jobs.monitor import JobView
from studio.ui.texts import table

SHOWN_ROWS = 200
PLOTTED_ROWS = 2000
SUBJECTS = ("base", "adapter")
SCORES = {
    "loss": "{:.4f}",
    "perplexity": "{:.2f}",
    "token_accuracy": "{:.1%}",
    "accuracy": "{:.1%}",
    "macro_f1": "{:.1%}",
}
"""The scores that are shown, and how."""
MORE_IS_BETTER = frozenset({"token_accuracy", "accuracy", "macro_f1"})


def read(path: Path, most: int = PLOTTED_ROWS) -> list[dict[str, Any]]:
    """The first rows of a predictions file; a line that is not whole yet, or not one of ours, is left out."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            rows = [_row(line) for line in islice(file, most)]
    except FileNotFoundError:
        return []
    return [row for row in rows if row is not None]


def scores(view: JobView | None, language: str) -> str:
    """Base, adapter and their difference, one row per score; of a classifier, its head before training and after."""
    words = table(language)
    found = {each.subject: each.scores for each in view.measured} if view else {}
    if not all(subject in found for subject in SUBJECTS):
        return ""
    rows = "".join(_score(name, found["base"], found["adapter"], words) for name in SCORES)
    rows_measured = int(found["adapter"].get("rows", 0))
    caption = html.escape(words["evaluate.measured_rows"].format(count=f"{rows_measured:,}"))
    sides = ("before", "after") if "accuracy" in found["adapter"] else SUBJECTS
    head = "".join(f"<th scope='col'>{html.escape(words[f'evaluate.{key}'])}</th>" for key in (*sides, "difference"))
    return f"<table class='figures-table'><caption>{caption}</caption><tr><td></td>{head}</tr>{rows}</table>"


def answers(rows: list[dict[str, Any]], language: str) -> str:
    """What base and adapter answered, beside the reference, at most SHOWN_ROWS rows."""
    words = table(language)
    if not rows:
        return ""
    heads = ("row", "prompt", "reference", "base_answer", "adapter_answer")
    head = "".join(f"<th scope='col'>{html.escape(words[f'evaluate.{key}'])}</th>" for key in heads)
    body = "".join(_answer(row) for row in rows[:SHOWN_ROWS])
    more = f"<p class='quiet'>{html.escape(words['evaluate.first_rows'].format(count=SHOWN_ROWS))}</p>"
    return (
        f"<div class='answers' tabindex='0'><table><tr>{head}</tr>{body}</table></div>"
        f"{more if len(rows) > SHOWN_ROWS else ''}"
    )


def losses(rows: list[dict[str, Any]]) -> tuple[list[int], list[float], list[float]]:
    """(row numbers, losses of the base, losses of the adapter), of the rows that have both."""
    known = [
        (row["row"], row["base"]["loss"], row["adapter"]["loss"])
        for row in rows
        if all(isinstance(row[subject].get("loss"), int | float) for subject in SUBJECTS)
    ]
    return [row for row, _, _ in known], [base for _, base, _ in known], [adapter for _, _, adapter in known]


def _row(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    fits = isinstance(row, dict) and "row" in row and all(isinstance(row.get(subject), dict) for subject in SUBJECTS)
    return row if fits else None


def _score(name: str, base: Mapping[str, float], adapter: Mapping[str, float], words: Mapping[str, str]) -> str:
    if name not in base or name not in adapter:
        return ""
    shape = SCORES[name]
    difference = adapter[name] - base[name]
    better = "same" if difference == 0 else "better" if (difference > 0) == (name in MORE_IS_BETTER) else "worse"
    sign = "+" if difference > 0 else "−" if difference < 0 else "±"
    apart = f"{abs(difference) * 100:.1f} {words['evaluate.points']}" if "%" in shape else shape.format(abs(difference))
    return (
        f"<tr data-score='{name}'><th scope='row'>{html.escape(words[f'evaluate.score.{name}'])}</th>"
        f"<td>{shape.format(base[name])}</td><td>{shape.format(adapter[name])}</td>"
        f"<td class='{better}'>{sign}{html.escape(apart)}"
        f" <span class='quiet'>{html.escape(words[f'evaluate.{better}'])}</span></td></tr>"
    )


def _answer(row: dict[str, Any]) -> str:
    texts = (row.get("prompt"), row.get("reference"), row["base"].get("answer"), row["adapter"].get("answer"))
    cells = "".join(f"<td>{html.escape('–' if text is None else str(text))}</td>" for text in texts)
    return f"<tr><td>{html.escape(str(row['row']))}</td>{cells}</tr>"
