"""What the output head and the loss of trl's path need at once. Not here: the fast path (fast)."""

from __future__ import annotations

from studio.engine.fit.batches import Batch
from studio.specs import TrainSpec

TILE_TOKENS, TILE_VOCABULARY = 4096, 32_768
"""trl (1.16) computes the logits in tiles of at most so many tokens and words."""
TILE_TEMPORARIES = 29
"""Bytes beside each number of a tile in its gradient where there is no Triton: logits, scaled logits,
log-probabilities, probabilities and gradient in fp32, a mask of one byte, and two fp32 terms of the gradient."""
FP32 = 4
WHOLE = ("orpo", "cpo")
"""Stages whose trainers (trl 1.16) make all logits of a batch."""
HEADLESS = ("classify", "reward")
"""Stages whose head has an output a label."""


def logits(
    spec: TrainSpec, batch: Batch, *, vocabulary: int, hidden: int, width: int, triton: bool, trains_head: bool
) -> int:
    """Bytes at the head's worst moment.

    width: bytes of a number in the arithmetic. triton: the tile is worked on in place, at supervised positions only.
    """
    if spec.stage.kind in HEADLESS:
        return batch.rows * 64 * FP32
    if whole(spec):
        return whole_logits(batch.tokens, vocabulary, width)
    tokens = batch.supervised if triton else batch.tokens
    tile = min(tokens, TILE_TOKENS) * min(vocabulary, TILE_VOCABULARY)
    gradient = tokens * hidden * (FP32 + width)
    head = vocabulary * hidden * FP32 if trains_head else 0
    return tile * (width + (0 if triton else TILE_TEMPORARIES)) + gradient + head


def whole(spec: TrainSpec) -> bool:
    """Whether the logits of all tokens are there at once."""
    smoothed = getattr(spec.stage, "label_smoothing", 0.0) > 0 and spec.stage.kind in ("sft", "pretrain")
    on_the_head = "lm_head" in getattr(spec.method, "target_modules", ())
    return spec.stage.kind in WHOLE or smoothed or on_the_head


def whole_logits(tokens: int, vocabulary: int, width: int) -> int:
    """(B, T, V): logits as computed, log-probabilities and their gradient in fp32, and that gradient as computed."""
    return tokens * vocabulary * (width + FP32 + FP32 + width)
