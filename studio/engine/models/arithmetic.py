"""How fast this CPU multiplies in bf16 and in fp32, measured once. Not here: what is made of it (studio.hardware)."""

from __future__ import annotations

import statistics
import time

import torch

from studio import hardware

_ROWS, _INNER, _COLUMNS = 256, 1024, 1024
_ROUNDS = 7


def measure_once() -> None:
    """Measure and keep the gain of bf16, unless it was on this machine before. Takes about a tenth of a second."""
    if not torch.cuda.is_available() and hardware.measured_gain() is None and hardware.detect().bf16:
        hardware.keep_gain(bf16_gain())


def bf16_gain() -> float:
    """How many times faster a product in bf16 is than one in fp32: the median of alternating rounds."""
    sides = {
        dtype: (torch.randn(_ROWS, _INNER, dtype=dtype), torch.randn(_COLUMNS, _INNER, dtype=dtype))
        for dtype in (torch.float32, torch.bfloat16)
    }
    ratios = []
    for _ in range(_ROUNDS + 1):
        wide, half = (_seconds(*sides[dtype]) for dtype in (torch.float32, torch.bfloat16))
        ratios.append(wide / half)
    return statistics.median(ratios[1:])  # the first round finds its kernels


def _seconds(one: torch.Tensor, other: torch.Tensor) -> float:
    began = time.perf_counter()
    torch.mm(one, other.t())
    return time.perf_counter() - began
