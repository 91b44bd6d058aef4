"""How fast this CPU multiplies in bf16 and in fp32, measured once. Not here: what is made of it (studio.hardware)."""

from __future__ import annotations

import time

import torch

from studio import hardware

_ROWS, _INNER, _COLUMNS = 128, 1024, 512
_ROUNDS = 40


def measure_once() -> None:
    """Measure and keep the gain of bf16, unless it was on this machine before. Takes about a tenth of a second."""
    if not torch.cuda.is_available() and hardware.measured_gain() is None and hardware.detect().bf16:
        hardware.keep_gain(bf16_gain())


def bf16_gain() -> float:
    """How many times faster a product in bf16 is than one in fp32, by the quickest of alternating rounds.

    On one thread, in a millisecond each, and the quickest: other work on the machine can only make a round longer, and
    would decide who wins (0.6 came out as 1.3 from medians on all threads).
    """
    sides = {
        dtype: (torch.randn(_ROWS, _INNER, dtype=dtype), torch.randn(_COLUMNS, _INNER, dtype=dtype))
        for dtype in (torch.float32, torch.bfloat16)
    }
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rounds = [[_seconds(*each) for each in sides.values()] for _ in range(_ROUNDS)]
    finally:
        torch.set_num_threads(threads)
    wide, half = map(min, zip(*rounds, strict=True))
    return wide / half


def _seconds(one: torch.Tensor, other: torch.Tensor) -> float:
    began = time.perf_counter()
    torch.mm(one, other.t())
    return time.perf_counter() - began
