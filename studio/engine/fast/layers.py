"""Norms and gated MLPs as autograd functions that start fewer kernels and keep less for the backward pass.

A module is replaced only after it was seen to give what the fused form gives, so names alone decide nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from studio.engine.fast import liger
from studio.engine.fast.arena import kept_like, lent_like, temporary
from studio.engine.fast.contest import quickest
from studio.engine.fast.lora import Fused

CLOSE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}
"""Largest difference between a module and its fused form, as a share of the largest value."""
TRIED = 4096
"""Tokens of a trial of kernels."""


class _RootMeanSquare(torch.autograd.Function):
    """x / sqrt(mean(x^2) + eps) * weight, over the last axis, with the mean in fp32. Source: arXiv:1910.07467.

    Nothing in weight is 0: the backward pass divides by it.
    """

    @staticmethod
    def forward(ctx: Any, x: Any, weight: Any, eps: float) -> Any:
        wide = x.float()
        inverse = torch.linalg.vector_norm(wide, dim=-1, keepdim=True, out=kept_like(wide, *x.shape[:-1], 1))
        inverse.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        if wide is x:
            out = torch.mul(wide, inverse, out=kept_like(x)).mul_(weight)
        else:
            out = torch.mul((wide * inverse).to(x.dtype), weight, out=kept_like(x))
        ctx.save_for_backward(out, inverse, weight)  # the next layer keeps the very same output
        return out

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        out, inverse, weight = ctx.saved_tensors
        with temporary() as room:
            normed = torch.div(out, weight, out=room(out))
            scaled = torch.mul(grad, weight, out=lent_like(grad))
            along = torch.mul(scaled, normed, out=room(out)).mean(-1, keepdim=True)
            return scaled.addcmul_(normed, along, value=-1).mul_(inverse.to(normed.dtype)), None, None


class _GatedSilu(torch.autograd.Function):
    """silu(gate) * up. Source: SwiGLU, arXiv:2002.05202."""

    @staticmethod
    def forward(ctx: Any, gate: Any, up: Any) -> Any:
        ctx.save_for_backward(gate, up)
        return torch.ops.aten.silu.out(gate, out=lent_like(gate)).mul_(up)

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        gate, up = ctx.saved_tensors
        of_gate = torch.mul(grad, up, out=lent_like(gate))
        of_gate = torch.ops.aten.silu_backward.grad_input(of_gate, gate, grad_input=of_gate)
        return of_gate, torch.ops.aten.silu.out(gate, out=lent_like(gate)).mul_(grad)


class _Rotated(torch.autograd.Function):
    """x cos + (-x2, x1) sin for x = (x1, x2), the halves of the last axis. Source: RoFormer, arXiv:2104.09864."""

    @staticmethod
    def forward(ctx: Any, x: Any, cos: Any, sin: Any) -> Any:
        ctx.save_for_backward(cos, sin)
        first, second = sin.chunk(2, -1)
        return _turned(x, cos, -first, second)

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        cos, sin = ctx.saved_tensors
        first, second = sin.chunk(2, -1)
        return _turned(grad, cos, second, -first), None, None


def _turned(x: torch.Tensor, cos: torch.Tensor, of_second: torch.Tensor, of_first: torch.Tensor) -> torch.Tensor:
    """x cos, and to the first half the second one times of_second, to the second half the first one times of_first."""
    batch, heads, tokens, size = x.shape
    out = torch.mul(x, cos, out=lent_like(x, batch, tokens, heads, size).transpose(1, 2))  # as a projection lays it out
    first, second = x.chunk(2, -1)
    half = first.shape[-1]
    out[..., :half].addcmul_(second, of_second)
    out[..., half:].addcmul_(first, of_first)
    return out


def _rotate(query: Any, key: Any, cos: Any, sin: Any, unsqueeze_dim: int = 1) -> tuple[Any, Any]:
    cos, sin = cos.unsqueeze(unsqueeze_dim), sin.unsqueeze(unsqueeze_dim)
    return _Rotated.apply(query, cos, sin), _Rotated.apply(key, cos, sin)


ROTARY = "apply_rotary_pos_emb"
"""What transformers' models call the function that rotates queries and keys, each in its own module."""


@contextmanager
def rotating(model: torch.nn.Module) -> Iterator[None]:
    """Rotate queries and keys in fewer kernels, where the model's own function does just this."""
    module = sys.modules[type(model).__module__]
    usual = getattr(module, ROTARY, None)
    if usual is None or not _rotates_alike(usual):
        yield
        return
    setattr(module, ROTARY, _rotate)
    try:
        yield
    finally:
        setattr(module, ROTARY, usual)


@cache
def _rotates_alike(usual: Any) -> bool:
    query, key = torch.linspace(-1, 1, 48).view(1, 2, 3, 8), torch.linspace(1, -2, 24).view(1, 1, 3, 8)
    cos, sin = torch.linspace(-1, 1, 24).view(1, 3, 8), torch.linspace(1, 0, 24).view(1, 3, 8)
    try:
        pairs = zip(usual(query, key, cos, sin), _rotate(query, key, cos, sin), strict=True)
        return all(torch.allclose(one, other, atol=1e-6) for one, other in pairs)
    except (TypeError, ValueError, RuntimeError):  # another signature
        return False


