"""Which layers of a model a method is put beside, and what is wrong with a choice of them.

Not here: any one method, and the same question before a model is loaded (studio.engine.counting).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

from studio.engine.methods.tuning import attention_pattern
from studio.errors import Fault, SpecError
from studio.specs import ALL_LINEAR, ATTENTION

LINEAR: tuple[type, ...] = (nn.Linear,)
"""Layers that every targeted method knows; bitsandbytes' layers are linear ones too."""
LINEAR_AND_CONV1D: tuple[type, ...] = (nn.Linear, Conv1D)
"""GPT-2 writes its linear layers as Conv1D."""
_HEADS = ("score", "classifier")
_LAYER = re.compile(r".*?\.[^.]*\.(\d+)\.")


def placed(method: Any, model: Any, kinds: tuple[type, ...] = LINEAR_AND_CONV1D) -> dict[str, Any]:
    """target_modules and modules_to_save of a targeted method, as every PEFT config takes them.

    kinds: the layers that the method can adapt. The names are resolved here, by PEFT's own rules, so that all methods
    choose alike and a name that stands for nothing is told.
    Raises: SpecError: names, numbers or kinds of layers that this model does not have.
    """
    layers = chosen(method, model, kinds)
    return {"target_modules": names_of(layers, model), "modules_to_save": list(method.modules_to_save) or None}


def chosen(method: Any, model: Any, kinds: tuple[type, ...] = LINEAR_AND_CONV1D) -> dict[str, nn.Module]:
    """The layers that a targeted method adapts, by name. Raises: as placed."""
    modules = {name: module for name, module in model.named_modules() if name}
    faults = list(_unknown(method, model, modules))
    if faults:
        raise SpecError(faults)
    matching = _by_words(method.target_modules, model, modules)
    kept = {name: modules[name] for name in matching if not _left_out(method, name)}
    if not kept:
        raise SpecError([Fault("method.target_modules", "leaves no layer to adapt. Name others, or exclude fewer.")])
    for name, module in kept.items():
        if not isinstance(module, kinds):
            raise SpecError([Fault("method.target_modules", _wrong_kind(method, name, module))])
    return kept


def linear_layers(model: Any) -> list[str]:
    """Every linear layer but the head that writes text or classifies."""
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, LINEAR_AND_CONV1D) and module is not head and name not in _HEADS
    ]


def names_of(layers: Mapping[str, nn.Module], model: Any) -> list[str]:
    """target_modules for these very layers: the last parts of their names where no others have these, else whole names.

    So an adapter's config stays readable.
    """
    ends = sorted({name.rpartition(".")[2] for name in layers})
    meant = {name for name, _ in model.named_modules() if any(_means(end, name) for end in ends)}
    return ends if meant == set(layers) else list(layers)


def sizes(layers: Mapping[str, nn.Module]) -> list[tuple[int, int]]:
    """(in, out) of each layer."""
    return [
        (layer.in_features, layer.out_features) if isinstance(layer, nn.Linear) else tuple(layer.weight.shape)
        for layer in layers.values()
    ]


def turned_round(layers: Mapping[str, nn.Module]) -> bool:
    """Whether most of the layers keep their weight as (in, out); PEFT looks at each, but warns where this is wrong."""
    return 2 * sum(isinstance(layer, Conv1D) for layer in layers.values()) > len(layers)


def _by_words(words: Sequence[str], model: Any, modules: Mapping[str, nn.Module]) -> list[str]:
    if words[0] in (ALL_LINEAR, ATTENTION):
        names = linear_layers(model)
        return names if words[0] == ALL_LINEAR else [n for n in names if re.fullmatch(attention_pattern(model), n)]
    return [name for name in modules if any(_means(word, name) for word in words)]


def _means(word: str, name: str) -> bool:
    """As PEFT matches: a name is a whole name or its end; a pattern is the whole of it."""
    if word.startswith("re:"):
        return re.fullmatch(word.removeprefix("re:"), name) is not None
    return name == word or name.endswith(f".{word}")


def _left_out(method: Any, name: str) -> bool:
    number = layer_number(name)
    return (
        any(_means(word, name) for word in method.exclude_modules)
        or any(_within(word, name) for word in method.modules_to_save)
        or (bool(method.layers) and number not in method.layers)
    )


def layer_number(name: str) -> int | None:
    """The decoder layer that a module is part of."""
    found = _LAYER.match(name)
    return int(found[1]) if found else None


def _within(word: str, name: str) -> bool:
    return f".{word}." in f".{name}."


def _unknown(method: Any, model: Any, modules: Mapping[str, nn.Module]) -> Iterator[Fault]:
    ends = {name.rpartition(".")[2] for name, module in modules.items() if not list(module.children())}
    for field in ("target_modules", "exclude_modules", "modules_to_save"):
        for word in getattr(method, field):
            if word in (ALL_LINEAR, ATTENTION) and field == "target_modules":
                continue
            try:
                means = _within if field == "modules_to_save" else _means
                found = any(means(word, name) for name in modules)
            except re.error as error:
                yield Fault(f"method.{field}", f"'{word}' is no regular expression: {error}.")
                continue
            if not found:
                yield Fault(f"method.{field}", _nothing(word, ends))
    last = max((number for name in modules if (number := layer_number(f"{name}.")) is not None), default=-1)
    if wrong := [number for number in method.layers if number > last]:
        yield Fault("method.layers", f"names layer {wrong[0]}, but the last layer of this model is {last}.")


def _nothing(word: str, ends: set[str]) -> str:
    known = sorted(end for end in ends if not end.isdigit())
    near = difflib.get_close_matches(word.rpartition(".")[2], known, n=1)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return f"'{word}' names no layer of this model.{hint} Layers: {', '.join(known[:20])}."


def _wrong_kind(method: Any, name: str, module: nn.Module) -> str:
    kind = type(module).__name__
    if kind == "Conv1D":
        return f"holds {name}, which is a Conv1D layer, and {method.kind} cannot adapt these. Use lora, vera or ia3."
    return f"holds {name}, which is a {kind} and no linear layer. Leave it out, or train it by modules_to_save."
