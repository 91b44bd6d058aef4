"""The parameters of the methods that put something beside chosen layers, each as PEFT 0.21 makes them.

Every function takes the method's spec and the layers, and the shapes of the model where more than the layers counts.
Not here: modules that train whole, and heads (parameters), and which layers (targets).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from math import gcd
from typing import Any

from studio.engine.counting.added import Added, trained
from studio.engine.counting.shapes import Layer, Shapes
from studio.engine.counting.targets import fused, input_scaled
from studio.specs import (
    AdaLoraMethod,
    AdamixMethod,
    BoftMethod,
    FourierftMethod,
    HraMethod,
    Ia3Method,
    LohaMethod,
    LokrMethod,
    LoraMethod,
    MissMethod,
    OftMethod,
    RandloraMethod,
    VbloraMethod,
    VeraMethod,
)

DOUBLED = ("pissa", "olora", "corda")
"""Starts that change the base; what they leave is saved as plain LoRA of twice the rank."""
MAX_VECTOR = 256


def lora(method: LoraMethod, layers: Sequence[Layer], shapes: Shapes) -> Added:
    """Fused layers that are split have three A, and a B of three blocks within zeros that are saved too."""
    found = Added(targets=len(layers))
    for layer in layers:
        rank = rank_of(method, layer.name)
        parts = 3 if method.split_fused and fused(layer, shapes) else 1
        pair, zeros = parts * rank * (layer.inputs + layer.outputs), (parts - 1) * rank * layer.outputs
        magnitude = layer.outputs if method.dora else 0
        wide = 2 * pair if method.init in DOUBLED else pair
        found += Added(new=pair - zeros + magnitude, fixed=zeros, saved=wide + magnitude)
    return found + trained(len(set(method.train_tokens)) * shapes.hidden)


def rank_of(method: LoraMethod, name: str) -> int:
    """A layer's own rank: that of the first pattern that ends its name."""
    patterns = method.rank_pattern.items()
    return next((rank for pattern, rank in patterns if re.match(rf"(.*\.)?({pattern})$", name)), method.rank)


def adalora(method: AdaLoraMethod, layers: Sequence[Layer], _: Shapes) -> Added:
    """Every rank has a singular value, every layer a count of its ranks that does not train.

    What is saved is a LoRA of the rank that is left on average: which layers keep how many shows only at the end.
    """
    start = sum(method.init_rank * (layer.inputs + layer.outputs + 1) for layer in layers)
    left = sum(method.rank * (layer.inputs + layer.outputs) for layer in layers)
    return Added(new=start, saved=left, fixed=len(layers), targets=len(layers))


def adamix(method: AdamixMethod, layers: Sequence[Layer], _: Shapes) -> Added:
    """The copies train; their mean is saved."""
    pairs = sum(method.rank * (layer.inputs + layer.outputs) for layer in layers)
    return Added(new=method.copies * pairs, saved=pairs, targets=len(layers))


def loha(method: LohaMethod, layers: Sequence[Layer], _: Shapes) -> Added:
    return trained(sum(2 * method.rank * (layer.inputs + layer.outputs) for layer in layers), len(layers))


def lokr(method: LokrMethod, layers: Sequence[Layer], _: Shapes) -> Added:
    """Both sizes of a weight are split into two factors; a part is whole where low rank would not be smaller."""
    total = 0
    for layer in layers:
        left_in, right_in = factors(layer.inputs, method.decompose_factor)
        left_out, right_out = factors(layer.outputs, method.decompose_factor)
        whole_left = not (method.decompose_both and method.rank < max(left_in, left_out) / 2)
        whole_right = not method.rank < max(right_in, right_out) / 2
        total += left_in * left_out if whole_left else method.rank * (left_in + left_out)
        total += right_in * right_out if whole_right else method.rank * (right_in + right_out)
    return trained(total, len(layers))


def factors(size: int, most: int = -1) -> tuple[int, int]:
    """Two factors of a size, the smaller first: the nearest to each other whose smaller is at most `most`, if given."""
    if most > 0 and size % most == 0:
        return most, size // most
    limit = size if most == -1 else most
    small, large = 1, size
    while small < large:
        step = next(divisor for divisor in range(small + 1, size + 1) if size % divisor == 0)
        if step + size // step > small + large or step > limit:
            break
        small, large = step, size // step
    return min(small, large), max(small, large)


