"""The decoder layers of a model by size, and the rank that a method puts beside each of their linear layers.

Not here: what is kept of their activations (activations).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from studio.engine.counting.shapes import Layer, Shapes, number
from studio.engine.counting.targeted import rank_of
from studio.engine.counting.targets import chosen
from studio.specs import LoraMethod, TrainSpec

_ATTENTION = (".self_attn.", ".attn.", ".attention.", ".self_attention.")
ADAPTED = {"loha", "lokr", "oft", "boft", "vera", "randlora", "vblora", "fourierft", "hra", "miss", "adalora", "adamix"}
"""Methods that keep a layer's input as LoRA does."""


@dataclass(frozen=True)
class Geometry:
    """What the layers of a model have in common.

    heads and key_heads: of head_dim numbers each. rms: its norms are RMSNorm, which computes in fp32. gated: its MLP
    multiplies two products. attention_dropout: attention keeps its probabilities.
    """

    hidden: int
    heads: int
    key_heads: int
    head_dim: int
    intermediate: int
    rms: bool
    gated: bool
    attention_dropout: bool

    @property
    def queries(self) -> int:
        return self.heads * self.head_dim

    @property
    def keys(self) -> int:
        return self.key_heads * self.head_dim


@dataclass(frozen=True)
class Block:
    """One decoder layer. linear: its linear layers. ranks: the rank beside each adapted one, by its name."""

    linear: tuple[Layer, ...]
    norms: int
    ranks: Mapping[str, int] = field(default_factory=dict)

    @cached_property
    def attending(self) -> tuple[Layer, ...]:
        """Those of attention; the last of them writes its output."""
        return tuple(layer for layer in self.linear if any(part in layer.name for part in _ATTENTION))


@dataclass(frozen=True)
class Model:
    """A base with its stage's head, and its layers as a method adapts them."""

    shapes: Shapes
    geometry: Geometry
    blocks: tuple[Block, ...]

    @classmethod
    def of(cls, spec: TrainSpec, shapes: Shapes) -> Model:
        return cls(shapes, geometry(shapes), tuple(blocks(shapes, spec)))


def geometry(shapes: Shapes) -> Geometry:
    """From the config, with the defaults that transformers has where it is silent."""
    config = shapes.config
    heads = int(_first(config, "num_attention_heads", "n_head", "num_heads") or 1)
    head_dim = int(config.get("head_dim") or shapes.hidden // heads)
    first = blocks(shapes)[0]
    mlp = [layer for layer in first.linear if layer not in first.attending]
    intermediate = max((layer.outputs for layer in mlp), default=4 * shapes.hidden)
    fused = any(layer.leaf == "gate_up_proj" for layer in mlp)
    return Geometry(
        hidden=shapes.hidden,
        heads=heads,
        key_heads=int(config.get("num_key_value_heads") or heads),
        head_dim=head_dim,
        intermediate=intermediate // 2 if fused else intermediate,
        rms=not any(f"{name}.bias" in shapes.weights for name in shapes.norms),
        gated=fused or sum(layer.outputs == intermediate and layer.inputs == shapes.hidden for layer in mlp) > 1,
        attention_dropout=float(_first(config, "attn_pdrop", "attention_dropout") or _dropping(shapes)) > 0,
    )


def blocks(shapes: Shapes, spec: TrainSpec | None = None) -> list[Block]:
    """All decoder layers, in their order. spec: whose method's ranks are told."""
    ranks = {} if spec is None else _ranks(spec, shapes)
    linear: dict[int, list[Layer]] = {}
    for layer in shapes.linear.values():
        if layer.number is not None:
            linear.setdefault(layer.number, []).append(layer)
    norms: dict[int, int] = {}
    for name in shapes.norms:
        if (at := number(f"{name}.")) is not None and shapes.weights[f"{name}.weight"] == (shapes.hidden,):
            norms[at] = norms.get(at, 0) + 1
    return [
        Block(
            tuple(linear[at]),
            norms.get(at, 2),
            {each.name: ranks[each.name] for each in linear[at] if each.name in ranks},
        )
        for at in sorted(linear)
    ]


def _ranks(spec: TrainSpec, shapes: Shapes) -> dict[str, int]:
    """Of each layer that keeps its input for a gradient, by name. 0: the layer itself trains."""
    method = spec.method
    if method.kind == "full":
        return dict.fromkeys(shapes.linear, 0)
    if isinstance(method, LoraMethod):
        return {layer.name: rank_of(method, layer.name) for layer in chosen(method, shapes)}
    if method.kind in ADAPTED:
        rank = getattr(method, "init_rank", getattr(method, "rank", 16))
        return {layer.name: rank for layer in chosen(method, shapes)}
    return {}


def _first(config: Mapping[str, Any], *names: str) -> Any:
    return next((config[name] for name in names if config.get(name) is not None), None)


def _dropping(shapes: Shapes) -> float:
    """GPT-2's own default, where the config does not say."""
    return 0.1 if shapes.kind == "gpt2" else 0.0
