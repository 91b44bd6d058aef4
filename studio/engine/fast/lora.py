"""A LoRA beside a frozen linear layer as one autograd function, which keeps only its input and the low-rank product.

Not here: variants of LoRA that are no plain sum (DoRA and its like), and layers with several active adapters, which
PEFT's own forward computes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from peft.tuners.lora.layer import Linear, LoraLayer
from transformers.pytorch_utils import Conv1D

Weight = Callable[[], torch.Tensor]
"""Gives the frozen weight, (out, in), in the dtype of the products."""


class _Added(torch.autograd.Function):
    """x W^T + bias + scale * drop(x) A^T B^T, with W frozen. x: (N, in); A: (rank, in); B: (out, rank)."""

    @staticmethod
    def forward(ctx: Any, x: Any, weight: Weight, bias: Any, a: Any, b: Any, scale: float, dropout: float) -> Any:
        w = weight()
        low, high = a.to(x.dtype), b.to(x.dtype)
        out = torch.mm(x, w.t()) if bias is None else torch.addmm(bias, x, w.t())
        dropped, kept = torch.native_dropout(x, dropout, True) if dropout else (x, None)
        inner = torch.mm(dropped, low.t())
        out.addmm_(inner, high.t(), alpha=scale)
        ctx.save_for_backward(x, low, high, inner, kept)
        ctx.weight, ctx.scale, ctx.dropout, ctx.dtype = weight, scale, dropout, a.dtype
        return out

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        x, low, high, inner, kept = ctx.saved_tensors
        of_inner = torch.mm(grad, high).mul_(ctx.scale)
        of_high = torch.mm(grad.t(), inner).mul_(ctx.scale).to(ctx.dtype)
        dropped = x if kept is None else x * kept * (1 / (1 - ctx.dropout))
        of_low = torch.mm(of_inner.t(), dropped).to(ctx.dtype)
        of_x = None
        if ctx.needs_input_grad[0]:
            of_x = torch.mm(grad, ctx.weight())
            if kept is None:
                of_x.addmm_(of_inner, low)
            else:
                of_x.add_(torch.mm(of_inner, low).mul_(kept).mul_(1 / (1 - ctx.dropout)))
        return of_x, None, None, of_low, of_high, None, None


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


def fuse(layer: Any, dtype: torch.dtype) -> None:
    """Make a module that can be fused compute so, while its adapter is on."""
    usual, weight = layer.forward, _weight(layer, dtype)
    (name,) = layer.active_adapters
    a, b, dropout = layer.lora_A[name], layer.lora_B[name], layer.lora_dropout[name]
    bias = getattr(layer.base_layer, "bias", None)

    def forward(x: torch.Tensor, *args: Any, **options: Any) -> torch.Tensor:
        if layer.disable_adapters or layer.merged or layer.active_adapters != [name] or options or args:
            return usual(x, *args, **options)
        rate = dropout.p if layer.training and isinstance(dropout, torch.nn.Dropout) else 0.0
        flat = x.reshape(-1, x.shape[-1]).to(dtype)
        with torch.autocast(x.device.type, enabled=False):
            out = _Added.apply(flat, weight, bias, a.weight, b.weight, layer.scaling[name], rate)
        return out.view(*x.shape[:-1], -1)

    layer.forward = forward


def _weight(layer: Any, dtype: torch.dtype) -> Weight | None:
    base = layer.base_layer
    if isinstance(layer, Linear) and base.weight.dtype == dtype:
        if isinstance(base, Conv1D):  # GPT-2's layers hold (in, out)
            return lambda: base.weight.t()
        return (lambda: base.weight) if type(base) is torch.nn.Linear else None
    if type(layer).__name__ == "Linear4bit":
        from bitsandbytes.functional import dequantize_4bit

        return lambda: dequantize_4bit(base.weight.data, base.weight.quant_state).to(dtype)
    return None
