"""What in a spec rules the fast path out, before anything loads. No torch here: the estimate asks the same.

Not here: models that it cannot be proven on (path).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from studio.specs import TrainSpec, ability

STAGES = ("sft", "pretrain")
HARMLESS = frozenset({"adam_beta1", "adam_beta2", "adam_epsilon", "lr_scheduler_kwargs", "dataloader_drop_last"})
"""Arguments of the trainer that concern what is around a step."""
_IN_THE_LOSS = ("orthogonality", "consistency")
"""Fields by which a method adds to the loss."""


def holds_narrow(spec: TrainSpec, precisions: Iterable[str], *, gpu: bool) -> bool:
    """Whether weights that come in 16 bits, and are not quantised, stay so while products are in fp32.

    With plain LoRA on the fast path only, which asks for each of them twice a pass. precisions: what the weights and
    the arithmetic are in.
    """
    precisions = set(precisions)
    method = spec.method
    return (
        method.kind == "lora"
        and method.variants == ("lora",)
        and not method.modules_to_save  # whose weights train, in fp32
        and spec.quantization.kind != "int8"
        and not gpu
        and not spec.start.adapters
        and precisions == {"fp32"}
        and not any(ruled_out(spec, precisions))
    )


def ruled_out(spec: TrainSpec, precisions: Iterable[str]) -> Iterator[str]:
    """Every reason. precisions: what the weights and the arithmetic are in."""
    stage, method = spec.stage, spec.method
    if stage.kind not in STAGES:
        yield "this stage has a step of its own"
        return
    if not ability(method).padding_free:
        yield "rows cannot lie end to end with this method"
    if any(getattr(method, name, 0) for name in _IN_THE_LOSS):
        yield "this method has a part in the loss"
    if "lm_head" in getattr(method, "target_modules", ()):
        yield "the head is adapted"
    if stage.kind == "sft" and stage.label_smoothing:
        yield "label smoothing needs all logits"
    if stage.neftune_noise_alpha:
        yield "NEFTune's noise goes by the length of each row"
    if "fp16" in precisions:
        yield "fp16 needs scaled gradients"
    if named := ", ".join(name for name in spec.trainer if name not in HARMLESS):
        yield f"trainer.{named} may change the step"
