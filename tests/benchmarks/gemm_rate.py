"""How fast this machine multiplies matrices of the very shapes of a model: `python -m tests.benchmarks.gemm_rate JOB`.

Forward and the gradient of the input, of every linear layer at the tokens of one forward pass, and of the head at its
supervised positions. Weights stay in the cache between repetitions, as they do not in a model, so that this is a rate
to approach. Not here: how much arithmetic a job takes (arithmetic).
"""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.benchmarks.arithmetic import Shapes, shapes_of
from tests.benchmarks.clock import Clock, bind
from tests.benchmarks.training_job import Job, given, lengths

_LEAST_S, _LEAST_TIMES = 0.3, 5


def products(shapes: Shapes, tokens: int, supervised: int) -> Counter[tuple[int, int, int]]:
    """How often each product (rows, outputs, inputs) comes in one forward pass."""
    found: Counter[tuple[int, int, int]] = Counter()
    for outputs, inputs in shapes.linear:
        found[tokens, outputs, inputs] += shapes.layers
    found[supervised, shapes.vocabulary, shapes.hidden] += 1
    return found


def measured(job: Job) -> dict[str, Any]:
    """FLOPs per second over the mix of products."""
    import torch

    from studio import hardware

    device, kind = torch.device(hardware.detect().device), torch.bfloat16 if hardware.detect().bf16 else torch.float32
    rows = lengths(job)
    tokens, supervised = (max(1, round(job.batch * sum(column) / len(rows))) for column in zip(*rows, strict=True))
    work = seconds = 0.0
    for (rows_of, outputs, inputs), times in products(shapes_of(Path(job.model)), tokens, supervised).items():
        given_to = torch.randn(rows_of, inputs, device=device, dtype=kind)
        weight = torch.randn(outputs, inputs, device=device, dtype=kind)
        answer = torch.randn(rows_of, outputs, device=device, dtype=kind)
        forward = _median_s(lambda x=given_to, w=weight: x @ w.T, device)
        backward = _median_s(lambda y=answer, w=weight: y @ w, device)
        seconds += times * (forward + backward)
        work += times * 4 * rows_of * outputs * inputs
    return {"flops_per_s": work / seconds, "dtype": str(kind).removeprefix("torch."), "tokens": tokens}


def _median_s(work: Callable[[], Any], device: Any) -> float:
    """Seconds of one repetition."""
    import torch

    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    for _ in range(2):
        work()
    wait()
    taken: list[float] = []
    while len(taken) < _LEAST_TIMES or sum(taken) < _LEAST_S:
        began = time.perf_counter()
        work()
        wait()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def main() -> None:
    job = given()
    if job.threads:
        bind(job.threads)
    clock = Clock()
    found = measured(job)
    clock.step(0.0)
    clock.tell(**found)


if __name__ == "__main__":
    main()
