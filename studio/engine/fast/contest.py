"""Which of several ways to compute the same is the quickest on this GPU, found by trying them.

Kernels of other libraries are good at what they were tuned for: a contest takes one only where it gives the same values
and gradients and is quicker by a margin, so that noise decides nothing. What cannot run here loses. Not here: who takes
part (varlen, liger).
"""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch

log = logging.getLogger("studio.engine")

CLOSE = {torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.float16: 1e-2}
"""Largest difference in a value or gradient, as a share of the largest one."""
MARGIN = 0.95
"""Of the time of the usual way, that another one may take at most."""
ROUNDS = 7

Way = Callable[..., torch.Tensor]
Clock = Callable[[], float]


def quickest(
    usual: Way, others: Mapping[str, Way], given: Sequence[torch.Tensor], *, clock: Clock | None = None
) -> str | None:
    """The name of the way that is quicker than the usual one, and than the other ones, forward and backward.

    given: what each is called with; gradients of those that require one are compared too. clock: seconds, after all
    that was asked of the device is done; for tests. Returns: None where the usual one is best.
    """
    clock = clock or partial(_now, given[0].device)
    wanted = _taken(usual, given)
    right = {name: way for name, way in others.items() if _gives(name, way, given, wanted)}
    if not right:
        return None
    taken = {name: _seconds(way, given, clock) for name, way in right.items()}
    best = min(taken, key=lambda name: taken[name])
    return best if taken[best] < MARGIN * _seconds(usual, given, clock) else None


def _taken(way: Way, given: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """What a way gives, and its gradients."""
    learning = [each for each in given if each.requires_grad]
    with torch.enable_grad():
        out = way(*given)
        direction = torch.linspace(-1, 1, out.numel(), device=out.device).view(out.shape).to(out.dtype)
        grads = torch.autograd.grad(out, learning, direction) if learning else ()
    return [out.detach(), *grads]


def _gives(name: str, way: Way, given: Sequence[torch.Tensor], wanted: Sequence[torch.Tensor]) -> bool:
    try:
        found = _taken(way, given)
    except Exception as error:  # noqa: BLE001 - a library of another version, or that does not know this device
        log.info("%s cannot be used here: %s: %s", name, type(error).__name__, str(error)[:200])
        return False
    right = all(_close(*pair) for pair in zip(found, wanted, strict=True))
    if not right:
        log.warning("%s gives other values here, and is not used.", name)
    return right


def _close(found: torch.Tensor, wanted: torch.Tensor) -> bool:
    if found.shape != wanted.shape:
        return False
    most = CLOSE[wanted.dtype] * max(float(wanted.abs().max()), 1e-6)
    return float((found.float() - wanted.float()).abs().max()) <= most  # false where either is not a number


def _seconds(way: Way, given: Sequence[torch.Tensor], clock: Clock) -> float:
    _taken(way, given)
    taken = []
    for _ in range(ROUNDS):
        began = clock()
        _taken(way, given)
        taken.append(clock() - began)
    return statistics.median(taken)


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
