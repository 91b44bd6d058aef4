"""What a model is made of, by names and sizes, read from its folder without loading a weight.

Not here: what a tuning method makes of it (targets, parameters), and fetching a model (studio.engine.models.resolve).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from math import prod
from pathlib import Path
from typing import Any

from studio.engine.counting.packed import Sizes, unpacked
from studio.engine.models import resolve
from studio.engine.models.tokenizer import NotHere
from studio.errors import ModelError

HEAD, SCORE = "lm_head", "score"
"""The output head of models that write, and of models that classify."""

TRANSPOSED = frozenset({"gpt2", "openai-gpt"})
"""Model types whose linear layers are Conv1D: the weight is (inputs, outputs)."""

_EMBEDDINGS = frozenset(
    {"embed_tokens", "wte", "wpe", "word_embeddings", "embed_in", "embed_positions", "tokens_embed", "positions_embed"}
)
_INPUTS = ("embed_tokens", "wte", "word_embeddings", "embed_in", "tokens_embed")
_PREFIXES = {"gpt_neox": "gpt_neox", "opt": "model"} | dict.fromkeys(
    ("gpt2", "openai-gpt", "bloom", "falcon", "gptj", "gpt_neo", "codegen", "mpt"), "transformer"
)
_BUFFERS = re.compile(r"(^|\.)((attn|attention)\.(masked_)?bias|rotary_emb\.inv_freq)$")
_NUMBER = re.compile(r".*?\.[^.]*\.(\d+)\.")
"""Finds the number of the decoder layer that a module stands in, as PEFT does."""


@dataclass(frozen=True)
class Layer:
    """A linear layer, or an embedding, by the whole name of its module."""

    name: str
    inputs: int
    outputs: int
    bias: bool = False
    transposed: bool = False
    embedding: bool = False

    @property
    def leaf(self) -> str:
        return self.name.rpartition(".")[2]

    @property
    def number(self) -> int | None:
        """Of the decoder layer that it stands in."""
        return number(self.name)


@dataclass(frozen=True)
class Shapes:
    """A model's weights by name, in the order of its modules, each once: a tied head is not among them.

    label: the model as the user knows it. kind: its architecture, such as llama. tied: the head is the embedding.
    """

    label: str
    kind: str
    config: Mapping[str, Any]
    weights: Sizes
    tied: bool

    @property
    def total(self) -> int:
        return sum(prod(size) for size in self.weights.values())

    @cached_property
    def modules(self) -> tuple[str, ...]:
        """Names of all modules that hold a weight, themselves or in a part of theirs, and of a tied head."""
        names: dict[str, None] = {}
        for weight in [*self.weights, *([f"{HEAD}.weight"] if self.tied else [])]:
            parts = weight.split(".")[:-1]
            names.update((".".join(parts[: end + 1]), None) for end in range(len(parts)))
        return tuple(names)

    @cached_property
    def linear(self) -> Mapping[str, Layer]:
        """All linear layers, the output head among them."""
        found = {name: self._layer(name, size) for name, size in self._matrices() if not self._embeds(name)}
        if self.tied:
            rows, columns = self.weights[f"{self.embedding.name}.weight"]
            found[HEAD] = Layer(HEAD, columns, rows)
        return found

    @cached_property
    def embedding(self) -> Layer:
        """That of the input tokens. Raises: ModelError: none is known."""
        for name, (rows, columns) in self._matrices():
            if name.rpartition(".")[2] in _INPUTS:
                return Layer(name, rows, columns, embedding=True)
        raise unknown_before_loading(self.label, "none of its weights is known as the embedding of tokens")

    @property
    def stored_half(self) -> bool:
        """Whether its linear layers are published in 16 bits, as its config says, and are torch's own."""
        return self.kind not in TRANSPOSED and str(self.config.get("dtype", self.config.get("torch_dtype"))) in (
            "bfloat16",
            "float16",
        )

    @property
    def head(self) -> str | None:
        """The name of the output head."""
        return next((name for name in (HEAD, SCORE, "embed_out") if name in self.linear), None)

    @cached_property
    def norms(self) -> tuple[str, ...]:
        """The normalisation layers: their weight is a vector."""
        vectors = (name for name, size in self.weights.items() if len(size) == 1 and name.endswith(".weight"))
        return tuple(name.removesuffix(".weight") for name in vectors)

    @cached_property
    def hidden(self) -> int:
        return self.embedding.outputs

    @cached_property
    def layers(self) -> int:
        """How many decoder layers there are."""
        return len({at for name in self.modules if (at := number(f"{name}.")) is not None})

    def inside(self, module: str) -> dict[str, tuple[int, ...]]:
        """The weights of a module and of its parts."""
        if self.tied and module == HEAD:
            return {f"{HEAD}.weight": self.weights[f"{self.embedding.name}.weight"]}
        return {name: size for name, size in self.weights.items() if name.startswith(f"{module}.")}

    def with_labels(self, labels: int, *, bias: bool = False) -> Shapes:
        """The same with a head that classifies instead of one that writes."""
        weights = {name: size for name, size in self.weights.items() if not name.startswith((f"{HEAD}.", "embed_out."))}
        weights[f"{SCORE}.weight"] = (labels, self.hidden)
        if bias:
            weights[f"{SCORE}.bias"] = (labels,)
        return replace(self, weights=weights, tied=False)

    def _matrices(self) -> Iterable[tuple[str, tuple[int, ...]]]:
        for name, size in self.weights.items():
            if len(size) == 2 and name.endswith(".weight"):
                yield name.removesuffix(".weight"), size

    def _embeds(self, name: str) -> bool:
        return name.rpartition(".")[2] in _EMBEDDINGS

    def _layer(self, name: str, size: tuple[int, ...]) -> Layer:
        transposed = self.kind in TRANSPOSED and name not in (HEAD, SCORE)
        inputs, outputs = size if transposed else size[::-1]
        return Layer(name, inputs, outputs, f"{name}.bias" in self.weights, transposed)


