"""A base model, its tokenizer and its adapters, from folders that `resolve` has checked.

Not here: finding or fetching them (resolve, bundled), and wrapping with a new adapter (studio.engine.methods).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from studio.engine.models.quantize import quantization_config
from studio.engine.models.resolve import identity
from studio.errors import ModelError
from studio.specs import QuantizationSpec
from studio.templates import TextTokenizer

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
BASE_RECORD = "studio.json"
"""Beside an adapter's weights: which base it belongs to. PEFT itself loads an adapter onto any base of its shape."""


def device() -> torch.device:
    """The first CUDA device, else the CPU."""
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


def load_tokenizer(folder: Path) -> tuple[Any, TextTokenizer]:
    """transformers' tokenizer and the studio's view of the very same one.

    The second is what the preview uses too, so that page and trainer cannot disagree.
    """
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer, TextTokenizer.from_folder(folder)


def load_base(folder: Path, *, dtype: str, quantization: QuantizationSpec | None = None) -> Any:
    """The base with its weights in `dtype` (fp32, bf16, fp16), quantised if asked, on `device()`.

    Raises: ModelError: the weights cannot be loaded, with the library's own words.
    """
    place = device()
    options: dict[str, Any] = {"device_map": {"": place}} if place.type == "cuda" else {}
    if quantization is not None and quantization.kind != "none":
        options["quantization_config"] = quantization_config(quantization, _compute_dtype(dtype))
    try:
        return AutoModelForCausalLM.from_pretrained(
            folder, dtype=DTYPES[dtype], local_files_only=True, use_safetensors=True, trust_remote_code=False, **options
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(f"The model in {folder} cannot be loaded: {_first_line(error)}") from error


def record_base(adapter: Path, base: Path, name: str) -> None:
    """Write beside an adapter which base it was trained on, and make its own config name the base, not a cache path."""
    (adapter / BASE_RECORD).write_text(json.dumps({"base": name, "identity": identity(base)}), encoding="utf-8")
    config = adapter / "adapter_config.json"
    values = json.loads(config.read_text(encoding="utf-8"))
    config.write_text(json.dumps(values | {"base_model_name_or_path": name}, indent=2), encoding="utf-8")


def check_base(adapter: Path, base: Path) -> None:
    """Refuse an adapter that was trained on another base, which PEFT would load without a word.

    Raises: ModelError: the recorded base is another one.
    """
    record = adapter / BASE_RECORD
    try:
        recorded = json.loads(record.read_text(encoding="utf-8"))
        name, wanted = recorded["base"], recorded["identity"]
    except FileNotFoundError:
        return  # not trained here; shapes are all that can be compared
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ModelError(
            f"{record} cannot be read ({error}), so the base of this adapter is not known. Use another checkpoint."
        ) from error
    if wanted != identity(base):
        raise ModelError(
            f"The adapter {adapter} belongs to {name}, and the weights in {base} are not those it was "
            "trained on. Use the base it was trained on, or train again."
        )


def _compute_dtype(dtype: str) -> torch.dtype:
    return torch.bfloat16 if dtype == "fp32" else DTYPES[dtype]


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
