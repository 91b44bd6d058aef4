"""Bottleneck adapters: a small network down and up again behind the sublayers of each decoder layer.

PEFT has none, so they are a method of ours that PEFT saves, loads and switches like its own, once this module is
imported. They bend what passes through them, so they cannot be merged into a weight. Not here: where the sublayers are
found (anatomy).
Source: Houlsby et al., arXiv:1902.00751, section 2.1; placement behind the MLP alone: Pfeiffer et al.,
arXiv:2005.00247, section 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftConfig
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from peft.utils import PeftType
from torch import nn
from torch.nn import functional

from studio.engine.methods.anatomy import sublayers
from studio.engine.methods.registering import register
from studio.engine.methods.tuning import Context, Tuning, by_config
from studio.specs import BottleneckMethod

_ACTIVATIONS = {"relu": functional.relu, "gelu": functional.gelu, "silu": functional.silu}


@dataclass
class BottleneckConfig(PeftConfig):
    """What adapter_config.json says of an adapter. target_modules: whole names of the sublayers it stands behind."""

    target_modules: list[str] | None = None
    modules_to_save: list[str] | None = None
    bottleneck_size: int = 64
    activation: str = "gelu"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = PeftType["BOTTLENECK"]


class BottleneckLayer(nn.Module, BaseTunerLayer):
    """A sublayer and the small networks behind it, of which those of the active adapters work, one after another."""

    adapter_layer_names = ("bottleneck_down", "bottleneck_up")
    other_param_names = ("_settings",)

    def __init__(self, base_layer: nn.Module):
        super().__init__()
        self.base_layer = base_layer
        self.bottleneck_down = nn.ModuleDict()
        self.bottleneck_up = nn.ModuleDict()
        self._settings: dict[str, BottleneckConfig] = {}
        self.merged_adapters: list[str] = []

    def add(self, name: str, config: BottleneckConfig, width: int) -> None:
        """A new adapter that changes nothing yet: what it adds starts at zero."""
        place = next(self.base_layer.parameters()).device
        self.bottleneck_down[name] = nn.Linear(width, config.bottleneck_size, device=place, dtype=torch.float32)
        self.bottleneck_up[name] = nn.Linear(config.bottleneck_size, width, device=place, dtype=torch.float32)
        nn.init.zeros_(self.bottleneck_up[name].weight)
        nn.init.zeros_(self.bottleneck_up[name].bias)
        self._settings[name] = config

    def forward(self, *args: Any, **options: Any) -> Any:
        """hidden states, (B, T, hidden), or what attention gives: a tuple that begins with them."""
        result = self.base_layer(*args, **options)
        if self.disable_adapters:
            return result
        if isinstance(result, tuple):
            return (self._bent(result[0]), *result[1:])
        return self._bent(result)

    def _bent(self, hidden: torch.Tensor) -> torch.Tensor:
        for name in self.active_adapters:
            if name in self.bottleneck_down:
                down, up, settings = self.bottleneck_down[name], self.bottleneck_up[name], self._settings[name]
                seen = functional.dropout(hidden.to(down.weight.dtype), settings.dropout, self.training)
                hidden = hidden + up(_ACTIVATIONS[settings.activation](down(seen))).to(hidden.dtype)
        return hidden

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        raise ValueError("a bottleneck adapter is not linear, so no weight can hold it")


class BottleneckModel(BaseTuner):
    """Puts adapters behind the sublayers that their config names."""

    prefix = "bottleneck_"
    tuner_layer_cls = BottleneckLayer
    target_module_mapping: dict[str, list[str]] = {}  # noqa: RUF012 - as every tuner of PEFT has it

    def _create_and_replace(
        self, config: BottleneckConfig, name: str, target: Any, target_name: str, parent: Any, **_: Any
    ) -> None:
        layer = target if isinstance(target, BottleneckLayer) else BottleneckLayer(target)
        layer.add(name, config, self.model.config.hidden_size)
        layer.set_adapter(self.active_adapters, inference_mode=config.inference_mode)
        if layer is not target:
            setattr(parent, target_name, layer)


register("bottleneck", BottleneckConfig, BottleneckModel)


def bottleneck(method: BottleneckMethod) -> Tuning:
    """Source: see the module."""

    def config(model: Any, context: Context) -> BottleneckConfig:
        return BottleneckConfig(
            task_type=context.task,
            target_modules=sublayers(model, attention=method.placement == "houlsby"),
            bottleneck_size=method.bottleneck_size,
            activation=method.activation,
            dropout=method.dropout,
        )

    return by_config(config)
