"""Training stages: each makes its rows and its trainer. One file each, one name each below."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from studio.engine import rows
from studio.engine.rows import Rows
from studio.engine.stages.setup import Setup
from studio.engine.stages.sft import sft_trainer

__all__ = ["STAGES", "Setup", "Stage"]


@dataclass(frozen=True)
class Stage:
    """How a stage is worked.

    trainer: Setup -> a transformers trainer, ready to train. rows: makes the tokenised rows, called as rows.prepare is.
    labels: (TrainSpec) -> the classes that the model's head names, where it has a head instead of writing text; a
    reward model has one.
    """

    trainer: Callable[[Setup], Any]
    rows: Callable[..., Rows | None] = rows.prepare
    labels: Callable[[Any], tuple[str, ...]] | None = None


STAGES: Mapping[str, Stage] = {
    "sft": Stage(sft_trainer),
    "pretrain": Stage(sft_trainer),
}
