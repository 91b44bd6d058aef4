"""What a run will write: checkpoints, its outcome, and its tokenised rows. Not here: memory (parts)."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from math import ceil

from studio.engine.counting.parameters import Count
from studio.engine.fit.trained import FP32, state_bytes
from studio.home import home
from studio.specs import TrainSpec

BESIDE = 4_000_000
"""Bytes of the small files of a checkpoint: the tokenizer, its template, the states of schedule and chance."""
TOKEN = 8
"""Bytes of a token in the cache of rows: its number and its label."""


@dataclass(frozen=True)
class Disk:
    """Bytes. checkpoints: how many there are at once at most. rows_known: whether the rows' lengths were counted; else
    rows is the most that it can be. free: under STUDIO_HOME."""

    checkpoint: int
    checkpoints: int
    outcome: int
    rows: int
    rows_known: bool
    free: int

    @property
    def needed(self) -> int:
        return self.checkpoint * self.checkpoints + self.outcome + self.rows

    @property
    def enough(self) -> bool:
        return self.needed <= self.free


def disk(
    spec: TrainSpec, count: Count, *, optimizer: str, steps: int | None, tokens: int | None, most_tokens: int
) -> Disk:
    """steps: of the run, if that is known. tokens: of its rows, if they were counted; most_tokens: if not."""
    trained = max(count.bytes_on_disk, count.trainable * FP32)
    return Disk(
        checkpoint=trained + state_bytes(count.trainable, optimizer) + BESIDE,
        checkpoints=_at_once(spec, steps),
        outcome=count.bytes_on_disk,
        rows=TOKEN * (most_tokens if tokens is None else tokens),
        rows_known=tokens is not None,
        free=_free(),
    )


def _free() -> int:
    """Of the disk that STUDIO_HOME is on, or will be."""
    place = home().path
    return shutil.disk_usage(next(folder for folder in (place, *place.parents) if folder.is_dir())).free


def _at_once(spec: TrainSpec, steps: int | None) -> int:
    """Those that are kept, the best one, and the one that is being written before the oldest goes."""
    training = spec.training
    kept = training.save_total_limit + (1 if spec.data.validation_share else 0) + 1
    return kept if steps is None else min(kept, ceil(steps / training.save_steps))
