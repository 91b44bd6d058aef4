"""Bytes of the base's weights, as they are held while a run trains. Not here: what trains (trained)."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, prod

from studio.engine.counting.shapes import Layer, Shapes
from studio.engine.counting.targets import HEADS
from studio.specs import QuantizationSpec

WIDTH = {"fp32": 4, "bf16": 2, "fp16": 2}
"""Bytes of a number."""
BLOCK = 64
"""Weights that share a constant of NF4 and FP4 (QLoRA, arXiv:2305.14314, section 3)."""
NESTED = 256
"""Constants that share one of their own where these are quantised too."""
CODES, NESTED_CODES = 16 * 4, 256 * 4 + 4
"""Bytes of a layer's table of 4-bit values, and of the table and mean of its quantised constants."""


@dataclass(frozen=True)
class Weights:
    """Bytes by how they are held. plain: not quantised. mapped: of the model's file, which stays in view of a process
    that uses a part of it; the system takes it back when memory is short."""

    plain: int
    quantised: int = 0
    constants: int = 0
    mapped: int = 0

    @property
    def total(self) -> int:
        return self.plain + self.quantised + self.constants


def weights(shapes: Shapes, quantization: QuantizationSpec, dtype: str, *, narrowed: bool = False) -> Weights:
    """Embeddings, the output head, norms and biases are not quantised.

    dtype: of those, and of all where nothing is quantised. narrowed: matrices stay in the 16 bits of their
    file.
    """
    width = WIDTH[dtype]
    if quantization.kind == "none":
        halves = sum(prod(size) for size in shapes.weights.values() if len(size) == 2)
        held = 2 if narrowed and shapes.stored_half else width
        return Weights((shapes.total - halves) * width + halves * held)
    packed = [layer for layer in shapes.linear.values() if layer.name not in HEADS]
    sizes = [layer.inputs * layer.outputs for layer in packed]
    plain, mapped = (shapes.total - sum(sizes)) * width, 0
    if narrowed and shapes.stored_half:
        matrices = sum(prod(size) for size in shapes.weights.values() if len(size) == 2) - sum(sizes)
        plain, mapped = plain - matrices * (width - 2), sum(sizes) * 2
    if quantization.kind == "int8":
        return Weights(plain, sum(sizes), sum(4 * layer.outputs for layer in packed), mapped)
    constants = sum(_constants(size, double=quantization.double) for size in sizes)
    return Weights(plain, sum(ceil(size / 2) for size in sizes), constants, mapped)


def packed_layers(shapes: Shapes) -> list[Layer]:
    """The layers that a quantised base packs."""
    return [layer for layer in shapes.linear.values() if layer.name not in HEADS]


def _constants(size: int, *, double: bool) -> int:
    """Of one layer: an fp32 constant a block, or 8 bits of it and an fp32 constant for 256 of them; and the tables."""
    found = ceil(size / BLOCK)
    if not double:
        return 4 * found + CODES
    return found + 4 * ceil(found / NESTED) + CODES + NESTED_CODES


def linear_numbers(shapes: Shapes) -> int:
    """Numbers in the linear layers of the decoder."""
    return sum(prod((each.inputs, each.outputs)) for each in shapes.linear.values() if each.number is not None)