def oft(method: OftMethod, layers: Sequence[Layer], _: Shapes) -> Added:
    """A skew-symmetric matrix for each block of inputs."""
    block = method.block_size * (method.block_size - 1) // 2
    blocks = (1 if method.shared_blocks else layer.inputs // method.block_size for layer in layers)
    return trained(block * sum(blocks), len(layers))


def boft(method: BoftMethod, layers: Sequence[Layer], _: Shapes) -> Added:
    """Blocks over all inputs, once for each butterfly factor, and a scale for each output."""
    each = (method.butterfly_factors * method.block_size * layer.inputs + layer.outputs for layer in layers)
    return trained(sum(each), len(layers))


def vera(method: VeraMethod, layers: Sequence[Layer], _: Shapes) -> Added:
    """Two vectors a layer; the random matrices are as large as the largest layer, and are no parameters."""
    found = trained(sum(layer.outputs + method.rank for layer in layers), len(layers))
    widest = max((layer.inputs for layer in layers), default=0) + max((layer.outputs for layer in layers), default=0)
    return found + Added(saved=method.rank * widest if method.save_projection else 0)


def randlora(method: RandloraMethod, layers: Sequence[Layer], _: Shapes) -> Added:
    """So many bases that their sum has full rank; the random matrices are no parameters."""
    total = 0
    for layer in layers:
        small = min(layer.inputs, layer.outputs)
        total += -(-small // method.rank) * (method.rank + small)
    found = trained(total, len(layers))
    if not method.save_projection or not layers:
        return found
    sides = max(layer.inputs for layer in layers), max(layer.outputs for layer in layers)
    bases = -(-min(sides) // method.rank)
    return found + Added(saved=method.rank * (min(sides) + max(sides) * bases))


def vblora(method: VbloraMethod, layers: Sequence[Layer], _: Shapes) -> Added:
    length = vector_length(method, layers)
    pieces = sum((layer.inputs + layer.outputs) // length for layer in layers)
    return trained(method.num_vectors * (method.rank * pieces + length), len(layers))


def vector_length(method: VbloraMethod, layers: Sequence[Layer]) -> int:
    """As it is set, or the largest up to 256 that divides every size."""
    if method.vector_length is not None:
        return method.vector_length
    common = gcd(*(size for layer in layers for size in (layer.inputs, layer.outputs)))
    return next((length for length in range(min(common, MAX_VECTOR), 0, -1) if common % length == 0), 1)


def fourierft(method: FourierftMethod, layers: Sequence[Layer], _: Shapes) -> Added:
    return trained(method.frequencies * len(layers), len(layers))


def hra(method: HraMethod, layers: Sequence[Layer], _: Shapes) -> Added:
    return trained(sum(method.rank * layer.inputs for layer in layers), len(layers))


def miss(method: MissMethod, layers: Sequence[Layer], _: Shapes) -> Added:
    """mini shares one narrow block along the outputs."""
    if method.shape == "mini":
        return trained(method.rank * method.mini_rank * len(layers), len(layers))
    return trained(sum(method.rank * layer.outputs for layer in layers), len(layers))


def ia3(method: Ia3Method, layers: Sequence[Layer], shapes: Shapes) -> Added:
    """A factor for each output, or, in the last layer of an MLP, for each input."""
    scales_input = input_scaled(shapes)
    each = (layer.inputs if scales_input(layer.name) else layer.outputs for layer in layers)
    return trained(sum(each), len(layers))


TARGETED: Mapping[str, Callable[[Any, Sequence[Layer], Shapes], Added]] = {
    "lora": lora,
    "adalora": adalora,
    "adamix": adamix,
    "loha": loha,
    "lokr": lokr,
    "oft": oft,
    "boft": boft,
    "vera": vera,
    "randlora": randlora,
    "vblora": vblora,
    "fourierft": fourierft,
    "hra": hra,
    "miss": miss,
    "ia3": ia3,
}
