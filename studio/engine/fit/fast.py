"""What the fast path keeps of each token in a decoder layer, and what its head and loss need, tensor by tensor.

The fast path: rows end to end with attention within each row, LoRA's products fused so that only a layer's input is
kept, fused RMSNorm and SwiGLU, bf16 throughout, and the loss at supervised positions only, in chunks, with its gradient
made in the forward pass. Not here: trl's path (activations, logits).
"""

from __future__ import annotations

from studio.engine.fit.activations import FP32
from studio.engine.fit.blocks import Block, Geometry

WIDTH = 2
"""bf16."""
CHUNK = 256
"""Supervised positions whose logits are there at once."""


def fast_layer(geometry: Geometry, block: Block) -> dict[str, int]:
    """Bytes that one decoder layer keeps of each token, by tensor.

    An input that several layers share is kept once; one that nothing adapted reads is not kept.
    """
    hidden, adapted = geometry.hidden, {layer.leaf for layer in block.linear if layer.name in block.ranks}
    attending = {layer.leaf for layer in block.attending}
    last = {"o_proj", "c_proj", "dense", "out_proj", "down_proj"}
    return {
        "norms: normalised": block.norms * WIDTH * hidden,
        "norms: scale": block.norms * FP32,
        "input of query, key, value": WIDTH * hidden if adapted & attending - last else 0,
        "query": WIDTH * geometry.queries,
        "key and value": WIDTH * 2 * geometry.keys,
        "attention's output, input of the output layer": WIDTH * geometry.queries,
        "log-sum-exp": FP32 * geometry.heads,
        "input of gate and up": WIDTH * hidden if adapted - attending - last else 0,
        "gate and up": WIDTH * 2 * geometry.intermediate,
        "their product, input of down": WIDTH * geometry.intermediate if adapted - attending & last else 0,
    }


def fast_layer_constant(block: Block) -> int:
    """Bytes whatever the batch: bf16 copies of the adapter's factors."""
    layers = [layer for layer in block.linear if layer.name in block.ranks]
    return sum(WIDTH * block.ranks[layer.name] * (layer.inputs + layer.outputs) for layer in layers)


def fast_head(vocabulary: int, hidden: int, tokens: int, supervised: int) -> dict[str, int]:
    """Bytes of the last norm, the head and the loss, by tensor."""
    return {
        "last norm": tokens * (WIDTH * hidden + FP32),
        "hidden states at supervised positions": supervised * WIDTH * hidden,
        "their gradient": supervised * WIDTH * hidden,
        "logits of a chunk": min(supervised, CHUNK) * vocabulary * WIDTH,
        "the same in fp32": min(supervised, CHUNK) * vocabulary * FP32,
        "gradient of a chunk": min(supervised, CHUNK) * vocabulary * WIDTH,
    }
