"""Imports of what stays until the process ends. Not here: what is imported (studio.ui, studio.engine.stack)."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_garbage() -> Iterator[None]:
    """Python looks for garbage again and again among modules that stay, which is a fifth of a long import. What is
    there at the end is never looked at again."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if collects:
            gc.enable()
