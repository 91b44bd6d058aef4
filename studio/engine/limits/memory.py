"""Which errors mean that memory ran out. Not here: what is done about it."""

from __future__ import annotations

import torch

_SAID = ("can't allocate memory", "not enough memory", "out of memory", "could not create a memory object")
"""By torch's allocator on a CPU, CUDA's libraries, and oneDNN, which raise plain RuntimeErrors."""


def out_of_memory(error: BaseException) -> bool:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(said in str(error).lower() for said in _SAID)
