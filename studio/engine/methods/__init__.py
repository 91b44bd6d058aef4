"""Tuning methods: a method's spec in, what it does to a run out. One file per family, one name each below."""

from collections.abc import Callable, Mapping
from typing import Any

from studio.engine.methods.reparameterized import lora
from studio.engine.methods.tuning import Context, Tuning
from studio.specs import Method

TUNINGS: Mapping[str, Callable[[Any], Tuning]] = {"lora": lora}

__all__ = ["TUNINGS", "Context", "Tuning", "tuning"]


def tuning(method: Method) -> Tuning:
    """What a method does to a run."""
    return TUNINGS[method.kind](method)
