"""The training stack, imported whole, and without what takes a third of that time and is of no use here.

Whoever is about to need the engine imports this first; the modules of the engine import what they use all the same. Not
here: what the libraries may not do on their own (studio.engine).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from studio.importing import without_garbage


@contextmanager
def _uncompiled(torch: Any) -> Iterator[None]:
    """bitsandbytes (0.50) has torch compile some of its functions. To ask for it imports the compiler, which takes a
    second; the first call would compile, which takes longer. On a CPU and on NVIDIA's GPUs it has kernels instead."""
    compile_ = torch.compile

    def unchanged(function: Callable | None = None, **_: Any) -> Callable:
        return function if function is not None else unchanged

    torch.compile = unchanged
    try:
        yield
    finally:
        torch.compile = compile_


with without_garbage():
    import torch

    with _uncompiled(torch), suppress(ImportError):  # told when a run asks for it
        import bitsandbytes  # noqa: F401
    import studio.engine.stages.sft
    import studio.engine.train  # noqa: F401
