"""Tuning methods: a method's spec in, what it does to a run out. One file per family, one name each below."""

from collections.abc import Callable, Mapping
from typing import Any

from studio.engine.methods.adalora import adalora
from studio.engine.methods.additive import adaption_prompt, ia3
from studio.engine.methods.bottleneck import bottleneck
from studio.engine.methods.lora import lora
from studio.engine.methods.mixtures import adamix
from studio.engine.methods.reparameterized import (
    boft,
    fourierft,
    hra,
    loha,
    lokr,
    miss,
    oft,
    randlora,
    vblora,
    vera,
)
from studio.engine.methods.selective import bitfit, freeze, full, ln_tuning, trainable_tokens
from studio.engine.methods.soft_prompt import multitask_prompt_tuning, p_tuning, prefix_tuning, prompt_tuning
from studio.engine.methods.tuning import Context, Tuning
from studio.specs import Method

TUNINGS: Mapping[str, Callable[[Any], Tuning]] = {
    "lora": lora,
    "adalora": adalora,
    "loha": loha,
    "lokr": lokr,
    "oft": oft,
    "boft": boft,
    "vera": vera,
    "randlora": randlora,
    "vblora": vblora,
    "fourierft": fourierft,
    "hra": hra,
    "miss": miss,
    "ia3": ia3,
    "adaption_prompt": adaption_prompt,
    "prompt_tuning": prompt_tuning,
    "multitask_prompt_tuning": multitask_prompt_tuning,
    "p_tuning": p_tuning,
    "prefix_tuning": prefix_tuning,
    "bottleneck": bottleneck,
    "full": full,
    "freeze": freeze,
    "bitfit": bitfit,
    "ln_tuning": ln_tuning,
    "trainable_tokens": trainable_tokens,
    "adamix": adamix,
}

__all__ = ["TUNINGS", "Context", "Tuning", "tuning"]


def tuning(method: Method) -> Tuning:
    """What a method does to a run."""
    return TUNINGS[method.kind](method)
