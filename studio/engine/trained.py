"""A training run opened for use: its base, its adapter, its template, as chat, evaluation and export need them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft import PeftModel

from studio import hardware
from studio.engine import quiet  # noqa: F401 - before the libraries
from studio.engine.models.load import check_base, load_base, load_tokenizer
from studio.engine.models.memory import fits
from studio.engine.models.resolve import resolve
from studio.errors import ModelError
from studio.events import Emit, Note, Phase
from studio.specs import TrainSpec
from studio.templates import Template, TextTokenizer
from studio.templates import resolve as resolve_template

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
    template = resolve_template(spec.template.name, text_tokenizer)
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
    try:
        if isinstance(model, PeftModel):
            model.load_adapter(str(adapter), name, is_trainable=False)
        else:
            model = PeftModel.from_pretrained(model, str(adapter), adapter_name=name, is_trainable=False)
    except (RuntimeError, ValueError, KeyError) as error:
        shapes = [line.strip() for line in str(error).splitlines() if "size mismatch" in line]
        raise ModelError(f"{adapter} does not fit this base: {(shapes or [str(error)])[0][:300]}") from error
    return model.eval()


def phases(emit: Emit) -> Callable[[str, int | None, int | None], None]:
    """A progress callback that tells phases."""
    return lambda name, done=None, total=None: emit(Phase(name=name, done=done, total=total, unit="bytes"))