@dataclass(frozen=True)
class Replaced:
    """A class of layers in their fused form. library: whose kernels it takes; empty for torch's."""

    name: str
    library: str = ""


def fuse_layers(model: torch.nn.Module) -> list[Replaced]:
    """Replace what can be. Returns: the classes that were, by name."""
    kinds: dict[type, list[Any]] = {}
    for module in model.modules():
        kinds.setdefault(type(module), []).append(module)
    fused = []
    for kind, modules in kinds.items():
        forms = (form for form in (_norm, _unit_norm, _gated) if all(form(module) for module in modules))
        form = next((form for form in forms if _alike(modules[0], form(modules[0]))), None)
        if form is not None:
            library = _quickest(modules[0], form)
            for module in modules:
                module.forward = (_LIGER[form] if library else form)(module)
            fused.append(Replaced(kind.__name__, library))
    return sorted(fused, key=lambda each: each.name)


Form = Callable[[torch.Tensor], torch.Tensor]


def _norm(module: Any) -> Form | None:
    weight, eps = getattr(module, "weight", None), _eps(module)
    if not _is_norm(module) or eps is None or bool((weight == 0).any()):
        return None
    return lambda x: _RootMeanSquare.apply(x, weight, eps)


def _unit_norm(module: Any) -> Form | None:
    """Gemma's, whose weight is what it differs from 1."""
    eps = _eps(module)
    if not _is_norm(module) or eps is None or bool((module.weight == -1).any()):
        return None
    return lambda x: _RootMeanSquare.apply(x, 1 + module.weight, eps)


def _liger_norm(module: Any) -> Form:
    weight, eps = module.weight, _eps(module)
    return lambda x: liger.norm(x, weight, eps, unit=False)


def _liger_unit_norm(module: Any) -> Form:
    weight, eps = module.weight, _eps(module)
    return lambda x: liger.norm(x, weight, eps, unit=True)


def _is_norm(module: Any) -> bool:
    weight = getattr(module, "weight", None)
    return "RMSNorm" in type(module).__name__ and weight is not None and not weight.requires_grad


def _eps(module: Any) -> float | None:
    found = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    return found if isinstance(found, float) else None


def _gated(module: Any) -> Form | None:
    parts = ("gate_proj", "up_proj", "down_proj")
    activation = type(getattr(module, "act_fn", None)).__name__
    if not all(hasattr(module, part) for part in parts) or activation not in ("SiLU", "SiLUActivation"):
        return None

    def gated(x: torch.Tensor) -> torch.Tensor:
        gate, up, down = _kept(module.gate_proj, x), _kept(module.up_proj, x), module.down_proj
        out = down.forward.of_gated(gate, up) if isinstance(down.forward, Fused) else None
        return down(_GatedSilu.apply(gate, up)) if out is None else out

    return gated


def _liger_gated(module: Any) -> Form | None:
    if isinstance(module.down_proj.forward, Fused):
        return None  # which computes the activation again rather than keep it
    return lambda x: module.down_proj(liger.gated_silu(module.gate_proj(x), module.up_proj(x)))


_LIGER: dict[Any, Callable[[Any], Form | None]] = {
    _norm: _liger_norm,
    _unit_norm: _liger_unit_norm,
    _gated: _liger_gated,
}


def _quickest(module: Any, form: Callable[[Any], Form | None]) -> str:
    """The library whose kernels are quicker than torch's for such a layer."""
    place = next(module.parameters())
    other = _LIGER[form](module) if liger.is_here(place.device) else None
    if other is None:
        return ""
    dtype = place.dtype if place.dtype in CLOSE else torch.bfloat16
    rows = torch.linspace(-2, 2, TRIED, device=place.device)[:, None] + torch.linspace(-1, 1, _width(module)).to(place)
    x = rows.to(dtype)[None].requires_grad_()
    return quickest(form(module), {"liger": other}, [x]) or ""


def _width(module: Any) -> int:
    return module.weight.shape[-1] if hasattr(module, "weight") else module.gate_proj.in_features


def _kept(layer: Any, x: torch.Tensor) -> torch.Tensor:
    """What a layer gives, where that is needed for the backward pass."""
    return layer.forward(x, kept=True) if isinstance(layer.forward, Fused) else layer(x)


@torch.no_grad()
def _alike(module: Any, form: Form) -> bool:
    """Whether both give the same for values that are neither small nor large."""
    place = next(module.parameters())
    size = _width(module)
    dtype = place.dtype if place.dtype in CLOSE else torch.bfloat16
    x = torch.linspace(-2, 2, 3 * size, device=place.device).view(3, size).to(dtype)
    usual, fused = module(x).float(), form(x).float()
    return bool((usual - fused).abs().max() <= CLOSE[dtype] * usual.abs().max().clamp(min=1.0))
