"""What a worker needs besides the run's own tensors: Python, its libraries, and what an allocator keeps.

Measured, not derived: see each constant. Not here: the tensors (the other modules).
"""

from __future__ import annotations

MIB = 1024**2

LIBRARIES = 680 * MIB
"""Resident memory of a worker on a CPU with its rows ready and nothing loaded: 610 to 620 MiB (torch 2.13, transformers
5.23, trl 1.16), and 60 MiB of code, buffers and short-lived tensors of a step."""
CONTEXT = 600 * MIB
"""A CUDA context with cuBLAS and bitsandbytes: about half a GiB by the drivers' own account. Not measured here."""
HOLES = 0.5
"""Of the activations of all layers, recomputed or not, what glibc's heap loses on trl's path to holes between what is
kept: blocks below 32 MiB that were freed, but not at its end. 0.44 to 0.7 on SmolLM2-135M. The fast path has its own
memory, and loses none."""
EIGHT_BIT = 100 * MIB
"""What a run on an int8 base takes beside that on a CPU (bitsandbytes 0.50): none in some runs, 250 MiB in others."""
CACHED = 0.1
"""Of the activations, what torch's CUDA allocator holds beside them. Not measured here."""


def process(activations: int, made: int, *, gpu: bool, fast: bool, packed: str = "none") -> int:
    """Bytes. activations: those that are there at once. made: those of all layers, recomputed or not. packed: how the
    base is quantised."""
    if gpu:
        return CONTEXT + int(CACHED * activations)
    return LIBRARIES + (0 if fast else int(HOLES * made)) + (EIGHT_BIT if packed == "int8" else 0)
