"""Causal attention within each document of a pass, as an implementation that transformers' models choose by name.

While a pass is active (`within`), every document sees itself and the prefix of the pass, and no mask of T x T is ever
made: documents of like length are computed together. Without one it is transformers' own SDPA, so that generation and
anything else goes on as usual. Not here: what a pass is (documents).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from studio.engine.fast.arena import kept_like
from studio.engine.fast.documents import Layout

NAME = "studio_documents"
TOGETHER = 0.7
"""Documents at least this share of the longest one's length are padded to it: fewer kernels for a little waste."""
SMALL = 64
"""Up to this many tokens all documents are: then starting a kernel costs more than padding."""


@dataclass(frozen=True)
class Block:
    """Documents that are computed together, each padded to the longest. count: how many; length: of the longest.

    prefix: how many tokens before them they see as well.
    """

    count: int
    length: int
    prefix: int


class Parts:
    """A layout as attention computes it: which tokens stand where in blocks of padded documents.

    asking: (Q,) the token at each place of the blocks. seen: (K,) those that are seen, the prefix once a document.
    Places of padding, which `padding` lists for asking, name any token. asked, own: (T,) where each token stands in the
    two. prefixes: (N, prefix) every copy of the prefix in seen.
    """

    def __init__(self, layout: Layout, device: torch.device):
        self.layout, self.device = layout, device
        self.blocks, asking, seen, real, real_seen = [], [], [], [], []
        for spans, prefix in _together(layout):
            length = spans[0][1] - spans[0][0]
            self.blocks.append(Block(len(spans), length, prefix))
            for begin, end in spans:
                asking.append(torch.arange(begin, begin + length).clamp(max=end - 1))
                real.append(torch.arange(length) < end - begin)
                seen.append(torch.cat([torch.arange(prefix), asking[-1]]))
                real_seen.append(torch.cat([torch.zeros(prefix, dtype=torch.bool), real[-1]]))
        begins = torch.tensor([0, *map(len, seen[:-1])]).cumsum(0)
        self.asking, self.seen = torch.cat(asking).to(device), torch.cat(seen).to(device)
        self.asked = _inverse(torch.cat(asking), torch.cat(real), layout.tokens).to(device)
        self.own = _inverse(torch.cat(seen), torch.cat(real_seen), layout.tokens).to(device)
        self.padding = (~torch.cat(real)).nonzero()[:, 0].to(device)
        self.prefixes = (begins[:, None] + torch.arange(layout.prefix)).to(device)
        self._masks: dict[tuple[int, int, int | None], torch.Tensor] = {}

    def mask(self, length: int, prefix: int, window: int | None) -> torch.Tensor:
        """(length, prefix + length), true where a token of a document sees; padding comes last and is seen by none."""
        kept = self._masks.get((length, prefix, window))
        if kept is None:
            own = torch.arange(prefix, prefix + length, device=self.device)[:, None]
            seen = torch.arange(prefix + length, device=self.device)[None]
            kept = seen <= own
            if window is not None:
                kept &= seen > own - window
            self._masks[length, prefix, window] = kept
        return kept


def _together(layout: Layout) -> Iterator[tuple[list[tuple[int, int]], int]]:
    """Spans of documents that are computed together, the longest first, and the prefix that they see."""
    if layout.prefix:
        yield [(0, layout.prefix)], 0
    group: list[tuple[int, int]] = []
    longest = 0
    for begin, end in sorted(layout.spans(), key=lambda span: span[0] - span[1]):
        if group and longest > SMALL and end - begin < TOGETHER * longest:
            yield group, layout.prefix
            group = []
        longest = longest if group else end - begin
        group.append((begin, end))
    yield group, layout.prefix


def _inverse(places: torch.Tensor, real: torch.Tensor, count: int) -> torch.Tensor:
    """Where each of `count` tokens stands among places, of which only the real ones count."""
    found = torch.empty(count, dtype=torch.long)
    at = real.nonzero()[:, 0]
    found[places[at]] = at
    return found


_active: Parts | None = None
"""One pass at a time: a training process has one model. Not a context variable, because a backward pass on a GPU, which
may compute a layer again, runs in a thread of its own."""


