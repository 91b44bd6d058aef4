"""1 where the answer is the reference, white space at the ends aside, else 0."""

from __future__ import annotations

from typing import Any


def exact_match(*, completions: list[str], reference: list[str], **_: Any) -> list[float | None]:
    """None where the row has no reference."""
    return [_score(answer, wanted) for answer, wanted in zip(completions, reference, strict=True)]


def _score(answer: str, wanted: str) -> float | None:
    return float(answer.strip() == wanted.strip()) if wanted else None
