"""Which layers of a model a method adapts, by PEFT's rules, from names alone.

A name means the whole name of a layer or its end; a pattern means the whole. Not here: the same choice on a loaded
model (studio.engine.methods.placing), and what is wrong with one (faults).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from studio.engine.counting.shapes import Layer, Shapes, number
from studio.errors import Fault, SpecError
from studio.specs import ALL_LINEAR, ATTENTION

AUTO = "auto"
HEADS = ("lm_head", "embed_out", "score", "classifier")
_ATTENTION = re.compile(r".*\.(self_attn|attn|attention|self_attention)\.[^.]*")

_SCALED = {
    **dict.fromkeys(("llama", "mistral"), ("k_proj", "v_proj", "down_proj")),
    **dict.fromkeys(
        ("llama4", "gemma", "gemma2", "gemma3_text", "qwen2", "qwen3"),
        ("q_proj", "v_proj", "down_proj"),
    ),
    **dict.fromkeys(("gpt2", "gpt_bigcode"), ("c_attn", "mlp.c_proj")),
    "bloom": ("query_key_value", "mlp.dense_4h_to_h"),
    **dict.fromkeys(("gpt_neox", "falcon", "RefinedWeb", "RefinedWebModel"), ("query_key_value", "dense_4h_to_h")),
    "opt": ("q_proj", "k_proj", "fc2"),
    "phi": ("q_proj", "v_proj", "fc2"),
    "gptj": ("q_proj", "v_proj", "fc_out"),
    "gpt_neo": ("q_proj", "v_proj", "c_proj"),
}
"""PEFT's own choice for (IA)³, by the type of the model. The last of each is a layer whose input is scaled."""
_LAST_OF_MLP = ("down_proj", "fc2", "w2", "mlp.c_proj", "dense_4h_to_h", "fc_out", "wo")
"""That layer where PEFT does not know the type."""


_FUSED = {"gpt2": "c_attn", "openai-gpt": "c_attn", "phi3": "qkv_proj"}
"""The layer that holds query, key and value, by the type of the model."""


def chosen(method: Any, shapes: Shapes) -> list[Layer]:
    """The layers that a targeted method adapts, in the model's order."""
    excluded = left_out(method)
    return [layer for layer in named(method.target_modules, shapes) if not excluded(layer.name)]


def named(words: Iterable[str], shapes: Shapes) -> list[Layer]:
    """The layers that words of target_modules mean. Raises: SpecError: auto on a model that it is not known for."""
    words = list(words)
    if words == [AUTO]:
        words = list(scaled(shapes))
    if words in ([ALL_LINEAR], [ATTENTION]):
        layers = [layer for layer in shapes.linear.values() if layer.name not in HEADS]
        return layers if words == [ALL_LINEAR] else [layer for layer in layers if _ATTENTION.fullmatch(layer.name)]
    means = meaning(words)
    return [layer for layer in shapes.linear.values() if means(layer.name)]


def scaled(shapes: Shapes) -> tuple[str, ...]:
    """What auto means for a model. Raises: SpecError."""
    found = _SCALED.get(shapes.kind)
    if found is None:
        reason = f"auto is not known for models of the type {shapes.kind}. Name the layers, or write attention."
        raise SpecError([Fault("method.target_modules", reason)])
    return found


def input_scaled(shapes: Shapes) -> Callable[[str], bool]:
    """Whether (IA)³ scales a layer's input, not its output: name -> bool."""
    known = _SCALED.get(shapes.kind)
    return meaning(known[-1:] if known else _LAST_OF_MLP)


def left_out(method: Any) -> Callable[[str], bool]:
    """Whether a layer is none of the method's though target_modules names it: name -> bool."""
    excluded, numbers, whole = meaning(method.exclude_modules), frozenset(method.layers), method.modules_to_save

    def excludes(name: str) -> bool:
        return (bool(numbers) and number(name) not in numbers) or excluded(name) or any(within(w, name) for w in whole)

    return excludes


def meaning(words: Iterable[str]) -> Callable[[str], bool]:
    """Whether one of the words means a layer: name -> bool. A word that begins with re: is a pattern."""
    words = list(words)
    patterns = [re.compile(word.removeprefix("re:")) for word in words if word.startswith("re:")]
    names = {word for word in words if not word.startswith("re:")}
    ends = tuple(f".{name}" for name in names)

    def means(name: str) -> bool:
        return name in names or name.endswith(ends) or any(pattern.fullmatch(name) for pattern in patterns)

    return means


def within(word: str, name: str) -> bool:
    """Whether a layer is, or is part of, a module that modules_to_save names."""
    return f".{word}." in f".{name}."


def whole(words: Iterable[str], shapes: Shapes) -> list[str]:
    """The modules that modules_to_save names: those whose name ends so."""
    ends = tuple(words)
    return [name for name in shapes.modules if ends and name.endswith(ends)]


def fused(layer: Layer, shapes: Shapes) -> bool:
    """Whether a layer writes query, key and value one after another; other models mix them, head by head."""
    return layer.leaf == _FUSED.get(shapes.kind)
