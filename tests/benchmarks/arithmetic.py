"""The floor: how much arithmetic a LoRA job takes, whoever does it, and the shapes in which it comes.

For T tokens and S supervised positions, with P weights in linear layers and p in the adapter's matrices, in FLOPs:

    linear layers   2 P T forward, 2 P T for the gradients of their inputs; none for weights, which are frozen
    adapter         2 p T forward, 4 p T backward
    head            2 V H S forward, 2 V H S backward: only positions that carry loss need it
    attention       2 L² D forward, 4 L² D backward in each layer for a row of L tokens: scores and values of D = heads
                    times head_dim, half of the square because it is causal

Norms, activations, softmax and the optimiser are left out: they move memory, and are no matrix products. So is what
the first layer saves because the embeddings need no gradient. Not here: how fast this machine multiplies (gemm_rate).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Shapes:
    """A dense decoder of the llama or qwen2 family. linear: (outputs, inputs) of each linear layer of one block."""

    linear: tuple[tuple[int, int], ...]
    layers: int
    attention: int
    hidden: int
    vocabulary: int

    def forward_of_linear(self) -> int:
        """FLOPs a token."""
        return 2 * self.layers * sum(outputs * inputs for outputs, inputs in self.linear)

    def forward_of_adapter(self, rank: int) -> int:
        """FLOPs a token."""
        return 2 * self.layers * sum(rank * (outputs + inputs) for outputs, inputs in self.linear)


def shapes_of(model: Path) -> Shapes:
    """From the config.json in a model's folder."""
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    hidden, wide, heads = (config[name] for name in ("hidden_size", "intermediate_size", "num_attention_heads"))
    head = config.get("head_dim") or hidden // heads
    queries, keys = heads * head, config["num_key_value_heads"] * head
    linear = ((queries, hidden), (keys, hidden), (keys, hidden), (hidden, queries))
    linear += ((wide, hidden), (wide, hidden), (hidden, wide))
    return Shapes(linear, config["num_hidden_layers"], queries, hidden, config["vocab_size"])


def flops(shapes: Shapes, rows: Iterable[tuple[int, int]], *, rank: int) -> dict[str, int]:
    """FLOPs of training on the rows once, by part. rows: (tokens, supervised tokens) of each."""
    rows = list(rows)
    tokens, supervised = (sum(column) for column in zip(*rows, strict=True))
    square = sum(length**2 for length, _ in rows)
    return {
        "linear": 2 * shapes.forward_of_linear() * tokens,
        "adapter": 3 * shapes.forward_of_adapter(rank) * tokens,
        "head": 4 * shapes.vocabulary * shapes.hidden * supervised,
        "attention": 6 * square * shapes.attention * shapes.layers,
    }
