"""Attention of documents in one kernel on a GPU, where a library has one and a contest found it the quickest.

torch has such a kernel (torch.nn.attention.varlen), and so has the flash-attn package where that is installed. A
document behind a common beginning asks with its own tokens and sees both: causal attention of fewer queries than keys,
aligned at their ends. Not here: the way without such a kernel (attention), and the contest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from typing import Any

import torch

from studio.engine.fast.documents import Layout

Kernel = Callable[..., torch.Tensor]
"""(query (T, H, D), key (K, G, D), value (K, G, D), spans, scale, window) -> (T, H, D). window: how many tokens each
sees, itself among them; None: all before it."""
DTYPES = (torch.bfloat16, torch.float16)
MOST_WIDE = 256
"""The widest head that these kernels know."""


@dataclass(frozen=True)
class Spans:
    """A layout as such a kernel is told of it. Lengths in tokens; the common beginning is a document of its own.

    seen: (K,) what documents see, end to end: the common beginning once for each. own: (T,) where each token stands in
    it as itself. prefixes: (N, prefix) every copy of the common beginning.
    """

    layout: Layout
    device: torch.device

    @cached_property
    def asking(self) -> tuple[int, ...]:
        return ((self.layout.prefix,) if self.layout.prefix else ()) + self.layout.lengths

    @cached_property
    def seeing(self) -> tuple[int, ...]:
        prefix = self.layout.prefix
        return ((prefix,) if prefix else ()) + tuple(prefix + length for length in self.layout.lengths)

    @cached_property
    def begins(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(N + 1,) each, int32: where the queries and the keys of each document begin, and where the last one ends."""
        ends = (torch.tensor([0, *lengths]).cumsum(0).to(torch.int32) for lengths in (self.asking, self.seeing))
        asking, seeing = (each.to(self.device) for each in ends)
        return asking, seeing

    @cached_property
    def longest(self) -> tuple[int, int]:
        return max(self.asking), max(self.seeing)

    @cached_property
    def seen(self) -> torch.Tensor:
        prefix = torch.arange(self.layout.prefix)
        parts = [prefix, *(torch.cat([prefix, torch.arange(*span)]) for span in self.layout.spans())]
        return torch.cat(parts).to(self.device)

    @cached_property
    def own(self) -> torch.Tensor:
        prefix = self.layout.prefix
        begin, parts = prefix, [torch.arange(prefix)]
        for length in self.layout.lengths:
            parts.append(torch.arange(begin + prefix, begin + prefix + length))
            begin += prefix + length
        return torch.cat(parts).to(self.device)

    @cached_property
    def prefixes(self) -> torch.Tensor:
        begins = torch.tensor([0, *self.seeing[:-1]]).cumsum(0)
        return (begins[:, None] + torch.arange(self.layout.prefix)).to(self.device)


def kernels(query: torch.Tensor, dropout: float) -> Mapping[str, Kernel]:
    """By name, those that may know such queries, (1, H, T, D)."""
    if query.device.type != "cuda" or query.dtype not in DTYPES or query.shape[-1] > MOST_WIDE or dropout:
        return {}
    found: dict[str, Kernel] = {}
    if find_spec("torch.nn.attention.varlen"):
        found["torch varlen"] = _torch
    if find_spec("flash_attn"):
        found["flash-attn"] = _flash
    return found


def _torch(query: Any, key: Any, value: Any, spans: Spans, scale: float | None, window: int | None) -> torch.Tensor:
    from torch.nn.attention.varlen import varlen_attn

    left = -1 if window is None else window - 1
    grouped = {"enable_gqa": True} if query.shape[1] != key.shape[1] else {}
    out = varlen_attn(query, key, value, *spans.begins, *spans.longest, scale=scale, window_size=(left, 0), **grouped)
    return out[0] if isinstance(out, tuple) else out


def _flash(query: Any, key: Any, value: Any, spans: Spans, scale: float | None, window: int | None) -> torch.Tensor:
    from flash_attn import flash_attn_varlen_func

    left = -1 if window is None else window - 1
    options = {"softmax_scale": scale, "causal": True, "window_size": (left, 0 if window is not None else -1)}
    return flash_attn_varlen_func(query, key, value, *spans.begins, *spans.longest, **options)
