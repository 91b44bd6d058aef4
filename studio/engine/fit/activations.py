"""What the forward pass of trl's path keeps for the backward pass, tensor by tensor. Not here: the fast path (fast).

Read off the tensors that autograd saves in transformers 5.23 and PEFT 0.21. With w bytes of a number in the arithmetic
(2 in bf16 and fp16, 4 in fp32), H the hidden size, Q and K the numbers of all query and key heads, I the width of the
MLP, r a layer's rank and T the tokens of the sequence, a decoder layer keeps of each token:

    norms        4 H + 4 for each RMSNorm, which works on an fp32 copy; b H + 4 for a LayerNorm, b bytes of the base
    inputs       of each adapted layer w inputs + w r: under autocast PEFT casts the input anew for each of them;
                 without it layers with the same input share it, and attention's and the MLP's own output is kept anyway
    attention    w (Q + K + K + Q) + 4 heads: query, key, value, output, log-sum-exp; key and value repeated to Q where
                 a mask keeps rows apart, and that mask of w T; with dropout three times heads x T probabilities in fp32
    mlp          3 w I: the activation's input and output, and what it is multiplied with; 4 w I for GPT-2's GELU
    8-bit base   w (2 H + I) under autocast: bitsandbytes (0.50) keeps the input of each product, which layers with the
                 same one share; in fp32 it is the one that the adapter keeps

With gradient checkpointing a layer keeps its input, b H, and is computed again when its turn comes.
"""

from __future__ import annotations

from dataclasses import dataclass

from studio.engine.counting.shapes import Layer
from studio.engine.fit.blocks import Block, Geometry
from studio.specs import TrainSpec

FP32 = 4


@dataclass(frozen=True)
class Arithmetic:
    """width: bytes of a number in the products. base: bytes of one that is handed from layer to layer. packed: how the
    base is quantised, or none."""

    width: int
    base: int
    packed: str = "none"

    @property
    def mixed(self) -> bool:
        """Products are in another precision than what trains, so that their inputs are cast."""
        return self.width < FP32

    @property
    def casts_weights(self) -> bool:
        """The base is wider than the products, so that its weights are cast too."""
        return self.mixed and self.base == FP32 and self.packed == "none"


@dataclass(frozen=True)
class Row:
    """What of a method and a batch counts in a layer. context: tokens of a sequence. masked: rows of it, or padding,
    are kept apart by a mask. dropout: of the adapter's input. dora: magnitudes are learned apart."""

    context: int
    masked: bool
    dropout: bool = False
    dora: bool = False


def plain_layer(geometry: Geometry, block: Block, row: Row, arithmetic: Arithmetic) -> dict[str, int]:
    """Bytes that one decoder layer keeps of each token, by tensor."""
    inputs = _inputs(block, row, arithmetic)
    return {
        "norms": _norms(geometry, block, arithmetic),
        **{f"input of {name}": size for name, size in inputs.items()},
        **_attention(geometry, row, arithmetic),
        "mlp": (3 if geometry.gated else 4) * geometry.intermediate * arithmetic.width,
        "8-bit products": arithmetic.width * (2 * geometry.hidden + geometry.intermediate)
        if arithmetic.packed == "int8" and arithmetic.mixed
        else 0,
    }


def layer_constant(block: Block, arithmetic: Arithmetic) -> int:
    """Bytes that a layer keeps whatever the batch: copies in the precision of the products."""
    width, found = arithmetic.width, 0
    if arithmetic.casts_weights:
        found += sum(width * layer.inputs * layer.outputs for layer in block.linear)
    for layer, rank in _adapted(block):
        found += width * rank * (layer.inputs + layer.outputs) if arithmetic.mixed else 0
    return found


def kept_input(geometry: Geometry, arithmetic: Arithmetic) -> int:
    """Bytes of each token that a layer keeps under gradient checkpointing."""
    return geometry.hidden * arithmetic.base


def _norms(geometry: Geometry, block: Block, arithmetic: Arithmetic) -> int:
    each = (FP32 if geometry.rms else arithmetic.base) * geometry.hidden + FP32
    if _whole(block):  # its weight trains, so what it is multiplied with is kept too
        each += FP32 * geometry.hidden
    return block.norms * each


def _inputs(block: Block, row: Row, arithmetic: Arithmetic) -> dict[str, int]:
    found, shared = {}, set()
    for layer, rank in _adapted(block):
        size = arithmetic.width * rank
        own = arithmetic.mixed and (rank > 0 or not _writes_back(layer, block))
        source = "out" if _writes_back(layer, block) else "mlp" if layer not in block.attending else "attention"
        if own:
            size += arithmetic.width * layer.inputs
        elif source not in shared and not (layer in block.attending and source == "out"):
            shared.add(source)
            size += arithmetic.width * layer.inputs
        size += FP32 * layer.inputs if row.dropout and rank else 0
        size += 2 * arithmetic.width * layer.outputs if row.dora else 0
        found[layer.leaf] = found.get(layer.leaf, 0) + size
    return found


def _attention(geometry: Geometry, row: Row, arithmetic: Arithmetic) -> dict[str, int]:
    width, queries = arithmetic.width, geometry.queries
    if geometry.attention_dropout:
        probabilities = 3 * FP32 * geometry.heads * row.context
        return {"attention": 3 * FP32 * queries + probabilities, "residual dropout": 2 * width * geometry.hidden}
    keys = queries if row.masked else geometry.keys
    kept = width * (2 * queries + 2 * keys) + FP32 * geometry.heads
    return {"attention": kept, "mask": width * row.context if row.masked else 0}


def _adapted(block: Block) -> list[tuple[Layer, int]]:
    return [(layer, block.ranks[layer.name]) for layer in block.linear if layer.name in block.ranks]


def _whole(block: Block) -> bool:
    """Whether all of the layer trains."""
    return bool(block.ranks) and not any(block.ranks.values())


def _writes_back(layer: Layer, block: Block) -> bool:
    """Whether its input is what attention or the MLP gave, which is kept anyway; it is the last of its kind."""
    group = [each for each in block.linear if (each in block.attending) == (layer in block.attending)]
    return layer == _last(group)


def _last(group: list[Layer]) -> Layer:
    named = ("o_proj", "c_proj", "dense", "out_proj", "down_proj", "fc2", "dense_4h_to_h")
    return next((each for each in group if each.leaf in named), group[-1])


def row_of(spec: TrainSpec, *, context: int, rows: int) -> Row:
    """rows: that share a batch; one alone needs no mask."""
    method = spec.method
    dropout, dora = getattr(method, "dropout", 0.0) > 0, bool(getattr(method, "dora", False))
    return Row(context, rows > 1, dropout, dora)
