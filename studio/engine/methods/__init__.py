"""Parameter-efficient methods: a method's spec in, PEFT's config out. One file per family, one name each below."""

from typing import Any

from studio.engine.methods.reparameterized import lora
from studio.specs import Method

METHODS = {"lora": lora}


def peft_config(method: Method) -> Any:
    """The PEFT config of a method."""
    return METHODS[method.kind](method)
