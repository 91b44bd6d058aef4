"""How many tokens the largest batch of a run has. Not here: what these tokens cost (activations, logits)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from studio.specs import TrainSpec, ability

PAIRED = ("dpo", "orpo", "cpo", "reward")
"""Stages that see a row twice: with the chosen answer and with the rejected one."""
ONLINE = ("grpo", "rloo")
"""Stages whose rows are prompts, which the model answers itself."""
EPOCHS, MOST_ROWS = 3, 100_000
"""Random orders that are looked at for the largest batch, and of how many rows."""


@dataclass(frozen=True)
class Rows:
    """What an audit counted of the rows of a run: tokens of each after the cutoff, and how many of them carry loss.

    tokens and supervised: (n,), rows that are trained on, of all datasets one after the other.
    """

    tokens: np.ndarray
    supervised: np.ndarray

    @property
    def longest(self) -> int:
        return int(self.tokens.max(initial=0))

    @property
    def total(self) -> int:
        """Tokens of one epoch."""
        return int(self.tokens.sum())

    def cut(self, length: int) -> Rows:
        """The same under a shorter cutoff."""
        return Rows(np.minimum(self.tokens, length), np.minimum(self.supervised, length))

    @staticmethod
    def joined(several: Sequence[Rows]) -> Rows:
        return Rows(
            np.concatenate([each.tokens for each in several]), np.concatenate([each.supervised for each in several])
        )


@dataclass(frozen=True)
class Batch:
    """The largest forward pass. sequences and length: as the model sees them; a padding-free batch is one sequence.

    rows: how many rows it holds. longest: tokens of its longest row. supervised: tokens that carry loss. several: an
    optimiser step takes more than one.
    """

    sequences: int
    length: int
    rows: int
    longest: int
    supervised: int
    several: bool = False

    @property
    def tokens(self) -> int:
        return self.sequences * self.length


def largest(spec: TrainSpec, rows: Rows | None) -> Batch:
    """The largest batch of a run. rows: what is known of them; None: every row is as long as data.max_length."""
    return replace(_largest(spec, rows), several=spec.training.accumulation > 1)


def padding_free(spec: TrainSpec) -> bool:
    """Whether the rows of a batch lie end to end in one sequence."""
    return spec.stage.kind in ("sft", "pretrain") and ability(spec.method).padding_free


def _largest(spec: TrainSpec, rows: Rows | None) -> Batch:
    stage, training, data = spec.stage, spec.training, spec.data
    size = training.batch_size
    if getattr(stage, "packing", False):
        return Batch(1, size * data.max_length, size, data.max_length, size * data.max_length)
    if rows is None or not len(rows.tokens) or stage.kind not in ("sft", "pretrain"):
        return _full(spec, size)
    length, supervised, longest = _drawn(rows, size, padded=not padding_free(spec))
    if padding_free(spec):
        return Batch(1, length, size, longest, supervised)
    return Batch(size, longest, size, longest, supervised)


def _full(spec: TrainSpec, size: int) -> Batch:
    """Every row at the cutoff."""
    longest = spec.data.max_length
    if spec.stage.kind in ONLINE:
        longest += spec.stage.max_completion_length
    rows = size * (2 if spec.stage.kind in PAIRED else 1)
    if padding_free(spec):
        return Batch(1, rows * longest, rows, longest, rows * longest)
    return Batch(rows, longest, rows, longest, rows * longest)


def _drawn(rows: Rows, size: int, *, padded: bool) -> tuple[int, int, int]:
    """(tokens, supervised tokens, longest row) of the largest batch within a few random orders of the rows."""
    order = np.random.default_rng(0)
    found = (0, 0, 0)
    for _ in range(EPOCHS):
        chosen = order.permutation(len(rows.tokens))[:MOST_ROWS]
        chosen = np.resize(chosen, -(-len(chosen) // size) * size).reshape(-1, size)
        tokens, supervised = rows.tokens[chosen], rows.supervised[chosen].sum(axis=1)
        longest = tokens.max(axis=1)
        sums = longest * size if padded else tokens.sum(axis=1)
        at = int(sums.argmax())
        found = max(found, (int(sums[at]), int(supervised.max()), int(longest.max())))
    return found
