"""What the fast path keeps of each token in a decoder layer, what its head and loss need, and how large its passes are.

The fast path takes all rows of an optimiser step in passes of at most so many tokens, computes attention within each
row, fuses LoRA, RMSNorm and gated MLPs, and has the logits of a few supervised positions at a time, whose gradient is
made in the forward pass. With w bytes of a number, H, Q, K, I and r as in activations, a layer keeps of each token:

    norms        w H + 4 for each RMSNorm: its output and its scale; the output counts as an input of adapted layers
    inputs       w H for query, key and value together, w H for gate and up together, w I for the product of an MLP
                 without gates, or with dropout on it; w r for each adapted layer; a byte of a dropout's mask
    attention    w (Q + K + K + Q) + 4 heads: query, key, value, output, log-sum-exp; on a GPU, or with dropout, all of
                 them as rows lie apart, and w Q more for the output in the order of the tokens
    mlp          2 w I: what comes of gate and up

What is not fused (variants of LoRA, a base of 8 bits, weights of the base that train) keeps what trl's path keeps.
Not here: trl's path (activations, logits).
"""

from __future__ import annotations

from dataclasses import replace

from studio.engine.fast.sizes import BLOCK, CHUNK, TOKENS
from studio.engine.fit.activations import FP32, Arithmetic, Row, plain_layer
from studio.engine.fit.batches import Batch, Rows, largest
from studio.engine.fit.blocks import Block, Geometry
from studio.specs import TrainSpec

_ATTENTION, _MLP = "input of attention", "input of mlp"


def fast_layer(
    geometry: Geometry, block: Block, row: Row, arithmetic: Arithmetic, *, gpu: bool = False
) -> dict[str, int]:
    """Bytes that one decoder layer keeps of each token, by tensor."""
    alone = plain_layer(geometry, block, replace(row, masked=False), arithmetic)
    width = arithmetic.width
    twice = gpu or geometry.attention_dropout
    if not fuses(row, arithmetic, block):
        return alone | ({"output by token": width * geometry.queries} if twice else {})
    inputs = _inputs(geometry, block, row, width, twice=twice)
    read = sum(name in inputs for name in (_ATTENTION, _MLP))
    norms = (block.norms - read) * width * geometry.hidden + block.norms * FP32 if geometry.rms else alone["norms"]
    mlp = 2 * width * geometry.intermediate if geometry.gated else alone["mlp"]
    return {"norms": norms, **inputs, "attention": alone["attention"], "mlp": mlp}


def fuses(row: Row, arithmetic: Arithmetic, block: Block) -> bool:
    """Whether adapted layers are fused: plain LoRA beside weights that are plain or of 4 bits."""
    return not row.dora and arithmetic.packed != "int8" and (not block.ranks or all(block.ranks.values()))


def fast_layer_constant(block: Block, width: int) -> int:
    """Bytes whatever the batch: copies of the adapter's fp32 factors in the precision of the products."""
    if width == FP32:
        return 0
    layers = [layer for layer in block.linear if layer.name in block.ranks]
    return sum(width * block.ranks[layer.name] * (layer.inputs + layer.outputs) for layer in layers)


def fast_head(
    vocabulary: int, hidden: int, tokens: int, supervised: int, width: int, *, gpu: bool = False
) -> dict[str, int]:
    """Bytes of the last norm, the head and the loss, by tensor."""
    positions = min(supervised, CHUNK["cuda" if gpu else "cpu"])
    chunk = positions * vocabulary
    return {
        "last norm": tokens * (width * hidden + FP32),
        "hidden states at supervised positions": supervised * width * hidden,
        "their gradient": supervised * width * hidden,
        "logits of a chunk in fp32": chunk * FP32,
        "exponentials of a part of the vocabulary": positions * min(vocabulary, BLOCK) * FP32,
        "the gradient as it is multiplied": chunk * width if width < FP32 else 0,
    }


def largest_pass(spec: TrainSpec, rows: Rows | None, *, gpu: bool) -> Batch:
    """The largest pass of a run: rows of a step, as many as fit, at least one."""
    training = spec.training
    whole = {"batch_size": training.batch_size * training.accumulation, "accumulation": 1}
    step = largest(spec.model_copy(update={"training": training.model_copy(update=whole)}), rows)
    most = max(TOKENS["cuda" if gpu else "cpu"], step.longest)
    if step.tokens <= most:
        return step
    share = most / step.tokens
    held = max(1, int(step.rows * share))
    return Batch(1, most, held, step.longest, int(step.supervised * share), several=True)


def _inputs(geometry: Geometry, block: Block, row: Row, width: int, *, twice: bool) -> dict[str, int]:
    """Of the layers that are adapted; one input that several share is kept once, one that none of them reads is not.

    twice: attention keeps its output in another order, so that the layer that reads it keeps it again.
    """
    found: dict[str, int] = {}
    for layer in block.linear:
        if layer.name not in block.ranks:
            continue
        attends = layer in block.attending
        back = layer.outputs == geometry.hidden and layer.leaf in ("o_proj", "down_proj", "c_proj", "dense", "out_proj")
        made_again = geometry.gated and layer.leaf == "down_proj" and not row.dropout
        if not made_again and (twice or not (back and attends)):
            found[f"input of {layer.leaf}" if back else _ATTENTION if attends else _MLP] = width * layer.inputs
        found["low-rank products"] = found.get("low-rank products", 0) + width * block.ranks[layer.name]
        found["dropout"] = found.get("dropout", 0) + (layer.inputs if row.dropout else 0)
    return found
