"""LoRA for query, key and value apart, where a model keeps all three in one layer.

It is a LoRA of three times the rank whose B is zero but for three blocks, which is also what is saved: plain PEFT loads
it onto the plain model. Not here: what else LoRA can be set to (lora).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from peft import LoraConfig

from studio.engine.methods.placing import sizes
from studio.engine.methods.tuning import ADAPTER, Context
from studio.errors import Fault, SpecError

_NAMES = {"gpt2": "c_attn", "openai-gpt": "c_attn", "phi3": "qkv_proj"}
"""The fused layer of architectures that write query, key and value one after another; others mix them, head by head."""


class Fused:
    """Widens the adapter of fused layers, and keeps its three parts from reaching into each other's outputs."""

    def __init__(self) -> None:
        self._heights: dict[str, tuple[int, int, int]] = {}
        self._frozen = 0

    def widen(self, config: LoraConfig, model: Any, layers: Mapping[str, Any], context: Context) -> None:
        """Raises: SpecError: no layer of this model that is to be adapted is fused so that it can be split."""
        self._heights = _heights(model, layers)
        if not self._heights:
            reason = f"needs a layer that holds query, key and value in this order, which {context.spec.model.name} "
            raise SpecError([Fault("method.split_fused", f"{reason}has not, or not among those adapted. Turn it off.")])
        ranks, alphas = {}, {}
        for name in self._heights:
            rank = config.rank_pattern.get(name, config.r)
            alpha = config.alpha_pattern.get(name, config.lora_alpha)
            ranks[name] = 3 * rank
            alphas[name] = alpha * math.sqrt(3) if config.use_rslora else alpha * 3
        config.rank_pattern |= ranks
        config.alpha_pattern |= alphas

    def keep_apart(self, model: Any) -> None:
        """B starts at zero. Where its gradient is zero, every optimiser and any weight decay leave it so."""
        self._frozen = 0
        for name, heights in self._heights.items():
            weight = model.get_submodule(f"base_model.model.{name}").lora_B[ADAPTER].weight
            rank = weight.shape[1] // 3
            blocks = [torch.ones(height, rank, device=weight.device, dtype=weight.dtype) for height in heights]
            mask = torch.block_diag(*blocks)
            weight.register_hook(lambda gradient, mask=mask: gradient * mask.to(gradient.dtype))
            self._frozen += int((mask == 0).sum())

    def count(self, model: Any) -> int:
        """Trainable parameters without the zeros of B."""
        return sum(each.numel() for each in model.parameters() if each.requires_grad) - self._frozen


def _heights(model: Any, layers: Mapping[str, Any]) -> dict[str, tuple[int, int, int]]:
    """Rows of query, key and value in the output of each fused layer."""
    settings = model.config.get_text_config()
    end = _NAMES.get(settings.model_type)
    fused = {name: layer for name, layer in layers.items() if end and name.rpartition(".")[2] == end}
    heads = settings.num_attention_heads
    size = getattr(settings, "head_dim", None) or settings.hidden_size // heads
    shared = size * (getattr(settings, "num_key_value_heads", None) or heads)
    wanted = (size * heads, shared, shared)
    return {name: wanted for name, (_, out) in zip(fused, sizes(fused), strict=True) if out == sum(wanted)}
