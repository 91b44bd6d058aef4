"""What the fast path keeps of each token in a decoder layer, and what its head and loss need, tensor by tensor.

The fast path: rows end to end with attention within each row, LoRA's products fused so that only a layer's input is
kept, fused RMSNorm and SwiGLU, one precision throughout (bf16 where the device computes in it), and the loss at
supervised positions only, in chunks, with its gradient made in the forward pass. Not here: trl's path (activations,
logits).
"""

from __future__ import annotations

from studio.engine.fit.activations import FP32
from studio.engine.fit.blocks import Block, Geometry

CHUNK = 256
"""Supervised positions whose logits are there at once."""


def fast_layer(geometry: Geometry, block: Block, width: int) -> dict[str, int]:
    """Bytes that one decoder layer keeps of each token, by tensor.

    width: bytes of a number. An input that several layers share is kept once; one that nothing adapted reads is not.
    """
    hidden, adapted = geometry.hidden, {layer.leaf for layer in block.linear if layer.name in block.ranks}
    attending = {layer.leaf for layer in block.attending}
    last = {"o_proj", "c_proj", "dense", "out_proj", "down_proj"}
    return {
        "norms: normalised": block.norms * width * hidden,
        "norms: scale": block.norms * FP32,
        "input of query, key, value": width * hidden if adapted & attending - last else 0,
        "query": width * geometry.queries,
        "key and value": width * 2 * geometry.keys,
        "attention's output, input of the output layer": width * geometry.queries,
        "log-sum-exp": FP32 * geometry.heads,
        "input of gate and up": width * hidden if adapted - attending - last else 0,
        "gate and up": width * 2 * geometry.intermediate,
        "their product, input of down": width * geometry.intermediate if adapted - attending & last else 0,
    }


def fast_layer_constant(block: Block, width: int) -> int:
    """Bytes whatever the batch: copies of the adapter's fp32 factors in the precision of the products."""
    if width == FP32:
        return 0
    layers = [layer for layer in block.linear if layer.name in block.ranks]
    return sum(width * block.ranks[layer.name] * (layer.inputs + layer.outputs) for layer in layers)


def fast_head(vocabulary: int, hidden: int, tokens: int, supervised: int, width: int) -> dict[str, int]:
    """Bytes of the last norm, the head and the loss, by tensor."""
    return {
        "last norm": tokens * (width * hidden + FP32),
        "hidden states at supervised positions": supervised * width * hidden,
        "their gradient": supervised * width * hidden,
        "logits of a chunk": min(supervised, CHUNK) * vocabulary * width,
        "the same in fp32": min(supervised, CHUNK) * vocabulary * FP32,
        "gradient of a chunk": min(supervised, CHUNK) * vocabulary * width,
    }