def number(name: str) -> int | None:
    """The number of the decoder layer that a module stands in; None outside of them."""
    found = _NUMBER.match(name)
    return int(found[1]) if found else None


def shapes_of(model: str) -> Shapes:
    """The shapes of a model as it lies here; those of the bundled one are known without it.

    Raises: NotHere: it does not lie here. ModelError: its files are wrong, or tell too little.
    """
    from studio.engine.counting import bundled

    found = resolve.peek(model)
    if not found.where and found.kind == "bundled":
        return bundled.shapes()
    if not found.where:
        raise NotHere(model, found.kind)
    folder = Path(found.where)
    files = resolve.weight_files(folder)
    return _read(model, folder, tuple(_modified(path) for path in (folder / "config.json", *files)))


def unknown_before_loading(label: str, reason: str) -> ModelError:
    return ModelError(
        f"How many parameters train on {label} is not known before it is loaded: {reason}. The run will tell."
    )


def _modified(path: Path) -> int:
    return path.stat().st_mtime_ns if path.is_file() else 0


@lru_cache(maxsize=8)
def _read(model: str, folder: Path, modified: tuple[int, ...]) -> Shapes:
    """modified: of its config and weights, so that changed ones are read anew."""
    config = _json(folder / "config.json")
    header: dict[str, tuple[int, ...]] = {}
    for path in resolve.weight_files(folder):
        header |= _sizes(path)
    return from_header(model, config, header)


def from_header(label: str, config: Mapping[str, Any], header: Sizes) -> Shapes:
    """Shapes from a config and the tensors of the weight files.

    Raises: ModelError: of models of several parts, of experts, or packed in an unknown way, the files tell too little.
    """
    kind = str(config.get("model_type", ""))
    if any(isinstance(config.get(part), Mapping) for part in ("text_config", "vision_config", "audio_config")):
        raise unknown_before_loading(label, "it is put together from several models")
    if any(config.get(key) for key in ("num_experts", "num_local_experts", "n_routed_experts")):
        raise unknown_before_loading(label, "its layers hold experts, which are arranged anew when it is loaded")
    weights = {name: size for name, size in header.items() if not _BUFFERS.search(name)}
    if reason := unpacked(weights, config):
        raise unknown_before_loading(label, reason)
    weights = _named(weights, _PREFIXES.get(kind, "model"))
    has_head = f"{HEAD}.weight" in weights or "embed_out.weight" in weights
    tied = bool(config.get("tie_word_embeddings", not has_head))
    if tied:
        weights.pop(f"{HEAD}.weight", None)
    found = Shapes(label, kind, config, weights, tied)
    if not found.layers:
        raise unknown_before_loading(label, "its decoder layers are not numbered in the usual way")
    return replace(found, weights=dict(sorted(weights.items(), key=lambda entry: _order(found, entry[0]))))


def _order(shapes: Shapes, name: str) -> tuple[int, int, str]:
    """Embeddings, then the decoder layers by number, then what is above them."""
    at = number(name)
    if at is not None:
        return 1, at, ""
    return (0 if name.split(".")[-2] in _EMBEDDINGS else 2), 0, ""


def _named(weights: Sizes, prefix: str) -> dict[str, tuple[int, ...]]:
    """Names as the model with its head has them: files saved without the head lack the first part."""
    if any(name.startswith(f"{prefix}.") for name in weights):
        return dict(weights)
    heads = (HEAD, SCORE, "embed_out")
    return {name if name.split(".")[0] in heads else f"{prefix}.{name}": size for name, size in weights.items()}


def _sizes(path: Path) -> dict[str, tuple[int, ...]]:
    """A safetensors file's tensors. Layout: u64 length, little-endian, then a JSON table."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > min(path.stat().st_size, 100 << 20):
                raise ValueError("its header is longer than the file")
            table = json.loads(file.read(length))
        return {name: tuple(entry["shape"]) for name, entry in table.items() if name != "__metadata__"}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(f"{path} is damaged or cut short: {error}. Download the model again.") from error


def _json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} cannot be read: {error}. Download the model again.") from error
    if not isinstance(values, dict):
        raise ModelError(f"{path} does not hold a JSON object. Download the model again.")
    return values
