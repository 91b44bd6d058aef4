"""What a stage measures of a model before its run and after it: told as events, and kept in the run's record.

Not here: what is measured (the stage's own `examine`), and validation on the way (studio.engine.best).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from studio.engine.rows.conversations import Rows
from studio.events import Emit, Measured, Note, Phase
from studio.home import write_atomically

KEY = "examined"
"""In the record: before and after, each the scores by split."""

_TELLING = {
    "accuracy": ("Accuracy", ".1%"),
    "reward": ("Mean reward", ".3f"),
    "rewards/margins": ("Margin between chosen and rejected", ".3f"),
    "rewards/accuracies": ("Share of pairs in the right order", ".1%"),
}
"""Figures of which more is better: their words, and how they are written."""

Examined = Mapping[str, Mapping[str, float]]
Examine = Callable[[Any, Rows], Examined]


def examined(
    examine: Examine | None, trainer: Any, rows: Rows, *, when: Literal["before", "after"], record: Path, emit: Emit
) -> None:
    """Measure, tell and keep. examine: (trainer, rows) -> scores by split; None: nothing is measured."""
    if examine is None:
        return
    emit(Phase(name="evaluate"))
    found = {name: dict(scores) for name, scores in examine(trainer, rows).items()}
    for name, scores in found.items():
        emit(Measured(step=trainer.state.global_step, subject=name, scores=scores))
    told = json.loads(record.read_text(encoding="utf-8"))
    told[KEY] = told.get(KEY, {}) | {when: found}
    write_atomically(record, json.dumps(told, indent=1))
    if when == "after":
        for sentence in _gains(told[KEY]):
            emit(Note(text=sentence))


def _gains(found: Mapping[str, Examined]) -> Iterator[str]:
    """What each figure that tells most was before and after, by split."""
    before = found.get("before", {})
    for figure, (words, form) in _TELLING.items():
        values = [
            f"{name} {before[name][figure]:{form}} → {scores[figure]:{form}}"
            for name, scores in found["after"].items()
            if figure in scores and figure in before.get(name, {})
        ]
        if values:
            yield f"{words} before → after: {', '.join(values)}."


def kept(record: Path) -> dict[str, Any]:
    """What an earlier attempt of the run measured, as an entry of the record; empty where there is none."""
    if not record.is_file():
        return {}
    before = json.loads(record.read_text(encoding="utf-8"))
    return {KEY: before[KEY]} if KEY in before else {}