@contextmanager
def within(layout: Layout, device: torch.device) -> Iterator[None]:
    """Attention goes by this layout, forward and backward."""
    global _active
    outer, _active = _active, Parts(layout, device)
    try:
        yield
    finally:
        _active = outer


def attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """query: (1, H, T, D); key and value: (1, G, T, D), where G divides H. Returns: (1, T, H, D)."""
    if _active is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **options
        )
    if options.get("softcap") is not None or options.get("s_aux") is not None:
        raise ValueError("attention with capped or extra logits")
    return _documents(_active, query, key, value, scaling, dropout, options.get("sliding_window")), None


def _documents(
    parts: Parts,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scale: float | None,
    dropout: float,
    window: int | None,
) -> torch.Tensor:
    sizes = [block.count * block.length for block in parts.blocks]
    wider = [block.count * (block.prefix + block.length) for block in parts.blocks]
    sides = (
        _Asking.apply(_flat(query), parts).split(sizes),
        _Seen.apply(_flat(key), parts).split(wider),
        _Seen.apply(_flat(value), parts).split(wider),
    )
    options = {"scale": scale, "dropout_p": dropout, "enable_gqa": query.shape[1] != key.shape[1]}
    heads = query.shape[1], key.shape[1], value.shape[1]
    outs = []
    for block, *flat in zip(parts.blocks, *sides, strict=True):
        folded = [side.view(block.count, -1, n, side.shape[1] // n) for side, n in zip(flat, heads, strict=True)]
        out = _attended([each.transpose(1, 2) for each in folded], parts, block, window, options)
        outs.append(out.transpose(1, 2).reshape(block.count * block.length, -1))
    back = _Back.apply(torch.cat(outs) if len(outs) > 1 else outs[0], parts)
    return back.view(1, parts.layout.tokens, query.shape[1], -1)


def _flat(side: torch.Tensor) -> torch.Tensor:
    """(1, H, T, D) -> (T, H D)"""
    return side[0].transpose(0, 1).reshape(side.shape[2], -1)


def _attended(sides: list[torch.Tensor], parts: Parts, block: Block, window: int | None, options: Any) -> torch.Tensor:
    """sides: queries, keys and values of a block, (count, heads, tokens, D)."""
    if window is not None and block.prefix + block.length <= window:
        window = None
    if not block.prefix and window is None:
        return scaled_dot_product_attention(*sides, is_causal=block.length > 1, **options)
    return scaled_dot_product_attention(*sides, attn_mask=parts.mask(block.length, block.prefix, window), **options)


class _Asking(torch.autograd.Function):
    """(T, F) -> (Q, F). Each token stands there once, so gradients are gathered and never added up."""

    @staticmethod
    def forward(ctx: Any, flat: torch.Tensor, parts: Parts) -> torch.Tensor:
        ctx.parts = parts
        return _selected(flat, parts.asking)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        return grad.index_select(0, ctx.parts.asked), None


class _Seen(torch.autograd.Function):
    """(T, F) -> (K, F), where the prefix stands once for each document; its gradients add up."""

    @staticmethod
    def forward(ctx: Any, flat: torch.Tensor, parts: Parts) -> torch.Tensor:
        ctx.parts = parts
        return _selected(flat, parts.seen)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        parts: Parts = ctx.parts
        flat = grad.index_select(0, parts.own)
        if parts.layout.prefix:
            copies = grad.index_select(0, parts.prefixes.flatten())
            flat[: parts.layout.prefix] = copies.view(*parts.prefixes.shape, -1).sum(0)
        return flat, None


class _Back(torch.autograd.Function):
    """(Q, F) -> (T, F): out of the blocks again. What padding answered is dropped and gets no gradient."""

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, parts: Parts) -> torch.Tensor:
        ctx.parts = parts
        return _selected(rows, parts.asked)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        rows = grad.index_select(0, ctx.parts.asking)
        return (rows.index_fill_(0, ctx.parts.padding, 0) if len(ctx.parts.padding) else rows), None


def _selected(rows: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    return torch.index_select(rows, 0, places, out=kept_like(rows, len(places), rows.shape[1]))


def _mask(*args: Any, **options: Any) -> torch.Tensor | None:
    return None if _active is not None else sdpa_mask(*args, **options)


def register() -> None:
    """Make the implementation known to transformers under NAME."""
    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, _mask)
