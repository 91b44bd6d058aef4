"""One base in memory and what was made of it, each under a name, over one copy of the base's weights.

LoRA adapters stand on one model, because PEFT answers for several of them in one batch. Every other adapter has a model
of its own, made of the very layers of the base, so that methods do not get in each other's way. What was trained whole
has weights of its own. Not here: decoding (studio.engine.generate), and where a run's folder comes from.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import MODEL_TYPE_TO_PEFT_MODEL_MAPPING, PeftConfig, PeftModel, PeftModelForCausalLM
from peft.utils import get_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file

import studio.engine.methods  # noqa: F401 - PEFT knows our own methods from then on
from studio.engine.methods.soft_prompt import answer_as
from studio.engine.models.load import load_base, recorded
from studio.engine.models.memory import fits
from studio.errors import ModelError

BASE = "__base__"
"""PEFT's own word for "no adapter" in a batch of mixed adapters."""
ADAPTER = "adapter"
"""The name under which the adapter of a single run is loaded."""
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
WHOLE = "config.json"
OURS = ("BOTTLENECK", "BITFIT")
"""Methods that PEFT knows only with studio.engine.methods imported."""


@dataclass(frozen=True)
class Place:
    """Where somebody who answers is: a model, and the adapter on it. BASE: without any; None: whatever is active."""

    model: Any
    adapter: str | None = None


class Held:
    """A base, and what is added to it. The base itself is never changed, so it may answer meanwhile."""

    def __init__(self, base: Any):
        self.base = base.eval()
        self._mixing: Any = None
        self._places: dict[str, Place] = {BASE: Place(self.base, BASE)}

    @property
    def config(self) -> Any:
        return self.base.config

    def place(self, name: str | None) -> Place:
        return self._places[name or BASE]

    def add(self, name: str, folder: Path, *, dtype: str) -> None:
        """Hold what a run left in a folder: an adapter of any method, or a whole model, in `dtype`.

        Raises: ModelError: it cannot be loaded beside this base, with the reason; then nothing has changed.
        """
        if is_whole(folder):
            self._places[name] = Place(whole_model(folder, dtype=dtype))
        elif mixes(adapter_config(folder)):
            self._mixing = with_adapter(self._mixing or sibling(self.base), folder, name)
            self._places[name] = Place(self._mixing, name)
        else:
            self._places[name] = Place(with_adapter(sibling(self.base), folder, name), name)

    @contextmanager
    def using(self, name: str) -> Iterator[Any]:
        """The model that answers under a name, as one that is called with tokens."""
        place = self._places[name]
        if place.adapter not in (None, BASE):
            activate(place.model, place.adapter)
        yield place.model


def is_whole(folder: Path) -> bool:
    """Whether a run left a whole model instead of an adapter."""
    return (folder / WHOLE).is_file() and not (folder / CONFIG).is_file()


def is_ours(folder: Path) -> bool:
    """Whether a folder's adapter is of a method that PEFT alone does not know."""
    return (folder / CONFIG).is_file() and adapter_config(folder).peft_type in OURS


def mixes(config: Any) -> bool:
    """Whether adapters of this kind answer side by side in one batch: plain LoRA does, in PEFT 0.21."""
    return config.peft_type == "LORA" and not config.use_dora and not config.trainable_token_indices


def virtual_tokens(place: Place) -> int:
    """Positions that a soft prompt takes up before every prompt; 0 without one."""
    config = soft_prompt(place.model) if place.adapter != BASE else None
    return config.num_virtual_tokens if config else 0


def soft_prompt(model: Any) -> Any:
    """The config of the active adapter if that is a soft prompt."""
    config = model.active_peft_config if isinstance(model, PeftModel) and model.active_adapter else None
    return config if config is not None and config.is_prompt_learning else None


def activate(model: Any, adapter: str) -> None:
    """Make an adapter the one that works, unless it is."""
    if model.active_adapters != [adapter]:
        model.set_adapter(adapter)


def sibling(model: Any) -> Any:
    """Another model of the very same layers and weights: what is put around them in one is not in the other."""
    layers = [module for module in model.modules() if not any(module.children())]
    kept = [*layers, *model.parameters(), *model.buffers(), model.config]
    return copy.deepcopy(model, {id(each): each for each in kept})


