"""A LoRA beside a frozen linear layer as one autograd function, which keeps only its input and the low-rank product.

Not here: variants of LoRA that are no plain sum (DoRA and its like), and layers with several active adapters, which
PEFT's own forward computes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from peft.tuners.lora.layer import Linear, LoraLayer
from transformers.pytorch_utils import Conv1D

from studio.engine.fast.arena import Room, kept_like, lent_like, temporary
from studio.engine.models.narrow import is_narrow, wide_weight

Weight = Callable[[Room], torch.Tensor]
"""Gives the frozen weight, (out, in), in the dtype of the products, in the room given if it needs some."""


class _Added(torch.autograd.Function):
    """x W^T + bias + scale * drop(x) A^T B^T, with W frozen. x: (N, in); A: (rank, in); B: (out, rank)."""

    @staticmethod
    def forward(
        ctx: Any, x: Any, weight: Weight, bias: Any, a: Any, b: Any, scale: float, dropout: float, out: Any = None
    ) -> Any:
        out, kept = _added(ctx, x, weight, bias, a, b, scale, dropout, out)
        ctx.save_for_backward(x, *kept)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        x, *kept = ctx.saved_tensors
        of_x, of_low, of_high = _gradients(ctx, grad, x, kept, wanted=ctx.needs_input_grad[0])
        return of_x, None, None, of_low, of_high, None, None, None


class _AddedToGated(torch.autograd.Function):
    """The same of x = silu(gate) * up, which is made again for the backward pass instead of being kept."""

    @staticmethod
    def forward(ctx: Any, gate: Any, up: Any, weight: Weight, bias: Any, a: Any, b: Any, scale: float) -> Any:
        with temporary() as room:
            x = torch.ops.aten.silu.out(gate, out=room(gate)).mul_(up)
            out, kept = _added(ctx, x, weight, bias, a, b, scale, 0.0)
        ctx.save_for_backward(gate, up, *kept)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        gate, up, *kept = ctx.saved_tensors
        of_up = torch.ops.aten.silu.out(gate, out=lent_like(gate))
        with temporary() as room:
            x = torch.mul(of_up, up, out=room(up))
            of_x, of_low, of_high = _gradients(ctx, grad, x, kept, wanted=True)
        of_up.mul_(of_x)
        of_gate = torch.ops.aten.silu_backward.grad_input(of_x.mul_(up), gate, grad_input=of_x)
        return of_gate, of_up, None, None, of_low, of_high, None


Kept = Sequence[torch.Tensor | None]


def _added(
    ctx: Any, x: Any, weight: Weight, bias: Any, a: Any, b: Any, scale: float, dropout: float, out: Any = None
) -> tuple[Any, Kept]:
    """out: room for the sum. Returns: the sum, and what the backward pass needs besides x."""
    low, high = a.to(x.dtype), b.to(x.dtype)
    out = lent_like(x, len(x), len(high)) if out is None else out
    with temporary() as room:
        w = weight(room).t()
        out = torch.mm(x, w, out=out) if bias is None else torch.addmm(bias, x, w, out=out)
    dropped, mask = torch.native_dropout(x, dropout, True) if dropout else (x, None)
    inner = torch.mm(dropped, low.t(), out=kept_like(x, len(x), len(low)))
    out.addmm_(inner, high.t(), alpha=scale)
    ctx.weight, ctx.scale, ctx.dropout, ctx.dtype = weight, scale, dropout, a.dtype
    return out, (low, high, inner, mask)


def _gradients(ctx: Any, grad: Any, x: Any, kept: Kept, *, wanted: bool) -> tuple[Any, Any, Any]:
    """Of x if wanted, else None, and of A and B."""
    low, high, inner, mask = kept
    of_inner = torch.mm(grad, high).mul_(ctx.scale)
    of_high = torch.mm(grad.t(), inner).mul_(ctx.scale).to(ctx.dtype)
    dropped = x if mask is None else x * mask * (1 / (1 - ctx.dropout))
    of_low = torch.mm(of_inner.t(), dropped).to(ctx.dtype)
    if not wanted:
        return None, of_low, of_high
    with temporary() as room:
        of_x = torch.mm(grad, ctx.weight(room), out=lent_like(x))
    if mask is None:
        of_x.addmm_(of_inner, low)
    else:
        of_x.add_(torch.mm(of_inner, low).mul_(mask).mul_(1 / (1 - ctx.dropout)))
    return of_x, of_low, of_high


def can_fuse(layer: torch.nn.Module, dtype: torch.dtype) -> bool:
    """Whether a module is a LoRA that this computes, beside a frozen base whose products are in `dtype`."""
    if not isinstance(layer, LoraLayer) or len(layer.active_adapters) != 1 or layer.merged:
        return False
    (name,) = layer.active_adapters
    if name not in layer.lora_A or name in getattr(layer, "lora_variant", {}) or layer.lora_bias.get(name):
        return False
    if not isinstance(layer.lora_A[name], torch.nn.Linear) or layer.base_layer.weight.requires_grad:
        return False
    bias = getattr(layer.base_layer, "bias", None)
    return (bias is None or not bias.requires_grad) and _weight(layer, dtype) is not None


class Fused:
    """The forward of a LoRA layer that can be fused, while its adapter is on. dtype: of its products."""

    def __init__(self, layer: Any, dtype: torch.dtype):
        self.dtype = dtype
        self._layer, self._usual, self._weight = layer, layer.forward, _weight(layer, dtype)
        (self._name,) = layer.active_adapters
        self._a, self._b = layer.lora_A[self._name], layer.lora_B[self._name]
        self._dropout, self._bias = layer.lora_dropout[self._name], getattr(layer.base_layer, "bias", None)

    def __call__(self, x: torch.Tensor, *args: Any, kept: bool = False, **options: Any) -> torch.Tensor:
        """kept: what it gives is needed for the backward pass."""
        if not self._on() or options or args:
            return self._usual(x, *args, **options)
        flat = x.reshape(-1, x.shape[-1]).to(self.dtype)
        room = kept_like(flat, len(flat), self._b.out_features) if kept else None
        with torch.autocast(x.device.type, enabled=False):
            out = _Added.apply(
                flat,
                self._weight,
                self._bias,
                self._a.weight,
                self._b.weight,
                self._layer.scaling[self._name],
                self._rate(),
                room,
            )
        return out.view(*x.shape[:-1], -1)

    def of_gated(self, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor | None:
        """What it gives for silu(gate) * up; None where that has to be made first."""
        if not self._on() or self._rate() or gate.dtype != self.dtype or up.dtype != self.dtype:
            return None
        flat = (each.reshape(-1, each.shape[-1]) for each in (gate, up))
        with torch.autocast(gate.device.type, enabled=False):
            out = _AddedToGated.apply(
                *flat, self._weight, self._bias, self._a.weight, self._b.weight, self._layer.scaling[self._name]
            )
        return out.view(*gate.shape[:-1], -1)

    def _on(self) -> bool:
        layer = self._layer
        return not layer.disable_adapters and not layer.merged and layer.active_adapters == [self._name]

    def _rate(self) -> float:
        return self._dropout.p if self._layer.training and isinstance(self._dropout, torch.nn.Dropout) else 0.0


def _weight(layer: Any, dtype: torch.dtype) -> Weight | None:
    base = layer.base_layer
    if is_narrow(base):
        return lambda room: wide_weight(base, dtype, room)
    if isinstance(layer, Linear) and base.weight.dtype == dtype:
        if isinstance(base, Conv1D):  # GPT-2's layers hold (in, out)
            return lambda room: base.weight.t()
        return (lambda room: base.weight) if type(base) is torch.nn.Linear else None
    if type(layer).__name__ == "Linear4bit":
        return lambda room: wide_weight(base, dtype).to(dtype)
    return None
