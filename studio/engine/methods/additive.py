"""Methods that add or scale activations: (IA)³ and LLaMA-Adapter. Not here: bottleneck adapters, which are our own."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from peft import AdaptionPromptConfig, IA3Config, get_peft_model
from peft.tuners.adaption_prompt.config import TRANSFORMERS_MODEL_CONFIG
from peft.utils.constants import (
    TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING,
    TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING,
)

from studio.engine.methods.placing import chosen, names_of, placed, turned_round
from studio.engine.methods.tuning import Context, Tuning, by_config
from studio.errors import Fault, SpecError
from studio.specs import AdaptionPromptMethod, Ia3Method

AUTO = "auto"
_LAST_OF_MLP = ("down_proj", "fc2", "w2", "mlp.c_proj", "dense_4h_to_h", "fc_out", "wo")
"""The last layer of an MLP, whose input is scaled instead of its output, where PEFT does not know the architecture."""


def ia3(method: Ia3Method) -> Tuning:
    """Source: arXiv:2205.05638, section 3.3."""

    def config(model: Any, context: Context) -> IA3Config:
        kind = model.config.model_type
        if AUTO in method.target_modules:
            names = TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING.get(kind)
            if names is None:
                told = f"auto is not known for models of type {kind}"
                raise SpecError([Fault("method.target_modules", f"{told}. Name layers, or set it to attention.")])
            wanted = method.model_copy(update={"target_modules": tuple(names)})
        else:
            wanted = method
        places, layers = placed(wanted, model), chosen(wanted, model)
        last = TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING.get(kind) or _LAST_OF_MLP
        scaled = {name: layers[name] for name in layers if name.endswith(tuple(f".{end}" for end in last))}
        inner = names_of(scaled, model)
        if not set(inner) <= set(places["target_modules"]):  # the last part of a name alone means other layers too
            places["target_modules"], inner = list(layers), list(scaled)
        turned = turned_round(layers)
        return IA3Config(task_type=context.task, **places, feedforward_modules=inner, fan_in_fan_out=turned)

    return by_config(config)


def adaption_prompt(method: AdaptionPromptMethod) -> Tuning:
    """Source: LLaMA-Adapter, arXiv:2303.16199, section 3."""

    def attach(model: Any, context: Context) -> Any:
        _refuse_unknown(model.config.model_type)
        config = AdaptionPromptConfig(
            task_type=context.task,
            adapter_len=method.adapter_length,
            adapter_layers=min(method.adapter_layers, model.config.num_hidden_layers),
        )
        wrapped = get_peft_model(model, config)
        wrapped.base_model.forward = _forward_of(model)
        return wrapped

    return Tuning(attach)


def _refuse_unknown(kind: str) -> None:
    if kind not in TRANSFORMERS_MODEL_CONFIG:
        known = ", ".join(sorted(TRANSFORMERS_MODEL_CONFIG))
        told = f"adaption_prompt knows models of type {known}, but this one is a {kind}"
        raise SpecError([Fault("method.kind", f"{told}. Use prefix_tuning instead.")])


def _forward_of(model: Any) -> Callable[..., Any]:
    """The model's forward as it is when called: PEFT (0.21) keeps the one from before trl gives it another.

    A base in half precision computes in it, whatever the run does: the prompts train in fp32, and PEFT casts them not.
    """

    @wraps(model.forward)
    def forward(*args: Any, **options: Any) -> Any:
        half = model.dtype in (torch.bfloat16, torch.float16)
        with torch.autocast(model.device.type, dtype=model.dtype if half else None, enabled=half):
            return model.forward(*args, **options)

    return forward
