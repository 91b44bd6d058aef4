"""What each method can and cannot do, and what that and the rest of a spec rule out, all together.

The table is abilities.json. The test that proves it writes it (tests/engine/methods/prove.py) and the README shows it.
Not here: limits of one field (the sections), and what only this machine, model or data rules out (studio.engine).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from studio.errors import Fault

if TYPE_CHECKING:
    from studio.specs.methods import Method
    from studio.specs.sections import TrainSpec

TABLE = Path(__file__).with_name("abilities.json")


@dataclass(frozen=True)
class Ability:
    """What was proven of a method, or of a variant of one.

    nf4 and int8: trains, saves, reloads and generates on such a base (fp4 is as nf4). merge: into the base's weights,
    with equal logits. mixed: several adapters of it answer in one batch; else each has a batch of its own.
    padding_free: rows may lie end to end in one sequence, as packing needs. checkpointing: activations can be
    recomputed.
    """

    nf4: bool
    int8: bool
    merge: bool
    mixed: bool
    padding_free: bool
    checkpointing: bool

    def __and__(self, other: Ability) -> Ability:
        return Ability(**{name: getattr(self, name) and getattr(other, name) for name in Ability.__annotations__})


@cache
def table() -> Mapping[str, Ability]:
    """Every variant's ability, by its name: `lora`, `lora, dora`, `vera`, …"""
    rows = json.loads(TABLE.read_text(encoding="utf-8"))
    return {name: Ability(**values) for name, values in rows.items()}


def ability(method: Method) -> Ability:
    """What a method as it is set can do: what all its variants can."""
    first, *others = (table()[variant] for variant in method.variants)
    for other in others:
        first = first & other
    return first


def contradictions(spec: TrainSpec) -> Iterable[Fault]:
    """Everything in a spec that cannot work together, each with the remedy."""
    yield from _targets(spec)
    yield from _quantisation(spec)
    yield from _sequences(spec)
    yield from _stages(spec)
    yield from _validation(spec)


def _targets(spec: TrainSpec) -> Iterable[Fault]:
    targets = getattr(spec.method, "target_modules", ())
    for word in ("all-linear", "attention", "auto"):
        if word in targets and len(targets) > 1:
            yield Fault("method.target_modules", f"{word} stands alone. Remove it or the other names.")


def _quantisation(spec: TrainSpec) -> Iterable[Fault]:
    kind, can = spec.quantization.kind, ability(spec.method)
    if (kind in ("nf4", "fp4") and not can.nf4) or (kind == "int8" and not can.int8):
        name = " and ".join(spec.method.variants)
        yield Fault("quantization.kind", f"is {kind}, but {name} cannot train on such a base. Set it to none.")


def _sequences(spec: TrainSpec) -> Iterable[Fault]:
    can, kind = ability(spec.method), spec.method.kind
    if getattr(spec.stage, "packing", False) and not can.padding_free:
        yield Fault("stage.packing", f"cannot keep rows apart with {kind}. Turn it off.")
    if spec.training.gradient_checkpointing == "on" and not can.checkpointing:
        yield Fault("training.gradient_checkpointing", f"does not work with {kind}. Set it to auto or off.")


def _stages(spec: TrainSpec) -> Iterable[Fault]:
    return iter(())


def _validation(spec: TrainSpec) -> Iterable[Fault]:
    if spec.data.validation_share > 0:
        return
    remedy = "Set data.validation_share above 0, or empty this."
    if spec.evaluation.steps is not None:
        yield Fault("evaluation.steps", f"needs validation rows. {remedy}")
    if spec.training.early_stopping is not None:
        yield Fault("training.early_stopping", f"needs validation rows. {remedy}")
    if spec.training.keep_best:
        yield Fault("training.keep_best", "needs validation rows. Set data.validation_share above 0, or turn this off.")
