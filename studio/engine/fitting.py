"""Whether an adapter belongs on a base, by their files alone: before weights load, and before it is given away.

PEFT loads an adapter of another base, or one that lacks tensors or holds what is no number, without a word. Not here:
loading one (studio.engine.held), which looks again at what it has loaded.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from peft import MODEL_TYPE_TO_PEFT_MODEL_MAPPING, PeftModelForCausalLM
from peft.utils import get_peft_model_state_dict
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

from studio.engine.checkpoints import MANIFEST, fault_of
from studio.engine.held import ADAPTER, CONFIG, WEIGHTS, adapter_config, is_whole
from studio.engine.models.load import check_base, recorded
from studio.engine.models.resolve import allows_code
from studio.errors import ModelError

Sizes = Mapping[str, tuple[int, ...]]
_SHOWN = 20
_FACTORS = re.compile(r"\.lora_(embedding_)?[AB](\.weight)?$")


def check_adapter(adapter: Path, base: Path) -> None:
    """Refuse an adapter that is another base's, damaged, or not what its config says.

    A whole model is only asked for its base: the rest is seen when it is loaded.
    Raises: ModelError: with the tensor or the layer, and what to do.
    """
    if is_whole(adapter):
        check_base(adapter, base)
        return
    config = adapter_config(adapter)
    check_base(adapter, base)
    if (adapter / MANIFEST).is_file() and (reason := fault_of(adapter, "*.safetensors")):
        raise ModelError(f"{adapter} is damaged: {reason}. Use another checkpoint.")
    if reason := damage(adapter / WEIGHTS) or next(_misfits(adapter, config, base), None):
        raise ModelError(f"{adapter} does not fit this base: {reason}")


def damage(path: Path) -> str | None:
    """What is wrong with a file of weights; one tensor is in memory at a time."""
    try:
        with safe_open(str(path), framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - it is no mapping
                tensor = file.get_tensor(name)
                if tensor.is_floating_point() and not torch.isfinite(tensor).all():
                    return f"{name} holds values that are not numbers. Use another checkpoint."
    except (OSError, SafetensorError) as error:
        return f"{path.name} is damaged or cut short: {error}. Use another checkpoint."
    return None


def _misfits(adapter: Path, config: Any, base: Path) -> Iterator[str]:
    """What the base and the config want otherwise than the weights have it."""
    labels = recorded(adapter, "labels")
    model = _skeleton(base, labels)
    names = [name for name, _ in model.named_modules()]
    try:
        wanted = _wanted(model, config)
    except (RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:
        if "meta tensor" in str(error):  # a soft prompt or BOFT, which is only compared when it is loaded
            return
        yield _absent(config, names) or f"{str(error)[:300].removesuffix('.')}. Use the base it was trained on."
        return
    found = _sizes(adapter / WEIGHTS)
    for name, size in found.items():
        if size != wanted.get(name, size):
            yield _otherwise(name, size, wanted[name])
    if missing := sorted(wanted.keys() - found.keys()):
        yield f"it lacks {len(missing)} tensors, such as {missing[0]}. Use another checkpoint, or train again."


def _skeleton(base: Path, labels: list[str] | None) -> Any:
    """The base without weights, so that it takes neither memory nor time."""
    try:
        with torch.device("meta"):
            trusted = {"trust_remote_code": allows_code(base)}
            config = AutoConfig.from_pretrained(base, local_files_only=True, **trusted)
            if labels is None:
                return AutoModelForCausalLM.from_config(config, **trusted)
            config.num_labels = len(labels)
            return AutoModelForSequenceClassification.from_config(config, **trusted)
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        raise ModelError(f"The model in {base} cannot be loaded: {str(error)[:300]}") from error


def _wanted(model: Any, config: Any) -> Sizes:
    """The tensors that an adapter of this config has on this model."""
    kind = MODEL_TYPE_TO_PEFT_MODEL_MAPPING.get(config.task_type, PeftModelForCausalLM)
    with torch.device("meta"):
        wrapped = kind(model, config, adapter_name=ADAPTER)
        state = get_peft_model_state_dict(wrapped, adapter_name=ADAPTER, save_embedding_layers=False)
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def _absent(config: Any, modules: list[str]) -> str | None:
    """That the base has none of the layers that the config names, with the nearest that it has."""
    words = getattr(config, "target_modules", None)
    words = [words] if isinstance(words, str) else sorted(words or ())
    if not words or any(name == word or name.endswith(f".{word}") for word in words for name in modules):
        return None
    leaves = list(dict.fromkeys(name.rpartition(".")[2] for name in modules if name and not name[-1].isdigit()))
    near = [found[0] for word in words if (found := difflib.get_close_matches(word.rpartition(".")[2], leaves, n=1))]
    hint = f" Nearest: {', '.join(dict.fromkeys(near))}." if near else ""
    return (
        f"its {CONFIG} names {', '.join(words[:_SHOWN])}, and the base has no such layers.{hint} It has "
        f"{', '.join(leaves[:_SHOWN])}. Use the base it was trained on."
    )


def _otherwise(name: str, size: tuple[int, ...], wanted: tuple[int, ...]) -> str:
    """A tensor of another shape: by its rank the config is wrong, by its width the base."""
    found = _FACTORS.search(name)
    ranks = (size[0], wanted[0]) if found and "A" in found[0] else (size[-1], wanted[-1])
    if found and len(size) == len(wanted) and ranks[0] != ranks[1]:
        return (
            f"{name} has rank {ranks[0]} with shape {list(size)}, but by its {CONFIG} rank {ranks[1]} with shape "
            f"{list(wanted)}. One of the two files is another adapter's: use another checkpoint."
        )
    return f"{name} has shape {list(size)}, but on this base {list(wanted)}. Use the base it was trained on."


def _sizes(path: Path) -> Sizes:
    with path.open("rb") as file:
        table = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return {name: tuple(entry["shape"]) for name, entry in table.items() if name != "__metadata__"}
