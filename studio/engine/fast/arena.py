"""Memory of a pass, used again by the next one: for what it keeps for its backward pass, and for what it soon drops.

Kept tensors that lie between others leave holes in the C library's heap, half as much again as is kept, and new pages
are cleared each time. Here they lie end to end in large blocks, short-lived ones in others, and those whose end nobody
knows beforehand are lent. On a CPU only: CUDA has an allocator that needs no help.
"""

from __future__ import annotations

import weakref
from bisect import bisect_left, insort
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from math import prod
from typing import Any

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


class _Pool:
    """Tensors whose memory is lent again once nobody holds them."""

    def __init__(self) -> None:
        self._free: list[Any] = []
        """NumPy arrays of bytes, the smallest first."""
        self._lent: dict[int, weakref.ref[Any]] = {}

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """An uninitialised tensor. It alone holds its storage, so that autograd may add to it in place."""
        size = prod(shape) * dtype.itemsize
        at = bisect_left(self._free, size, key=len)
        block = self._free.pop(at) if at < len(self._free) else torch.empty(size, dtype=torch.uint8).numpy()
        part = block[:size]
        self._lent[id(part)] = weakref.ref(part, partial(self._back, id(part), block))
        return torch.from_numpy(part).view(dtype).view(shape).data

    def _back(self, part: int, block: Any, _: Any) -> None:
        if self._lent.pop(part, None) is not None:
            insort(self._free, block, key=len)

    def drop(self) -> None:
        """What is lent goes back to the system when nobody holds it."""
        self._free.clear()
        self._lent.clear()


class Arena:
    """The memory of one pass at a time."""

    def __init__(self) -> None:
        self.kept, self.temporary, self.lent = _Stack(), _Stack(), _Pool()

    def drop(self) -> None:
        """Give all of it back."""
        self.kept.drop()
        self.temporary.drop()
        self.lent.drop()


_active: Arena | None = None
"""One pass at a time, as in attention."""
_keeps = False


@contextmanager
def within(arena: Arena, *, keeps: bool) -> Iterator[None]:
    """A pass, forward and backward, in this memory.

    keeps: what is kept is needed until the end of the pass, not just by a layer that is soon computed again.
    """
    global _active, _keeps
    outer, (_active, _keeps) = (_active, _keeps), (arena, keeps)
    arena.kept.top = arena.temporary.top = (0, 0)
    try:
        yield
    finally:
        _active, _keeps = outer


def kept_like(x: torch.Tensor, *shape: int) -> torch.Tensor:
    """An uninitialised tensor of x's dtype, of that shape or of x's, that the backward pass will need."""
    if _active is None or x.is_cuda or not _keeps:
        return lent_like(x, *shape)
    return _active.kept.empty(shape or tuple(x.shape), x.dtype)


def lent_like(x: torch.Tensor, *shape: int) -> torch.Tensor:
    """The same for as long as somebody holds it."""
    if _active is None or x.is_cuda:
        return torch.empty(shape or x.shape, dtype=x.dtype, device=x.device)
    return _active.lent.empty(shape or tuple(x.shape), x.dtype)


Room = Callable[..., torch.Tensor]
"""(x, *shape, dtype=) -> an uninitialised tensor of x's dtype or that one, of that shape or of x's."""


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
