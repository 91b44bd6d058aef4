"""How often the better of two answers scores higher, and by how much.

Not here: who scores (studio.engine.evaluation.judging).
"""

from __future__ import annotations

from collections.abc import Sequence


def scores(chosen: Sequence[float], rejected: Sequence[float]) -> dict[str, float]:
    """accuracy: share of pairs whose chosen answer scores higher. rewards/margins: by how much, on average.

    Equal scores are wrong. The names are those that a run tells on the way.
    """
    gaps = [better - worse for better, worse in zip(chosen, rejected, strict=True)]
    count = max(1, len(gaps))
    return {
        "accuracy": sum(gap > 0 for gap in gaps) / count,
        "rewards/margins": sum(gaps) / count,
        "rows": float(len(gaps)),
    }
