"""A classifier's evaluation as markup: scores of each label, which is taken for which, and the rows, mistakes first.

Pure; all data is escaped here. Not here: the accuracy before and after (studio.ui.evaluation_view), and the evaluation
(studio.engine.evaluation.labels).
"""

from __future__ import annotations

import html
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from studio.engine.metrics.classification import confusion, label_scores, occurring
from studio.ui.texts import table

MOST_ROWS = 200_000
SHOWN_ROWS = 200
SHOWN_LABELS = 100
MATRIX_LABELS = 12
"""With more labels, the most frequent confusions are listed instead of a matrix that nobody can read."""
SHOWN_CONFUSIONS = 20


@dataclass(frozen=True)
class Predictions:
    """What a file of predictions holds. counts: of (label, predicted). mistakes and right: the first rows of each."""

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    mistakes: tuple[dict[str, Any], ...] = ()
    right: tuple[dict[str, Any], ...] = ()


def read(path: Path, most: int = MOST_ROWS) -> Predictions | None:
    """The first rows of a predictions file; None if it is not one of a classifier."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return _gathered(_rows(islice(file, most)))
    except FileNotFoundError:
        return None


def labels(found: Predictions, language: str) -> str:
    """Precision, recall and F1 of each label, and the confusion matrix."""
    words = table(language)
    return _label_table(found, words) + _confusions(found, words)


def rows(found: Predictions, language: str) -> str:
    """Text, label, prediction and how sure it was, wrong ones first, at most SHOWN_ROWS rows."""
    words = table(language)
    heads = ("row", "text", "label", "predicted", "probability")
    head = "".join(f"<th scope='col'>{html.escape(words[f'evaluate.{key}'])}</th>" for key in heads)
    shown = [*found.mistakes, *found.right][:SHOWN_ROWS]
    more = f"<p class='quiet'>{html.escape(words['evaluate.mistakes_first'].format(count=SHOWN_ROWS))}</p>"
    return (
        f"<div class='answers labels' tabindex='0'><table><tr>{head}</tr>{''.join(map(_row, shown))}</table></div>"
        f"{more if found.counts.total() > SHOWN_ROWS else ''}"
    )


def _gathered(rows: Iterable[dict[str, Any]]) -> Predictions | None:
    mistakes: list[dict[str, Any]] = []
    right: list[dict[str, Any]] = []
    pairs: list[tuple[str, str]] = []
    for row in rows:
        pairs.append((row["label"], row["predicted"]))
        kept = right if row["label"] == row["predicted"] else mistakes
        if len(kept) < SHOWN_ROWS:
            kept.append(row)
    return Predictions(confusion(pairs), tuple(mistakes), tuple(right)) if pairs else None


def _rows(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and all(isinstance(row.get(key), str) for key in ("label", "predicted")):
            yield row


def _label_table(found: Predictions, words: Mapping[str, str]) -> str:
    heads = ("label", "precision", "recall", "f1", "rows_of_label")
    head = "".join(f"<th scope='col'>{html.escape(words[f'evaluate.{key}'])}</th>" for key in heads)
    body = "".join(
        f"<tr><th scope='row'>{html.escape(each.label)}</th><td>{each.precision:.1%}</td><td>{each.recall:.1%}</td>"
        f"<td>{each.f1:.1%}</td><td>{each.rows:,}</td></tr>"
        for each in label_scores(found.counts)[:SHOWN_LABELS]
    )
    return f"<table class='figures-table' data-part='labels'><tr>{head}</tr>{body}</table>"


def _confusions(found: Predictions, words: Mapping[str, str]) -> str:
    names = occurring(found.counts)
    return _matrix(found, names, words) if len(names) <= MATRIX_LABELS else _most_frequent(found, words)


def _matrix(found: Predictions, names: list[str], words: Mapping[str, str]) -> str:
    head = "".join(f"<th scope='col'>{html.escape(name)}</th>" for name in names)
    body = "".join(
        f"<tr><th scope='row'>{html.escape(label)}</th>"
        + "".join(_count(found.counts[label, predicted], right=label == predicted) for predicted in names)
        + "</tr>"
        for label in names
    )
    caption = html.escape(words["evaluate.confusion"])
    return (
        f"<table class='figures-table' data-part='confusion'><caption>{caption}</caption>"
        f"<tr><td></td>{head}</tr>{body}</table>"
    )


def _count(count: int, *, right: bool) -> str:
    kind = "better" if right and count else "worse" if count else "quiet"
    return f"<td class='{kind}'>{count:,}</td>"


def _most_frequent(found: Predictions, words: Mapping[str, str]) -> str:
    wrong = Counter({pair: count for pair, count in found.counts.items() if pair[0] != pair[1]})
    head = "".join(f"<th scope='col'>{html.escape(words[f'evaluate.{key}'])}</th>" for key in ("label", "predicted"))
    count_head = html.escape(words["evaluate.rows_of_label"])
    body = "".join(
        f"<tr><th scope='row'>{html.escape(label)}</th><td>{html.escape(predicted)}</td><td>{count:,}</td></tr>"
        for (label, predicted), count in wrong.most_common(SHOWN_CONFUSIONS)
    )
    caption = html.escape(words["evaluate.confusions"].format(count=SHOWN_CONFUSIONS))
    return (
        f"<table class='figures-table' data-part='confusion'><caption>{caption}</caption>"
        f"<tr>{head}<th scope='col'>{count_head}</th></tr>{body}</table>"
    )


def _row(row: dict[str, Any]) -> str:
    sure = row.get("probability")
    share = f"{sure:.1%}" if isinstance(sure, int | float) and 0 <= sure <= 1 else "–"
    kind = "better" if row["label"] == row["predicted"] else "worse"
    before = "".join(f"<td>{html.escape(str(row.get(key, '–')))}</td>" for key in ("row", "text", "label"))
    return f"<tr>{before}<td class='{kind}'>{html.escape(row['predicted'])}</td><td>{share}</td></tr>"
