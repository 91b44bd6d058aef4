"""How often predicted labels are right: accuracy, precision and recall of each label, and which is taken for which.

Without torch, because the page counts the predictions of a file in the same way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

Confusion = Mapping[tuple[str, str], int]
"""How many rows there are of each (label, predicted label)."""


@dataclass(frozen=True)
class LabelScore:
    """One label. precision: share of its predictions that are right. recall: share of its rows that are found.

    f1: harmonic mean of the two. Each is 0 where there is nothing to divide by. rows and predicted: how many.
    """

    label: str
    precision: float
    recall: float
    f1: float
    rows: int
    predicted: int


def confusion(pairs: Iterable[tuple[str, str]]) -> Counter[tuple[str, str]]:
    """The counts of (label, predicted label)."""
    return Counter(pairs)


def scores(counts: Confusion) -> dict[str, float]:
    """accuracy, and the mean F1 over the labels that occur, each weighing the same."""
    total = sum(counts.values())
    each = label_scores(counts)
    return {
        "accuracy": sum(count for (label, predicted), count in counts.items() if label == predicted) / max(1, total),
        "macro_f1": sum(score.f1 for score in each) / max(1, len(each)),
        "rows": float(total),
    }


def label_scores(counts: Confusion, labels: Sequence[str] | None = None) -> list[LabelScore]:
    """One score a label, in their order. labels: None: those that occur, by name."""
    return [_score(counts, label) for label in (labels or occurring(counts))]


def occurring(counts: Confusion) -> list[str]:
    """The labels that rows have or were given, by name."""
    return sorted({label for pair in counts for label in pair})


def _score(counts: Confusion, label: str) -> LabelScore:
    right = counts.get((label, label), 0)
    rows = sum(count for (true, _), count in counts.items() if true == label)
    predicted = sum(count for (_, said), count in counts.items() if said == label)
    return LabelScore(
        label,
        precision=right / predicted if predicted else 0.0,
        recall=right / rows if rows else 0.0,
        f1=2 * right / (rows + predicted) if rows + predicted else 0.0,
        rows=rows,
        predicted=predicted,
    )
