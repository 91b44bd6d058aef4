"""Norms and gated MLPs as autograd functions that start fewer kernels and keep less for the backward pass.

A module is replaced only after it was seen to give what the fused form gives, so names alone decide nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

CLOSE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}
"""Largest difference between a module and its fused form, as a share of the largest value."""


class _RootMeanSquare(torch.autograd.Function):
    """x / sqrt(mean(x^2) + eps) * weight, over the last axis, with the mean in fp32. Source: arXiv:1910.07467."""

    @staticmethod
    def forward(ctx: Any, x: Any, weight: Any, eps: float) -> Any:
        wide = x.float()
        inverse = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        normed = (wide * inverse).to(x.dtype)
        ctx.save_for_backward(normed, inverse, weight)
        return normed * weight

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        normed, inverse, weight = ctx.saved_tensors
        scaled = grad * weight
        along = torch.linalg.vecdot(scaled, normed)[..., None].div_(normed.shape[-1])
        return torch.addcmul(scaled, normed, along, value=-1).mul_(inverse.to(normed.dtype)), None, None


class _GatedSilu(torch.autograd.Function):
    """silu(gate) * up. Source: SwiGLU, arXiv:2002.05202."""

    @staticmethod
    def forward(ctx: Any, gate: Any, up: Any) -> Any:
        ctx.save_for_backward(gate, up)
        return torch.nn.functional.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        gate, up = ctx.saved_tensors
        open_ = torch.sigmoid(gate)
        of_up = gate * open_
        # d silu(z)/dz = sigma(z) + silu(z) (1 - sigma(z))
        slope = torch.addcmul(open_, of_up, 1 - open_)
        return slope.mul_(grad).mul_(up), of_up.mul_(grad)


def fuse_layers(model: torch.nn.Module) -> list[str]:
    """Replace what can be. Returns: the names of the classes that were."""
    kinds: dict[type, list[Any]] = {}
    for module in model.modules():
        kinds.setdefault(type(module), []).append(module)
    fused = []
    for kind, modules in kinds.items():
        forms = (form for form in (_norm, _unit_norm, _gated) if all(form(module) for module in modules))
        form = next((form for form in forms if _alike(modules[0], form(modules[0]))), None)
        if form is not None:
            for module in modules:
                module.forward = form(module)
            fused.append(kind.__name__)
    return sorted(fused)


Form = Callable[[torch.Tensor], torch.Tensor]


def _norm(module: Any) -> Form | None:
    weight, eps = getattr(module, "weight", None), _eps(module)
    if "RMSNorm" not in type(module).__name__ or weight is None or weight.requires_grad or eps is None:
        return None
    return lambda x: _RootMeanSquare.apply(x, weight, eps)


def _unit_norm(module: Any) -> Form | None:
    """Gemma's, whose weight is what it differs from 1."""
    return _norm(module) and (lambda x: _RootMeanSquare.apply(x, 1 + module.weight, _eps(module)))


def _eps(module: Any) -> float | None:
    found = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    return found if isinstance(found, float) else None


def _gated(module: Any) -> Form | None:
    parts = ("gate_proj", "up_proj", "down_proj")
    activation = type(getattr(module, "act_fn", None)).__name__
    if not all(hasattr(module, part) for part in parts) or activation not in ("SiLU", "SiLUActivation"):
        return None
    return lambda x: module.down_proj(_GatedSilu.apply(module.gate_proj(x), module.up_proj(x)))


@torch.no_grad()
def _alike(module: Any, form: Form) -> bool:
    """Whether both give the same for values that are neither small nor large."""
    place = next(module.parameters())
    size = module.weight.shape[-1] if hasattr(module, "weight") else module.gate_proj.in_features
    dtype = place.dtype if place.dtype in CLOSE else torch.bfloat16
    x = torch.linspace(-2, 2, 3 * size, device=place.device).view(3, size).to(dtype)
    usual, fused = module(x).float(), form(x).float()
    return bool((usual - fused).abs().max() <= CLOSE[dtype] * usual.abs().max().clamp(min=1.0))
