"""One real step on the longest rows before the first one of a run: what it needs, and how long it takes.

Nothing of it is kept: parameters, optimiser, random numbers and what the trainer counts are as they were. Not here: the
estimate before anything loads, and what is done when memory runs out later (fast.trainer, recovery).
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from studio.engine.limits.memory import out_of_memory
from studio.engine.models.memory import forget_peak, free_bytes, held_gib, peak_gib
from studio.events import Emit, Phase, Preflight

MARGIN = 0.1
"""This share of the memory that was free should stay so: rows of the same length need a little more or less."""
GIB = 1024**3


def preflight(trainer: Any, *, steps: int, emit: Emit) -> None:
    """Take the step, and tell it; a fast trainer then takes fewer tokens at a time where memory was tight.

    steps: of the run, for the time it will take. Trainers whose step is not theirs alone go without: those of stages
    that write answers themselves, and of preferences.
    Raises: StudioError: not even a single row fits.
    """
    if getattr(trainer, "path", None) is None:
        return
    emit(Phase(name="preflight"))
    lengths = _lengths(trainer.train_dataset)
    size = trainer.args.per_device_train_batch_size * trainer.args.gradient_accumulation_steps
    chosen = _longest(lengths, size, trainer.most)
    longest, tokens = trainer.train_dataset.select(chosen), int(lengths[chosen].sum())
    free = free_bytes() / GIB
    with _undone(trainer):
        before = held_gib()
        forget_peak()
        began = time.perf_counter()
        _step(trainer, longest)
        seconds = time.perf_counter() - began
        peak = peak_gib()
    forget_peak()
    left = free - max(0.0, peak - before)
    if left < MARGIN * free:
        trainer.take_less(f"{peak:.1f} GiB")
    in_all = steps * size * float(lengths.mean()) * seconds / tokens
    emit(
        Preflight(
            tokens=tokens,
            seconds=round(seconds, 3),
            peak_gib=round(peak, 3),
            free_gib=round(max(0.0, left), 3),
            seconds_in_all=round(in_all, 1),
        )
    )


def _lengths(rows: Any) -> np.ndarray:
    column = rows.with_format("arrow")["input_ids"]
    chunks = column.chunks if hasattr(column, "chunks") else [column]
    return np.concatenate([chunk.value_lengths().to_numpy() for chunk in chunks])


def _longest(lengths: np.ndarray, count: int, tokens: int) -> np.ndarray:
    """The places of the longest rows that one pass can hold: at most so many rows and tokens, at least one row."""
    order = np.argsort(-lengths, kind="stable")[:count]
    return order[: max(1, int((lengths[order].cumsum() <= tokens).sum()))]


def _step(trainer: Any, rows: Any) -> None:
    trainer.accelerator.gradient_state._set_sync_gradients(True)
    batch = trainer.data_collator(list(rows))
    while True:
        trainer.create_optimizer()
        for group in trainer.optimizer.param_groups:
            group["lr"] = group["weight_decay"] = 0.0  # so that nothing moves
        trainer.training_step(trainer.model, batch)
        try:
            trainer.optimizer.step()
            return
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
        # the pass left no room for its states, which it makes at its first step: a part of them is there
        trainer.optimizer = None
        trainer.lower(batch)


@contextmanager
def _undone(trainer: Any) -> Iterator[None]:
    """Give back everything that a step changes, but for what it learned about memory."""
    devices = [0] if torch.cuda.is_available() else []
    tokens = trainer._total_train_tokens
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            trainer.model.zero_grad()
            trainer.optimizer = None
            trainer._total_train_tokens = tokens
            trainer._metrics["train"].clear()
            gc.collect()
