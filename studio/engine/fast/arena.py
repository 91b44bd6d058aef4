"""Memory of a pass, used again by the next one: for what it keeps for its backward pass, and for large temporaries.

Kept tensors that lie between temporary ones leave holes in the C library's heap, half as much again as is kept, and
new pages are cleared each time. Here they lie end to end in large blocks, and temporaries in others. On a CPU only:
CUDA has an allocator that needs no help.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod

import torch

CHUNK = 64 * 1024**2
"""Bytes of a block: from this size on glibc gives it pages of its own, which go back to the system with it."""
_ALIGNED = 64


class _Stack:
    """Tensors end to end, of which the newest can be given back."""

    def __init__(self) -> None:
        self._chunks: list[torch.Tensor] = []
        self.top = (0, 0)
        """The block that is being filled, and how far."""

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """An uninitialised tensor. It has a version of its own, as autograd would otherwise see neighbours change."""
        (at, used), size = self.top, prod(shape) * dtype.itemsize
        while at < len(self._chunks) and used + size > self._chunks[at].numel():
            at, used = at + 1, 0
        if at == len(self._chunks):
            self._chunks.append(torch.empty(max(CHUNK, size), dtype=torch.uint8))
        self.top = at, used + -(-size // _ALIGNED) * _ALIGNED
        return self._chunks[at][used : used + size].view(dtype).view(shape).data

    def drop(self) -> None:
        self._chunks.clear()
        self.top = 0, 0


class Arena:
    """The memory of one pass at a time."""

    def __init__(self) -> None:
        self.kept, self.temporary = _Stack(), _Stack()

    def drop(self) -> None:
        """Give all of it back."""
        self.kept.drop()
        self.temporary.drop()


_active: Arena | None = None
"""One pass at a time, as in attention."""


@contextmanager
def within(arena: Arena | None) -> Iterator[None]:
    """A pass, forward and backward, in this memory; None: wherever torch puts it."""
    global _active
    outer, _active = _active, arena
    if arena is not None:
        arena.kept.top = arena.temporary.top = (0, 0)
    try:
        yield
    finally:
        _active = outer


def kept_like(x: torch.Tensor, *shape: int) -> torch.Tensor | None:
    """Room for a tensor of x's dtype, as the `out` of an operation, that the backward pass will need; None: make it."""
    return None if _active is None or x.is_cuda else _active.kept.empty(shape or tuple(x.shape), x.dtype)


Room = Callable[..., torch.Tensor]
"""(x, *shape) -> an uninitialised tensor of x's dtype, of that shape or of x's."""


@contextmanager
def temporary() -> Iterator[Room]:
    """Gives tensors that nobody needs after it."""
    stack = _active.temporary if _active is not None else None

    def room(x: torch.Tensor, *shape: int, dtype: torch.dtype | None = None) -> torch.Tensor:
        shape, dtype = shape or tuple(x.shape), dtype or x.dtype
        if stack is None or x.is_cuda:
            return torch.empty(shape, dtype=dtype, device=x.device)
        return stack.empty(shape, dtype)

    top = stack.top if stack is not None else None
    try:
        yield room
    finally:
        if stack is not None:
            stack.top = top
