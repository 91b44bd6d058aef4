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
    yield from _starts(spec)
    yield from _budget(spec)
    yield from _sequences(spec)
    yield from _stages(spec)
    yield from _rewards(spec)
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


def _starts(spec: TrainSpec) -> Iterable[Fault]:
    method = spec.method
    if method.kind != "lora":
        return
    if method.init == "loftq" and spec.quantization.kind == "none":
        what = "is loftq, which makes up for what rounding takes, but quantization.kind is none"
        yield Fault("method.init", f"{what}. Set that to nf4, or this to default.")
    ranks = (method.rank, *method.rank_pattern.values())
    if method.init == "orthogonal" and (odd := [rank for rank in ranks if rank % 2]):
        yield Fault("method.rank", f"is {odd[0]} in places, and init orthogonal needs even ranks. Change it by 1.")
    if "lm_head" in method.target_modules and spec.stage.kind in ("dpo", "kto", "grpo", "rloo"):
        reason = f"holds lm_head, whose weights the stage {spec.stage.kind} reads past any adapter"
        yield Fault("method.target_modules", f"{reason}. Leave it out, or name it in method.modules_to_save.")
    if method.split_fused and method.init not in ("default", "gaussian"):
        yield Fault("method.split_fused", f"does not go with init {method.init}. Turn it off, or set init to default.")


def _budget(spec: TrainSpec) -> Iterable[Fault]:
    method = spec.method
    if method.kind != "adalora":
        return
    if method.init_rank <= method.rank:
        yield Fault("method.init_rank", f"is {method.init_rank}. Set it above method.rank, {method.rank}.")
    if method.warmup_share + method.final_share >= 1:
        yield Fault("method.warmup_share", "and method.final_share leave no steps in which ranks are cut. Lower them.")


def _sequences(spec: TrainSpec) -> Iterable[Fault]:
    can, kind = ability(spec.method), spec.method.kind
    if getattr(spec.stage, "packing", False) and not can.padding_free:
        yield Fault("stage.packing", f"cannot keep rows apart with {kind}. Turn it off.")
    if spec.training.gradient_checkpointing == "on" and not can.checkpointing:
        yield Fault("training.gradient_checkpointing", f"does not work with {kind}. Set it to auto or off.")


def _stages(spec: TrainSpec) -> Iterable[Fault]:
    if spec.stage.kind == "classify":
        yield from _classifying(spec)
    if unfit := spec.method.kind in _UNFIT.get(spec.stage.kind, ()):
        yield Fault("method.kind", f"{spec.method.kind} does not work with the stage {spec.stage.kind}. Choose lora.")
    if spec.stage.kind in ("dpo", "kto", "orpo", "cpo") and not unfit:
        yield from _preferring(spec)
    if getattr(spec.method, "consistency", 0) and spec.stage.kind not in ("sft", "pretrain", "classify"):
        yield Fault("method.consistency", f"compares answers, which the stage {spec.stage.kind} lacks. Set it to 0.")


_HEADLESS = ("prompt_tuning", "multitask_prompt_tuning", "p_tuning", "adaption_prompt", "trainable_tokens")
"""Methods that a head cannot train with. The first three hand the model vectors instead of tokens, and then no head
sees which token of a row is the last; PEFT knows the fourth only for models that write, and saves no head with the
last."""


_VECTORS = ("prompt_tuning", "multitask_prompt_tuning", "p_tuning")
_TASKS = "multitask_prompt_tuning"
"""Only the rows of sft and pretrain tell which dataset they are of."""
_UNFIT = {
    "reward": _HEADLESS,
    # trl reads the likelihoods of these from the hidden states, which this method computes in another precision
    "dpo": ("adaption_prompt", _TASKS),
    "kto": ("adaption_prompt", _TASKS),
    # and puts a copy of the adapter beside it, which AdaLoRA does not allow
    "grpo": ("adaption_prompt", "adalora", _TASKS),
    "rloo": ("adaption_prompt", "adalora", _TASKS),
    # and counts the tokens of these without the vectors before them
    "orpo": _VECTORS,
    "cpo": _VECTORS,
}
"""Methods that a stage cannot train with."""


def _preferring(spec: TrainSpec) -> Iterable[Fault]:
    stage = spec.stage
    losses, weights = getattr(stage, "loss", ()), getattr(stage, "loss_weights", ())
    if weights and len(weights) != len(losses):
        counts = f"{len(weights)} for {len(losses)} losses"
        yield Fault("stage.loss_weights", f"has {counts}. Give one to each, or none at all.")
    if len(set(losses)) != len(losses):
        yield Fault("stage.loss", "names one twice. Name each once, and give it a larger weight in stage.loss_weights.")
    if "exo_pair" in losses and stage.label_smoothing == 0:
        yield Fault("stage.label_smoothing", "must be above 0 with the loss exo_pair. Its paper has 0.001.")
    if stage.kind == "kto" and spec.training.batch_size == 1:
        yield Fault("training.batch_size", "must be above 1 with kto, which compares with other answers of the batch.")


def _classifying(spec: TrainSpec) -> Iterable[Fault]:
    stage, method = spec.stage, spec.method
    if method.kind in _HEADLESS:
        yield Fault("method.kind", f"{method.kind} does not work with the stage classify. Choose lora or another.")
    if stage.head == "adapter" and method.kind != "lora":
        yield Fault("stage.head", f"adapter needs the method lora, not {method.kind}. Set it to whole.")
    elif stage.head == "adapter" and method.init not in ("default", "gaussian", "orthogonal"):
        fix = "Set it to whole, or method.init to default"
        yield Fault("stage.head", f"adapter does not go with method.init {method.init}: a head has few outputs. {fix}.")
    if stage.head_bias and stage.head == "whole":
        yield Fault(
            "stage.head_bias", "needs head adapter. A bias that trains would be lost in transformers' own heads."
        )


def _rewards(spec: TrainSpec) -> Iterable[Fault]:
    stage = spec.stage
    if not hasattr(stage, "rewards"):
        return
    if stage.reward_weights and len(stage.reward_weights) != len(stage.rewards):
        counts = f"{len(stage.reward_weights)} for {len(stage.rewards)} rewards"
        yield Fault("stage.reward_weights", f"has {counts}. Give one to each, or none at all.")
    if ("model" in stage.rewards) != (stage.reward_model is not None):
        yield Fault("stage.reward_model", "goes with model in stage.rewards. Set both, or neither.")


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
