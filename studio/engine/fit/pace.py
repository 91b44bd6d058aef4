"""How many steps and tokens a run has, and how long they take. Not here: how fast earlier runs were
(studio.jobs.needs)."""

from __future__ import annotations

from math import ceil

from studio.engine.fit.batches import Rows
from studio.specs import TrainSpec


def steps(spec: TrainSpec, rows: Rows | None) -> int | None:
    """Optimiser steps, as the trainer counts them; None: the number of rows is not known."""
    training = spec.training
    if training.max_steps:
        return training.max_steps
    if rows is None or spec.data.weights or getattr(spec.stage, "packing", False):
        return None
    batches = ceil(len(rows.tokens) / training.batch_size)
    return ceil(max(1, ceil(batches / training.accumulation)) * training.epochs)


def tokens(spec: TrainSpec, rows: Rows | None) -> float | None:
    """Tokens that a run goes through; None: not known."""
    if rows is None or not len(rows.tokens):
        return None
    if spec.training.max_steps:
        return spec.training.max_steps * _effective(spec) * rows.total / len(rows.tokens)
    return None if spec.data.weights else rows.total * spec.training.epochs  # what a mix takes shows only in the run


def seconds(spec: TrainSpec, rows: Rows | None, tokens_per_s: float | None) -> float | None:
    """Of the steps alone; None: not known before the run."""
    found = tokens(spec, rows)
    return found / tokens_per_s if found is not None and tokens_per_s else None


def _effective(spec: TrainSpec) -> int:
    return spec.training.batch_size * spec.training.accumulation
