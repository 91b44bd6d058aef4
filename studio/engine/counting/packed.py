"""The true sizes of weights that a quantised model's files hold packed. Not here: reading the files (shapes)."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

Sizes = Mapping[str, tuple[int, ...]]

_EXTRAS = ("qzeros", "scales", "g_idx", "SCB", "weight_format", "weight_scale", "weight_scale_inv", "input_scale")


def unpacked(weights: dict[str, tuple[int, ...]], config: Mapping[str, Any]) -> str | None:
    """Bring the sizes to what the weights stand for, in place. Returns why that cannot be done, or None.

    GPTQ packs along the inputs, AWQ along the outputs; bitsandbytes writes 4-bit weights as one column of bytes, whose
    shape only the config tells; its 8-bit weights, and fp8, keep their shape.
    """
    settings = config.get("quantization_config")
    if not isinstance(settings, Mapping):
        return None
    method = str(settings.get("quant_method", "bitsandbytes" if "load_in_4bit" in settings else ""))
    if method in ("gptq", "awq"):
        _unpack_integers(weights, method, int(settings.get("bits") or settings.get("w_bit") or 4))
    elif method.startswith("bitsandbytes"):
        if any(".quant_state." in name for name in weights) and (wrong := _unpack_columns(weights, config)):
            return f"the shape of {wrong} is packed away, and its config does not tell it"
    elif method not in ("fp8", "fbgemm_fp8"):
        return f"its weights are quantised by {method or 'an unknown method'}"
    for name in [name for name in weights if _is_extra(name)]:
        del weights[name]
    return None


def _unpack_integers(weights: dict[str, tuple[int, ...]], method: str, bits: int) -> None:
    for name in [name for name in weights if name.endswith(".qweight")]:
        rows, columns = weights.pop(name)
        inputs, outputs = (rows * 32 // bits, columns) if method == "gptq" else (rows, columns * 32 // bits)
        weights[name.removesuffix("qweight") + "weight"] = (outputs, inputs)


def _unpack_columns(weights: dict[str, tuple[int, ...]], config: Mapping[str, Any]) -> str | None:
    """Returns the first weight whose size is not known."""
    known = _by_config(config)
    for name in {name.split(".weight.quant_state.")[0] for name in weights if ".weight.quant_state." in name}:
        size = known.get(name.rpartition(".")[2])
        if size is None or prod(size) != 2 * prod(weights[f"{name}.weight"]):
            return name
        weights[f"{name}.weight"] = size
    return None


def _by_config(config: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """(outputs, inputs) of the layers of the llama shape, by their usual names."""
    hidden, heads, inner = (config.get(key) or 0 for key in ("hidden_size", "num_attention_heads", "intermediate_size"))
    width = config.get("head_dim") or (hidden // heads if heads else 0)
    wide, narrow = heads * width, (config.get("num_key_value_heads") or heads) * width
    return {
        "q_proj": (wide, hidden),
        "k_proj": (narrow, hidden),
        "v_proj": (narrow, hidden),
        "o_proj": (hidden, wide),
        "gate_proj": (inner, hidden),
        "up_proj": (inner, hidden),
        "down_proj": (hidden, inner),
    }


def _is_extra(name: str) -> bool:
    return name.endswith(tuple(f".{extra}" for extra in _EXTRAS)) or ".weight." in name
