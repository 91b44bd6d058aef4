"""Bases that come quantised: how they are recognised, and what it takes to train on them. Nothing is loaded for that.

Not here: quantising a base while it loads (studio.engine.models.quantize).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Scheme:
    """One way of holding weights in few bits.

    packages: (module, name for pip) of what reads it. methods: kinds of tuning that PEFT can put on its layers; None:
    whatever trains on a base that bitsandbytes quantises here. on_cpu: whether its arithmetic runs without a GPU.
    """

    packages: tuple[tuple[str, str], ...]
    methods: tuple[str, ...] | None = ("lora",)
    on_cpu: bool = True


SCHEMES: Mapping[str, Scheme] = {
    "bitsandbytes": Scheme((("bitsandbytes", "bitsandbytes"),), methods=None),
    "gptq": Scheme((("optimum", "optimum"), ("gptqmodel", "gptqmodel"))),
    "awq": Scheme((("gptqmodel", "gptqmodel"),)),
    "hqq": Scheme((("hqq", "hqq"),)),
    "torchao": Scheme((("torchao", "torchao"),)),
}
"""By `quant_method` in a model's config.json, for those that adapters can train on."""


def scheme_of(base: Path) -> str | None:
    """The quant_method that a model's config names; None: its weights are plain."""
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    quantised = config.get("quantization_config")
    if not isinstance(quantised, dict):
        return None
    method = str(quantised.get("quant_method", ""))
    # configs of old versions say only how bitsandbytes loads them
    loads = quantised.get("load_in_4bit") or quantised.get("load_in_8bit")
    return "bitsandbytes" if loads or method.startswith("bitsandbytes") else method or None


def bits_of(base: Path) -> int | None:
    """4 or 8 for a base that bitsandbytes quantised."""
    quantised = json.loads((base / "config.json").read_text(encoding="utf-8")).get("quantization_config") or {}
    return 4 if quantised.get("load_in_4bit") else 8 if quantised.get("load_in_8bit") else None
