"""Causal attention within each document of a pass, as an implementation that transformers' models choose by name.

While a pass is active (`within`), every document sees itself and the prefix of the pass, and no mask of T x T is ever
made: documents of like length are computed together, or, on a GPU where that is quicker, all in one kernel (varlen).
Without one it is transformers' own SDPA, so that generation and anything else goes on as usual. Not here: what a pass
is (documents).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from studio.engine.fast import varlen
from studio.engine.fast.arena import Room, kept_like, lent_like, temporary
from studio.engine.fast.contest import quickest
from studio.engine.fast.documents import Layout
from studio.engine.fast.parts import Parts
from studio.engine.fast.varlen import Spans

NAME = "studio_documents"

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
    same = query.shape[-1] == key.shape[-1] == value.shape[-1]
    if _FORWARD is not None and same and not dropout and query.device.type == "cpu":
        return _OnCpu.apply(query, key, value, parts, scale, window)
    if same and (kernels := varlen.kernels(query, dropout)) and (name := _chosen(kernels, query, key, scale, window)):
        return _in_one(kernels[name], parts.spans, query, key, value, scale=scale, window=window)
    return _by_length(parts, query, key, value, scale, dropout, window)


_choices: dict[Any, str | None] = {}
"""The kernel for each kind of layer, as the contest found it."""
_CONTEST = Layout(16, (1024, 700, 500, 400, 300, 200, 100, 60))
"""A pass such as rows of mixed lengths make."""


def chosen() -> list[str]:
    """The kernels that contests chose so far; none where documents go by length."""
    return sorted({name for name in _choices.values() if name})


def _chosen(
    kernels: Any, query: torch.Tensor, key: torch.Tensor, scale: float | None, window: int | None
) -> str | None:
    kind = (query.shape[1], key.shape[1], query.shape[-1], query.dtype, query.device, window)
    if kind not in _choices:
        parts, chance = Parts(_CONTEST, query.device), torch.Generator().manual_seed(0)  # not the run's own
        sides = [
            torch.randn(1, count, _CONTEST.tokens, query.shape[-1], generator=chance).to(query)
            for count in (query.shape[1], key.shape[1], key.shape[1])
        ]
        _choices[kind] = quickest(
            lambda *given: _by_length(parts, *given, scale, 0.0, window),
            {
                name: partial(_in_one, kernel, parts.spans, scale=scale, window=window)
                for name, kernel in kernels.items()
            },
            [side.requires_grad_() for side in sides],
        )
    return _choices[kind]


def _in_one(
    kernel: varlen.Kernel,
    spans: Spans,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *,
    scale: float | None,
    window: int | None,
) -> torch.Tensor:
    """All documents in one kernel."""
    seen = [_flat(side) for side in (key, value)]
    if spans.layout.prefix:
        seen = [_Seen.apply(side, spans) for side in seen]
    sides = [side.view(len(side), -1, query.shape[-1]) for side in (_flat(query), *seen)]
    return kernel(*sides, spans, scale, window)[None]


def _by_length(
    parts: Parts,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scale: float | None,
    dropout: float,
    window: int | None,
) -> torch.Tensor:
    """Documents of like length together."""
    heads = query.shape[1], key.shape[1], value.shape[1]
    asking = parts.split(_Asking.apply(_flat(query), parts), heads[0])
    keys, values = (
        parts.split_seen(_Seen.apply(_flat(side), parts), each)
        for side, each in zip((key, value), heads[1:], strict=True)
    )
    outs = []
    for block, *sides in zip(parts.blocks, asking, keys, values, strict=True):
        mask = parts.mask(block, window)
        causal = mask is None and block.length > 1
        options = {"scale": scale, "dropout_p": dropout, "enable_gqa": heads[0] != heads[1]}
        out = scaled_dot_product_attention(*sides, attn_mask=mask, is_causal=causal, **options)
        outs.append(out.transpose(1, 2).reshape(block.count * block.length, -1))
    back = _Back.apply(torch.cat(outs) if len(outs) > 1 else outs[0], parts)
    return back.view(1, parts.layout.tokens, heads[0], -1)


def _flat(side: torch.Tensor) -> torch.Tensor:
    """(1, H, T, D) -> (T, H D)"""
    return side[0].transpose(0, 1).reshape(side.shape[2], -1)


def _folded(flat: torch.Tensor, heads: int) -> torch.Tensor:
    """(T, H D) -> (1, H, T, D)"""
    return flat.view(1, len(flat), heads, -1).transpose(1, 2)


_FORWARD, _BACKWARD = (
    getattr(torch.ops.aten, f"_scaled_dot_product_flash_attention_for_cpu{part}", None) for part in ("", "_backward")
)
"""What SDPA calls on a CPU, forward and backward; None where this torch has no such thing."""


class _OnCpu(torch.autograd.Function):
    """Attention of a whole pass, which keeps the query, key, value and output of each token once.

    SDPA keeps what it is given, which is the blocks with their padding and the prefix once a document, and its own
    output beside the one that is put together from it. query: (1, H, T, D); key and value: (1, G, T, D). Returns:
    (1, T, H, D).
    """

    @staticmethod
    def forward(ctx: Any, query: Any, key: Any, value: Any, parts: Parts, scale: Any, window: Any) -> Any:
        ctx.heads = query.shape[1], key.shape[1]
        ctx.parts, ctx.scale, ctx.window = parts, scale, window
        flat = [kept_like(each).copy_(each) for each in map(_flat, (query, key, value))]
        logsums = []
        with temporary() as room:
            sides, outs = _in_blocks(flat, parts, ctx.heads, room), room(flat[0], len(parts.asking), flat[0].shape[1])
            for block, *inputs, out in zip(parts.blocks, *sides, parts.split(outs, ctx.heads[0]), strict=True):
                mask = parts.mask(block, window, outs.dtype)
                made, logsum = _FORWARD(*inputs, 0.0, mask is None, attn_mask=mask, scale=scale)
                out.copy_(made)
                logsums.append(logsum)
            back = _selected(outs, parts.asked)
        ctx.save_for_backward(*flat, back, *logsums)
        return back.view(1, len(back), ctx.heads[0], -1)

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        query, key, value, back, *logsums = ctx.saved_tensors
        flat, parts = (query, key, value), ctx.parts
        heads, kv_heads = ctx.heads
        with temporary() as room:
            sides = _in_blocks(flat, parts, ctx.heads, room)
            outs, of_outs, of_query = (room(back, len(parts.asking), back.shape[1]) for _ in range(3))
            of_key, of_value = (room(side, len(parts.seen), side.shape[1]) for side in flat[1:])
            torch.index_select(back, 0, parts.asking, out=outs)
            torch.index_select(grad.reshape(back.shape), 0, parts.asking, out=of_outs).index_fill_(0, parts.padding, 0)
            of_sides = parts.split(of_query, heads), *(parts.split_seen(each, kv_heads) for each in (of_key, of_value))
            given = zip(parts.split(of_outs, heads), *sides, parts.split(outs, heads), logsums, strict=True)
            for block, inputs, into in zip(parts.blocks, given, zip(*of_sides, strict=True), strict=True):
                mask = parts.mask(block, ctx.window, back.dtype)
                made = _BACKWARD(*inputs, 0.0, mask is None, attn_mask=mask, scale=ctx.scale)
                for room_for_it, each in zip(into, made, strict=True):
                    room_for_it.copy_(each)
            of_query = torch.index_select(of_query, 0, parts.asked, out=lent_like(query))
            of_key, of_value = (_of_seen(each, parts) for each in (of_key, of_value))
        return _folded(of_query, heads), _folded(of_key, kv_heads), _folded(of_value, kv_heads), None, None, None


def _in_blocks(
    flat: Sequence[torch.Tensor], parts: Parts, heads: tuple[int, int], room: Room
) -> tuple[Iterator[torch.Tensor], ...]:
    """Queries, keys and values of each block."""
    query, key, value = (
        torch.index_select(side, 0, places, out=room(side, len(places), side.shape[1]))
        for side, places in zip(flat, (parts.asking, parts.seen, parts.seen), strict=True)
    )
    return parts.split(query, heads[0]), parts.split_seen(key, heads[1]), parts.split_seen(value, heads[1])


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
    def forward(ctx: Any, flat: torch.Tensor, parts: Parts | Spans) -> torch.Tensor:
        ctx.parts = parts
        return _selected(flat, parts.seen)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        return _of_seen(grad, ctx.parts), None


def _of_seen(grad: torch.Tensor, parts: Parts | Spans) -> torch.Tensor:
    """(K, F) -> (T, F)"""
    flat = torch.index_select(grad, 0, parts.own, out=lent_like(grad, len(parts.own), grad.shape[1]))
    if parts.layout.prefix:
        copies = grad.index_select(0, parts.prefixes.flatten())
        flat[: parts.layout.prefix] = copies.view(*parts.prefixes.shape, -1).sum(0)
    return flat


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
