"""Methods that train some of the base's own parameters: all of them, the last layers, biases, norms, or tokens.

But for full fine-tuning the trained parameters stand beside the base's, which stay as they are: so the adapter can be
taken off again, is saved alone, and merges by taking their place. Not here: which precision they train in
(studio.hardware, stages.setup).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import BeftConfig, LNTuningConfig, PeftConfig, TrainableTokensConfig, get_peft_model
from peft.tuners.ln_tuning.layer import LNTuningLayer
from peft.tuners.trainable_tokens import TrainableTokensLayer
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer, check_adapters_to_merge
from peft.utils import PeftType
from torch import nn

from studio.engine.methods.anatomy import decoder_layers, norms, with_parameters
from studio.engine.methods.registering import register
from studio.engine.methods.tokens import TokenHead, single_tokens
from studio.engine.methods.tuning import Context, Tuning, by_config
from studio.errors import Fault, SpecError
from studio.specs import BitfitMethod, FreezeMethod, FullMethod, LnTuningMethod, TrainableTokensMethod


def full(method: FullMethod) -> Tuning:
    """Every parameter trains. What it leaves is a whole model, as plain transformers loads it."""

    def attach(model: Any, context: Context) -> Any:
        return model.requires_grad_(True)

    def save(model: Any, folder: Path) -> None:
        model.save_pretrained(folder)

    return Tuning(attach=attach, save=save)


def freeze(method: FreezeMethod) -> Tuning:
    """The last decoder layers train whole, as copies beside those of the base."""

    def attach(model: Any, context: Context) -> Any:
        prefix, layers = decoder_layers(model)
        count = len(layers)
        if method.last_layers > count:
            reason = f"is {method.last_layers}, but {context.spec.model.name} has {count} layers. Lower it to that."
            raise SpecError([Fault("method.last_layers", reason)])
        chosen = range(count - method.last_layers, count)
        names = [name for number in chosen for name in with_parameters(model, f"{prefix}.{number}")]
        return _beside(model, context, names)

    return Tuning(attach=attach)


def ln_tuning(method: LnTuningMethod) -> Tuning:
    """Source: arXiv:2312.11420; all normalisation layers, within the decoder layers and behind the last one."""
    return Tuning(attach=lambda model, context: _beside(model, context, norms(model)))


def trainable_tokens(method: TrainableTokensMethod) -> Tuning:
    """The embeddings of some tokens, and their rows of the head where it shares its weights with the embeddings."""

    def attach(model: Any, context: Context) -> Any:
        tokens = single_tokens(method.train_tokens, context)
        tuned = get_peft_model(model, TrainableTokensConfig(task_type=context.task, token_indices=tokens))
        base = tuned.get_base_model()
        if isinstance(layer := base.get_output_embeddings(), TrainableTokensLayer):
            head = TokenHead(layer)
            base.get_output_embeddings = lambda: head
        return tuned

    return Tuning(attach=attach)


def bitfit(method: BitfitMethod) -> Tuning:
    """Every bias term trains, as what is added to it. Source: arXiv:2106.10199."""

    def config(model: Any, context: Context) -> PeftConfig:
        layers = {name: module for name, module in model.named_modules() if _bias(module) is not None}
        if not layers:
            reason = f"is bitfit, but {context.spec.model.name} has no bias terms. Use ln_tuning or lora."
            raise SpecError([Fault("method.kind", reason)])
        # PEFT's own method of this kind knows linear layers alone; where these are all, plain PEFT loads the adapter
        plain = all(isinstance(module, nn.Linear) for module in layers.values())
        return (BeftConfig if plain else BiasConfig)(task_type=context.task, target_modules=list(layers))

    return by_config(config)


@dataclass
class BiasConfig(PeftConfig):
    """What adapter_config.json says of biases that train in layers of any kind."""

    target_modules: list[str] | None = None
    modules_to_save: list[str] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = PeftType["BITFIT"]


class BiasLayer(nn.Module, BaseTunerLayer):
    """A layer that ends by adding its bias, and what the active adapters add to that."""

    adapter_layer_names = ("bitfit_bias",)

    def __init__(self, base_layer: nn.Module):
        super().__init__()
        self.base_layer = base_layer
        self.bitfit_bias = nn.ParameterDict()
        self.merged_adapters: list[str] = []

    def add(self, name: str) -> None:
        self.bitfit_bias[name] = nn.Parameter(torch.zeros_like(_bias(self.base_layer), dtype=torch.float32))

    def forward(self, *args: Any, **options: Any) -> torch.Tensor:
        result = self.base_layer(*args, **options)
        if self.disable_adapters or self.merged:
            return result
        for name in self.active_adapters:
            if name in self.bitfit_bias:
                result = result + self.bitfit_bias[name].to(result.dtype)
        return result

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        for name in check_adapters_to_merge(self, adapter_names):
            if name in self.bitfit_bias:
                bias = _bias(self.base_layer)
                bias.data = (bias.data.float() + self.bitfit_bias[name].data).to(bias.dtype)
                self.merged_adapters.append(name)

    def unmerge(self) -> None:
        while self.merged_adapters:
            bias = _bias(self.base_layer)
            bias.data = (bias.data.float() - self.bitfit_bias[self.merged_adapters.pop()].data).to(bias.dtype)


class BiasModel(BaseTuner):
    """Puts biases that train beside those of the layers that their config names."""

    prefix = "bitfit_"
    tuner_layer_cls = BiasLayer
    target_module_mapping: dict[str, list[str]] = {}  # noqa: RUF012 - as every tuner of PEFT has it

    def _create_and_replace(
        self, config: BiasConfig, name: str, target: Any, target_name: str, parent: Any, **_: Any
    ) -> None:
        layer = target if isinstance(target, BiasLayer) else BiasLayer(target)
        layer.add(name)
        layer.set_adapter(self.active_adapters, inference_mode=config.inference_mode)
        if layer is not target:
            setattr(parent, target_name, layer)


register("bitfit", BiasConfig, BiasModel)


def _bias(module: nn.Module) -> nn.Parameter | None:
    bias = module._parameters.get("bias")
    return bias if isinstance(bias, nn.Parameter) else None


def _beside(model: Any, context: Context, names: Sequence[str]) -> Any:
    """The model with copies of some modules that train in their stead.

    PEFT's layer-norm tuning does that with a module of any kind.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT wonders at each layer whose sizes it does not know; it needs none
        tuned = get_peft_model(model, LNTuningConfig(task_type=context.task, target_modules=list(names)))
    for module in tuned.modules():
        if isinstance(module, LNTuningLayer):
            for copy in module.ln_tuning_layers.values():
                _in_its_own_precision(copy)
    return tuned


def _in_its_own_precision(module: nn.Module) -> None:
    """A copy trains in fp32 amid a base in 16 bits, so what comes in is brought to its precision, and back behind it.

    Only while it trains: loaded again, the copy has the precision of the base.
    """
    came: list[torch.dtype] = []

    def before(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        came[:] = [args[0].dtype]
        return (args[0].to(next(module.parameters()).dtype), *args[1:])

    def behind(module: nn.Module, args: tuple[Any, ...], result: torch.Tensor) -> torch.Tensor:
        return result.to(came[0])

    module.register_forward_pre_hook(before)
    module.register_forward_hook(behind)
