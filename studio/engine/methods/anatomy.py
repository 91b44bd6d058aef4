"""Where the parts of a decoder are found, whatever its architecture calls them.

Not here: which layers a targeted method is put beside (placing).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

from studio.errors import ModelError

_ATTENTION = ("attn", "attention")
_MLP = ("mlp", "feed_forward", "ffn")


def decoder_layers(model: Any) -> tuple[str, nn.ModuleList]:
    """(name, list) of the model's decoder layers, such as `model.layers` or `transformer.h`.

    Raises: ModelError: the model has no such list.
    """
    count = getattr(model.config, "num_hidden_layers", None)
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return name, module
    raise ModelError(f"{type(model).__name__} has no list of {count} decoder layers. Use another method.")


def sublayers(model: Any, *, attention: bool) -> list[str]:
    """Names of the MLPs of all decoder layers and, if asked, of their attentions, in the order of the layers.

    Raises: ModelError: a decoder layer has no such part under a known name.
    """
    prefix, layers = decoder_layers(model)
    wanted = {"MLP": _MLP} | ({"attention": _ATTENTION} if attention else {})
    names = []
    for number, layer in enumerate(layers):
        parts = [name for name, _ in layer.named_children()]
        for what, words in wanted.items():
            # norms carry the words too: post_attention_layernorm
            found = [part for part in parts if part.endswith(words) and "norm" not in part]
            if not found:
                raise ModelError(
                    f"The layers of {type(model).__name__} have no {what} under a known name: {', '.join(parts)}."
                )
            names.append(f"{prefix}.{number}.{found[0]}")
    return names


def norms(model: Any) -> list[str]:
    """Names of the normalisation layers: LayerNorm, and the RMS norms of each architecture by their class's name."""
    return [name for name, module in model.named_modules() if "norm" in type(module).__name__.lower() and _own(module)]


def with_parameters(model: Any, within: str = "") -> Iterator[str]:
    """Names of the outermost modules below a place that hold parameters of their own."""
    held: list[str] = []
    for name, module in model.get_submodule(within).named_modules(prefix=within):
        if name and _own(module) and not any(name.startswith(f"{other}.") for other in held):
            held.append(name)
            yield name


def _own(module: nn.Module) -> bool:
    return next(module.parameters(recurse=False), None) is not None
