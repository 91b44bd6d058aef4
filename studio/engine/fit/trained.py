"""Bytes of what trains: the adapter, its gradients, and the states of the optimiser. Not here: how much trains
(studio.engine.counting), and what lies on disk (disk)."""

from __future__ import annotations

from dataclasses import dataclass

from studio.engine.counting.parameters import Count
from studio.specs import TrainSpec

FP32 = 4
"""What trains is held in fp32, whatever the base is in (studio.engine.stages.setup.train_in_fp32)."""

STATES = {
    "adamw_torch": 2 * FP32,
    "paged_adamw_32bit": 2 * FP32,
    "adamw_8bit": 2,
    "paged_adamw_8bit": 2,
    "lion_8bit": 1,
    "paged_lion_8bit": 1,
    "adafactor": 0,
    "sgd": 0,
}
"""Bytes of the optimiser's states for each number that trains. AdamW keeps two moments, Lion one; 8-bit ones keep a
byte each. Adafactor keeps a row and a column of each matrix, which is less than a hundredth of a byte."""
QUANTILE_BLOCK = 256
"""Numbers that share an fp32 constant in an 8-bit state (bitsandbytes 0.50)."""


@dataclass(frozen=True)
class Trained:
    """Bytes. adapter: what stands beside the base, and what of the base is held wider because it trains."""

    adapter: int
    gradients: int
    optimizer: int


def trained(spec: TrainSpec, count: Count, *, base: int, base_width: int, optimizer: str) -> Trained:
    """base: numbers of the base itself. base_width: bytes of one of them."""
    beside = count.total - base
    own = max(0, count.trainable - beside) if spec.method.kind != "lora" else 0
    widened = own * (FP32 - base_width)
    return Trained(
        beside * FP32 + widened,
        count.trainable * FP32,
        state_bytes(count.trainable, optimizer),
    )


def state_bytes(numbers: int, optimizer: str) -> int:
    """Of the optimiser's states, in memory and in a checkpoint."""
    each = STATES[optimizer]
    constants = each * numbers * FP32 // QUANTILE_BLOCK if "8bit" in optimizer else 0
    return each * numbers + constants
