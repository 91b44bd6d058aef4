"""The spec's quantisation as bitsandbytes understands it. Not here: which one is the default (studio.specs)."""

from importlib.util import find_spec
from typing import Any

from studio.errors import MissingExtra
from studio.specs import QuantizationSpec


def keep_trainable(model: Any) -> None:
    """Keep 4-bit weights in the layout that gradients pass through. Call this on a model before it trains.

    On a CPU with avx512_bf16, bitsandbytes (0.50) repacks them for inference at the first forward pass in eval mode,
    for good, and the kernel for that layout has no backward: a validation loss or a sample answer in between would
    silently cut every later gradient at the base weights.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def quantization_config(spec: QuantizationSpec, compute_dtype: Any) -> Any:
    """A BitsAndBytesConfig, or None for `none`.

    Args: compute_dtype: the torch dtype that 4-bit weights are dequantised to for each product; bf16 in the paper.
    Raises: MissingExtra: bitsandbytes is not installed.
    Source: QLoRA, arXiv:2305.14314, section 3 (NF4, double quantisation).
    """
    if spec.kind == "none":
        return None
    if find_spec("bitsandbytes") is None:
        raise MissingExtra("bitsandbytes", f"quantization.kind {spec.kind}")
    from transformers import BitsAndBytesConfig

    if spec.kind == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    import studio.engine.models.four_bit  # noqa: F401

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=spec.kind,
        bnb_4bit_use_double_quant=spec.double,
        bnb_4bit_compute_dtype=compute_dtype,
    )
