"""Methods that write the update of a weight in fewer numbers: LoRA and its variants."""

from typing import Any

from peft import LoraConfig

from studio.specs import LoraMethod


def lora(method: LoraMethod) -> Any:
    """Source: arXiv:2106.09685; all linear layers as in QLoRA, arXiv:2305.14314, section 4."""
    everything = method.target_modules == ("all-linear",)
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=method.rank,
        lora_alpha=method.alpha,
        lora_dropout=method.dropout,
        target_modules="all-linear" if everything else list(method.target_modules),
        use_rslora=method.rslora,
        use_dora=method.dora,
    )