def whole_model(folder: Path, *, dtype: str) -> Any:
    """A model that was trained whole, in eval mode. Raises: ModelError: it does not fit into memory, or is damaged."""
    if not fits(folder, 4 if dtype == "fp32" else 2):
        raise ModelError(
            f"{folder} is a whole model, and there is not enough free memory for it beside the base. "
            "Close other programs, or another chat."
        )
    model = load_base(folder, dtype=dtype, labels=recorded(folder, "labels"), trained=True)
    for name, tensor in model.named_parameters():
        if not torch.isfinite(tensor).all():
            raise ModelError(f"{folder} is damaged: {name} holds values that are not numbers. Use another checkpoint.")
    return model.eval()


def with_adapter(model: Any, folder: Path, name: str = ADAPTER) -> Any:
    """The model with an adapter of a folder on it, in eval mode. model: a base, or one that has adapters already.

    Raises: ModelError: the adapter cannot be loaded onto this base, with the reason. The adapters that were there are
        as they were; a base alone is not.
    """
    config = adapter_config(folder)
    config.inference_mode = True
    wrapped = model if isinstance(model, PeftModel) else None
    try:
        tensors = load_file(folder / WEIGHTS)
        _check_numbers(tensors)
        if wrapped is None:
            kind = MODEL_TYPE_TO_PEFT_MODEL_MAPPING.get(config.task_type, PeftModelForCausalLM)
            wrapped = kind(model, config, adapter_name=name)
        with _base_untouched(wrapped):
            loaded = wrapped.load_adapter(str(folder), name, is_trainable=False)
            check_whole(wrapped, name, tensors, loaded)
    except (RuntimeError, ValueError, LookupError, TypeError, AttributeError, OSError, SafetensorError) as error:
        if wrapped is model and name in model.peft_config:
            model.delete_adapter(name)  # tensors that did fit have been loaded, and would answer
        shapes = [line.strip() for line in str(error).splitlines() if "size mismatch" in line]
        raise ModelError(f"{folder} does not fit this base: {(shapes or [str(error)])[0][:300]}") from error
    answer_as(wrapped, name)
    return wrapped.eval()


def adapter_config(folder: Path) -> Any:
    """Raises: ModelError: there is no adapter in the folder, or none that can be read."""
    if not (folder / CONFIG).is_file():
        raise ModelError(f"{folder} holds no adapter: {CONFIG} is missing.")
    if not (folder / WEIGHTS).is_file():
        raise ModelError(f"{folder} holds no adapter weights: {WEIGHTS} is missing.")
    try:
        return PeftConfig.from_pretrained(str(folder))
    except (ValueError, LookupError, TypeError, OSError) as error:
        raise ModelError(f"{folder / CONFIG} cannot be read: {str(error)[:300]}") from error


@contextmanager
def _base_untouched(model: Any) -> Iterator[None]:
    """Keep 4-bit weights as they lie in memory while PEFT reads the model's state to load an adapter into it.

    On a CPU, bitsandbytes (0.50) packs them for speed at the first look, and unpacks them whenever the state is read,
    with other roundings: the base would answer otherwise from then on.
    """
    states = [getattr(parameter, "quant_state", None) for parameter in model.parameters()]
    packed = [state for state in states if getattr(state, "packing_format_for_cpu", False)]
    for state in packed:
        state.packing_format_for_cpu = False
    try:
        yield
    finally:
        for state in packed:
            state.packing_format_for_cpu = True


def _check_numbers(tensors: dict[str, torch.Tensor]) -> None:
    for key, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{key} holds values that are not numbers")


def check_whole(model: Any, name: str, tensors: dict[str, torch.Tensor], loaded: Any) -> None:
    """PEFT loads an adapter that lacks tensors, or has those of another, without a word."""
    wanted = get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)
    missing = sorted(wanted.keys() - tensors.keys())  # loaded.missing_keys also names parts that layers share
    # whole embeddings may lie beside an adapter, and soft prompts are loaded apart
    extra = sorted(tensors.keys() - wanted.keys()) if loaded.unexpected_keys else []
    for keys, fault in ((missing, "lacks"), (extra, "has no place for")):
        if keys:
            raise ValueError(f"it {fault} {len(keys)} tensors, such as {keys[0]}")
