"""Methods that write the update of a weight in fewer numbers: LoRA and its variants, and its relatives."""

from __future__ import annotations

from typing import Any

from peft import LoraConfig

from studio.engine.methods.tuning import Context, Tuning, by_config, targets
from studio.specs import LoraMethod


def lora(method: LoraMethod) -> Tuning:
    """Source: arXiv:2106.09685; all linear layers as in QLoRA, arXiv:2305.14314, section 4."""

    def config(model: Any, context: Context) -> LoraConfig:
        return LoraConfig(
            task_type=context.task,
            r=method.rank,
            lora_alpha=method.alpha,
            lora_dropout=method.dropout,
            target_modules=targets(method.target_modules, model),
            use_rslora=method.rslora,
            use_dora=method.dora,
        )

    return by_config(config)
