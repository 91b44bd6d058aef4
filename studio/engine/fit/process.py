"""What a worker needs besides the run's own tensors: Python, its libraries, and what an allocator keeps.

Measured, not derived: see each constant. Not here: the tensors (the other modules).
"""

from __future__ import annotations

MIB = 1024**2

LIBRARIES = 640 * MIB
"""Resident memory of a worker on a CPU with its rows ready and nothing loaded: 610 to 620 MiB (torch 2.13, transformers
5.23, trl 1.16), and 20 to 50 MiB of libraries that are first touched by a step."""
CONTEXT = 600 * MIB
"""A CUDA context with cuBLAS and bitsandbytes: about half a GiB by the drivers' own account. Not measured here."""
FREED_AND_KEPT = 0.6
"""Of the activations, what glibc's heap holds beside them between two steps: blocks below 32 MiB that were freed and
cannot be given back. 0.5 to 0.7 on SmolLM2-135M."""
CACHED = 0.1
"""Of the activations, what torch's CUDA allocator holds beside them. Not measured here."""


def process(activations: int, *, gpu: bool) -> int:
    """Bytes."""
    return (CONTEXT if gpu else LIBRARIES) + kept(activations, gpu=gpu)


def kept(activations: int, *, gpu: bool) -> int:
    return int(activations * (CACHED if gpu else FREED_AND_KEPT))
