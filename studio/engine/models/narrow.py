"""Weights that are held smaller than they are multiplied: in the 16 bits of their file, or quantised to 4.

A CPU that multiplies fp32 faster than bf16 wants fp32 for products; held so, weights that were published in bf16 take
twice the memory for the same numbers. Here they stay as their file has them, mapped, and each is widened for a product
and dropped after it. Not here: for which runs (studio.engine.fast.rules), and quantising (quantize).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import torch
from torch.nn import Embedding, Linear
from torch.nn.functional import embedding, linear

from studio.engine.models.resolve import stored_dtypes

_HALVES = {"BF16": torch.bfloat16, "F16": torch.float16}
_ROWS = 8192
"""Of a weight that are widened at once: few but heads have more."""
_ROOM = 0.5
"""Of the memory that is free, what `unpacked` may take."""


def stored_half(folder: Path) -> torch.dtype | None:
    """The one 16-bit type of all weights in a folder; None where there are others."""
    found = stored_dtypes(folder)
    return _HALVES.get(next(iter(found))) if len(found) == 1 else None


def narrow(model: Any) -> None:
    """Make a model that was loaded in 16 bits compute in fp32, with linear layers and embeddings as they are.

    Weights that were quantised to 4 bits give fp32 from now on.
    """
    for module in model.modules():
        held = type(module) in (Linear, Embedding)
        if held:
            module.forward = partial(_multiplied if type(module) is Linear else _looked_up, module)
        elif _is_4_bit(module):
            held, module.weight.quant_state.dtype = True, torch.float32
        for name, parameter in module.named_parameters(recurse=False):
            if not held or name != "weight":
                parameter.data = parameter.data.float()


def is_narrow(layer: Any) -> bool:
    """Whether a layer holds less than it computes in."""
    forward = getattr(layer, "forward", None)
    return isinstance(forward, partial) and forward.func in (_multiplied, _looked_up)


def widen(model: Any) -> None:
    """Make a narrow model a plain fp32 one, whatever was put around its layers; any other stays as it is."""
    for module in model.modules():
        if is_narrow(module):
            del module.forward
            module.weight.data = module.weight.data.float()


def wide_weight(layer: Any, dtype: torch.dtype, room: Callable[..., torch.Tensor] = torch.empty_like) -> torch.Tensor:
    """A linear layer's weight, (out, in), as it is multiplied. room: (weight, dtype=) -> where to put it."""
    if (unpacked := layer.__dict__.get(_UNPACKED)) is not None:
        return unpacked
    if _is_4_bit(layer):
        from bitsandbytes.functional import dequantize_4bit

        return dequantize_4bit(layer.weight.data, layer.weight.quant_state).to(dtype)
    weight = layer.weight.detach()
    return weight if weight.dtype == dtype else room(weight, dtype=dtype).copy_(weight)


@contextmanager
def unpacked(model: Any) -> Iterator[None]:
    """Hold 4-bit weights as they are multiplied, for a while in which each is needed for every single token.

    On a CPU only, where unpacking takes longer than such a product, and only where memory is free for it. Those of 16
    bits take less time to widen, and more memory than a short pass would.
    """
    layers = [each for each in model.modules() if _is_4_bit(each)]
    needed = 4 * sum(each.in_features * each.out_features for each in layers)
    if not layers or layers[0].weight.is_cuda or needed > _ROOM * psutil.virtual_memory().available:
        yield
        return
    before = {layer: layer.__dict__.get("forward") for layer in layers}
    try:
        for layer in layers:
            layer.__dict__[_UNPACKED] = wide_weight(layer, layer.compute_dtype or torch.float32)
            layer.forward = partial(_multiplied, layer)
        yield
    finally:
        for layer, forward in before.items():
            layer.__dict__.pop(_UNPACKED, None)
            layer.__dict__.pop("forward", None)
            if forward is not None:
                layer.forward = forward


_UNPACKED = "unpacked_weight"


def _is_4_bit(layer: Any) -> bool:
    return type(layer).__name__ == "Linear4bit" and hasattr(layer, "compute_dtype")


def _multiplied(layer: Any, x: torch.Tensor) -> torch.Tensor:
    if _UNPACKED in layer.__dict__:
        weight = wide_weight(layer, x.dtype)
        return linear(x.to(weight.dtype), weight, layer.bias).to(x.dtype)
    product = _Product.apply(x.reshape(-1, x.shape[-1]), layer.weight).view(*x.shape[:-1], -1)
    return product if layer.bias is None else product.add_(layer.bias)


class _Product(torch.autograd.Function):
    """x W^T, with W frozen and in fewer bits. Never more of it is wide than some rows, and none is kept.

    x: (N, in). weight: (out, in).
    """

    @staticmethod
    def forward(ctx: Any, x: Any, weight: Any) -> Any:
        ctx.weight = weight.detach()
        product = x.new_empty(len(x), len(weight))
        for into, rows in zip(product.split(_ROWS, -1), ctx.weight.split(_ROWS), strict=True):
            into.copy_(x @ rows.to(x.dtype).t())
        return product

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        parts = zip(grad.split(_ROWS, -1), ctx.weight.split(_ROWS), strict=True)
        found = grad.new_zeros(len(grad), ctx.weight.shape[1])
        for part, rows in parts:
            found.addmm_(part, rows.to(grad.dtype))
        return found, None


def _looked_up(layer: Embedding, ids: torch.Tensor) -> torch.Tensor:
    return embedding(ids, layer.weight, layer.padding_idx).float()
