"""Every part of a run's memory, in bytes. Not here: whether it fits (estimate), and how to make it (changes)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

from studio.engine.counting.parameters import Count
from studio.engine.fast.rules import ruled_out
from studio.engine.fit.activations import FP32, Arithmetic, Row, kept_input, layer_constant, plain_layer, row_of
from studio.engine.fit.batches import Batch
from studio.engine.fit.blocks import Block, Geometry, Model
from studio.engine.fit.fast import fast_head, fast_layer, fast_layer_constant, fuses
from studio.engine.fit.logits import HEADLESS, logits
from studio.engine.fit.process import process
from studio.engine.fit.trained import trained
from studio.engine.fit.weights import WIDTH, linear_numbers, weights
from studio.specs import TrainSpec


@dataclass(frozen=True)
class Parts:
    """Bytes on the device that trains, at the worst moment of a step.

    Beside them, what a process on a CPU takes where memory is free. mapped: of the model's file, which stays in view
    and the system may take back. unpacked: the weights of a 4-bit base, for as long as sample answers take.
    """

    weights: int
    adapter: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    process: int
    mapped: int = 0
    unpacked: int = 0

    @property
    def needed(self) -> int:
        """All that it cannot do without."""
        return sum(getattr(self, name) for name in self.names())

    @property
    def resident(self) -> int:
        """What the process will show as its peak, where memory is free."""
        answering = self.weights + self.adapter + self.optimizer + self.process + self.unpacked
        return max(self.needed, answering) + self.mapped

    @staticmethod
    def names() -> tuple[str, ...]:
        return tuple(each.name for each in fields(Parts) if each.name not in ("mapped", "unpacked"))


@dataclass(frozen=True)
class Setting:
    """How a run will be worked: what "auto" became, and where."""

    dtype: str
    precision: str
    optimizer: str
    checkpointing: bool
    gpu: bool
    fast: bool
    narrowed: bool = False


def takes_fast_path(spec: TrainSpec, precisions: Iterable[str] = ()) -> bool:
    """Whether a run trains by the fast path, as far as its spec tells. precisions: of its weights and arithmetic."""
    return not any(ruled_out(spec, precisions))


def parts(spec: TrainSpec, model: Model, count: Count, batch: Batch, setting: Setting) -> Parts:
    """All parts of a run's memory."""
    total, width = model.shapes.total, WIDTH[setting.dtype]
    base = weights(model.shapes, spec.quantization, setting.dtype, narrowed=setting.narrowed)
    trains = trained(spec, count, base=total, base_width=width, optimizer=setting.optimizer)
    work = (_fast if setting.fast else _plain)(spec, model, batch, setting)
    return Parts(
        weights=base.total,
        adapter=trains.adapter,
        gradients=_gradients(batch, trains.gradients, work),
        optimizer=trains.optimizer,
        activations=work.activations,
        logits=work.head,
        process=process(work.activations, work.made, gpu=setting.gpu, fast=setting.fast, packed=spec.quantization.kind),
        mapped=base.mapped,
        unpacked=_unpacked(spec, model, setting),
    )


@dataclass(frozen=True)
class Work:
    """Bytes of a forward and a backward pass. activations: there at once. made: of all layers, recomputed or not."""

    activations: int
    head: int
    made: int


def _plain(spec: TrainSpec, model: Model, batch: Batch, setting: Setting) -> Work:
    """trl's path."""
    shapes, arithmetic = model.shapes, _arithmetic(spec, setting)
    row = row_of(spec, context=batch.length, rows=batch.rows)
    layers = [_plain_bytes(model.geometry, block, row, arithmetic, batch.tokens) for block in model.blocks]
    head = logits(
        spec,
        batch,
        vocabulary=shapes.embedding.inputs,
        hidden=shapes.hidden,
        width=arithmetic.width,
        triton=setting.gpu,
        trains_head=spec.method.kind == "full" and spec.stage.kind not in HEADLESS,
    )
    kept = batch.tokens * kept_input(model.geometry, arithmetic)
    return _together(layers, kept, head, checkpointing=setting.checkpointing)


def _fast(spec: TrainSpec, model: Model, batch: Batch, setting: Setting) -> Work:
    shapes, arithmetic = model.shapes, _arithmetic(spec, setting)
    row = row_of(spec, context=batch.longest, rows=batch.rows)
    layers = [
        _fast_bytes(model.geometry, block, row, arithmetic, batch.tokens, gpu=setting.gpu) for block in model.blocks
    ]
    width = arithmetic.width
    sizes = (shapes.embedding.inputs, shapes.hidden, batch.tokens, batch.supervised, width)
    head = sum(fast_head(*sizes, gpu=setting.gpu).values())
    if spec.method.kind == "full":
        head += shapes.embedding.inputs * shapes.hidden * FP32
    kept = batch.tokens * kept_input(model.geometry, arithmetic)
    return _together(layers, kept, head, checkpointing=setting.checkpointing)


def _together(layers: list[int], kept: int, head: int, *, checkpointing: bool) -> Work:
    """The worst moment: at the head all that is kept is there, and later one layer's gradients, and, where layers are
    computed again, its activations. By then the logits are gone, so only what that needs beyond them counts."""
    largest, made = max(layers), sum(layers)
    if checkpointing:
        return Work(len(layers) * kept + max(0, 2 * largest - head), head, made)
    return Work(made + max(0, largest - head), head, made)


def _plain_bytes(shape: Geometry, block: Block, row: Row, arithmetic: Arithmetic, tokens: int) -> int:
    return tokens * sum(plain_layer(shape, block, row, arithmetic).values()) + layer_constant(block, arithmetic)


def _fast_bytes(shape: Geometry, block: Block, row: Row, arithmetic: Arithmetic, tokens: int, *, gpu: bool) -> int:
    fused = fuses(row, arithmetic, block)
    constant = fast_layer_constant(block, arithmetic.width) if fused else layer_constant(block, arithmetic)
    return tokens * sum(fast_layer(shape, block, row, arithmetic, gpu=gpu).values()) + constant


def _unpacked(spec: TrainSpec, model: Model, setting: Setting) -> int:
    if setting.gpu or spec.quantization.kind not in ("nf4", "fp4") or not spec.evaluation.prompts:
        return 0
    return WIDTH[setting.precision] * linear_numbers(model.shapes)


def _gradients(batch: Batch, whole: int, work: Work) -> int:
    """They grow while activations go; where a step takes several batches, those of the earlier ones are there."""
    return whole if batch.several else max(0, whole - work.activations - work.head)


def _arithmetic(spec: TrainSpec, setting: Setting) -> Arithmetic:
    return Arithmetic(WIDTH[setting.precision], WIDTH[setting.dtype], spec.quantization.kind)
