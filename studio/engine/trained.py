"""A training run opened for use: its base, its adapter, its template, as chat, evaluation and export need them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftModel, PeftModelForCausalLM
from safetensors import SafetensorError

from studio import hardware
from studio.engine.models.load import check_base, load_base, load_tokenizer, template_of
from studio.engine.models.memory import fits
from studio.engine.models.resolve import resolve
from studio.errors import ModelError
from studio.events import Emit, Note, Phase
from studio.specs import TrainSpec
from studio.templates import Template, TextTokenizer

ADAPTER = "adapter"
"""The name under which the run's adapter is loaded."""


@dataclass(frozen=True)
class Trained:
    """model: a PeftModel in eval mode; without its adapter it is the base."""

    model: Any
    tokenizer: Any
    text_tokenizer: TextTokenizer
    template: Template
    base: Path


def open_trained(spec: TrainSpec, adapter: Path, emit: Emit, *, dtype: str | None = None) -> Trained:
    """Load the base and put the adapter on it.

    In full precision, as an export has it; as it was trained (quantised) only where full precision does not fit.
    dtype: fp32, bf16 or fp16; None is what "auto" means on this machine.
    """
    emit(Phase(name="resolve"))
    base = resolve(spec.model.name, spec.model.revision, progress=phases(emit))
    check_base(adapter, base)
    tokenizer, text_tokenizer = load_tokenizer(base)
    template = template_of(adapter, spec.template.name, text_tokenizer)
    emit(Phase(name="load"))
    chosen = dtype or hardware.choices(spec, hardware.detect())["model.dtype"].value
    quantization = None
    if spec.quantization.kind != "none" and not fits(base, 4 if chosen == "fp32" else 2):
        quantization = spec.quantization
        emit(Note(text=f"Full precision does not fit into memory, so the base is {quantization.kind} as in training."))
    model = load_base(base, dtype=chosen, quantization=quantization)
    return Trained(with_adapter(model, adapter), tokenizer, text_tokenizer, template, base)


def with_adapter(model: Any, adapter: Path, name: str = ADAPTER) -> Any:
    """The model with an adapter of a folder on it, in eval mode.

    Raises: ModelError: the adapter cannot be loaded onto this base, with the reason.
    """
    if not (adapter / "adapter_config.json").is_file():
        raise ModelError(f"{adapter} holds no adapter: adapter_config.json is missing.")
    if not (adapter / "adapter_model.safetensors").is_file():
        raise ModelError(f"{adapter} holds no adapter weights: adapter_model.safetensors is missing.")
    wrapped = model if isinstance(model, PeftModel) else None
    try:
        if wrapped is None:
            config = PeftConfig.from_pretrained(str(adapter))
            config.inference_mode = True
            wrapped = PeftModelForCausalLM(model, config, adapter_name=name)
        loaded = wrapped.load_adapter(str(adapter), name, is_trainable=False)
        _check_whole(wrapped, loaded, name)
    except (RuntimeError, ValueError, LookupError, TypeError, AttributeError, OSError, SafetensorError) as error:
        _take_off(wrapped, name, last=wrapped is not model)
        shapes = [line.strip() for line in str(error).splitlines() if "size mismatch" in line]
        raise ModelError(f"{adapter} does not fit this base: {(shapes or [str(error)])[0][:300]}") from error
    return wrapped.eval()


def _check_whole(model: Any, loaded: Any, name: str) -> None:
    """PEFT loads an adapter that lacks tensors, or holds no numbers, without a word."""
    for keys, fault in ((loaded.missing_keys, "lacks"), (loaded.unexpected_keys, "has no place for")):
        if keys:
            raise ValueError(f"it {fault} {len(keys)} tensors, such as {keys[0]}")
    for key, tensor in model.named_parameters():
        if f".{name}." in key and not torch.isfinite(tensor).all():
            raise ValueError(f"{key} holds values that are not numbers")


def _take_off(wrapped: Any, name: str, *, last: bool) -> None:
    """Leave the model as it was: tensors that did fit have been loaded, and would answer."""
    if wrapped is None:
        return
    if last:
        wrapped.unload()
    elif name in wrapped.peft_config:
        wrapped.delete_adapter(name)


def phases(emit: Emit) -> Callable[[str, int | None, int | None], None]:
    """A progress callback that tells phases."""
    return lambda name, done=None, total=None: emit(Phase(name=name, done=done, total=total, unit="bytes"))
