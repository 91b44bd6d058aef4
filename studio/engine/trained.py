"""A training run opened for use: its base, what it made of it, its template, as evaluation and export need them.

Not here: how an adapter is put on a base (studio.engine.held).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import set_seed

from studio import hardware
from studio.engine.fitting import check_adapter
from studio.engine.held import ADAPTER, Held, is_whole, whole_model, with_adapter
from studio.engine.models.load import load_base, load_tokenizer, recorded, template_of
from studio.engine.models.memory import fits
from studio.engine.models.resolve import resolve
from studio.events import Emit, Note, Phase
from studio.specs import TrainSpec
from studio.templates import Template, TextTokenizer

__all__ = ["ADAPTER", "Trained", "open_beside_base", "open_trained", "phases", "with_adapter"]


@dataclass(frozen=True)
class Trained:
    """model: a PeftModel, which without its adapter is the base, or a model that was trained whole; in eval mode."""

    model: Any
    tokenizer: Any
    text_tokenizer: TextTokenizer
    template: Template
    base: Path


def open_trained(spec: TrainSpec, adapter: Path, emit: Emit, *, dtype: str | None = None) -> Trained:
    """Load the base and put the adapter on it, or load the whole model that the run left.

    In full precision, as an export has it; as it was trained (quantised) only where full precision does not fit.
    dtype: fp32, bf16 or fp16; None is what "auto" means on this machine.
    """

    def load(base: Path, chosen: str) -> Any:
        if is_whole(adapter):
            return whole_model(adapter, dtype=chosen)
        return with_adapter(_base(spec, base, adapter, chosen, emit), adapter)

    return _open(spec, adapter, emit, dtype, load)


def open_beside_base(spec: TrainSpec, adapter: Path, emit: Emit) -> Trained:
    """The same as a Held: what the run left under the name ADAPTER, and the base, even if the run trained it whole."""

    def load(base: Path, chosen: str) -> Held:
        held = Held(_base(spec, base, adapter, chosen, emit))
        held.add(ADAPTER, adapter, dtype=chosen)
        return held

    return _open(spec, adapter, emit, None, load)


def _open(spec: TrainSpec, adapter: Path, emit: Emit, dtype: str | None, load: Callable[[Path, str], Any]) -> Trained:
    emit(Phase(name="resolve"))
    base = resolve(spec.model.name, spec.model.revision, progress=phases(emit))
    check_adapter(adapter, base)
    tokenizer, text_tokenizer = load_tokenizer(base)
    template = template_of(adapter, spec.template.name, text_tokenizer)
    emit(Phase(name="load"))
    chosen = dtype or hardware.choices(spec, hardware.detect())["model.dtype"].value
    return Trained(load(base, chosen), tokenizer, text_tokenizer, template, base)


def _base(spec: TrainSpec, base: Path, adapter: Path, dtype: str, emit: Emit) -> Any:
    quantization = None
    if spec.quantization.kind != "none" and not fits(base, 4 if dtype == "fp32" else 2):
        quantization = spec.quantization
        emit(Note(text=f"Full precision does not fit into memory, so the base is {quantization.kind} as in training."))
    set_seed(spec.training.seed)  # without the adapter, a head is as it was when the run began
    return load_base(base, dtype=dtype, quantization=quantization, labels=recorded(adapter, "labels"))


def phases(emit: Emit) -> Callable[[str, int | None, int | None], None]:
    """A progress callback that tells phases."""
    return lambda name, done=None, total=None: emit(Phase(name=name, done=done, total=total, unit="bytes"))
