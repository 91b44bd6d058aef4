"""What a tuning method does to a run, as one value. Not here: any one method (the family's file)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft import get_peft_model

from studio.specs import ALL_LINEAR, ATTENTION, TrainSpec

Glimpse = Callable[[int], Iterator[dict[str, Any]]]
"""The first n training rows, one batch of one row each: input_ids and attention_mask, (1, T) tensors on the device."""

TASK = "CAUSAL_LM"
ADAPTER = "default"
"""PEFT's name for the adapter that trains."""


@dataclass(frozen=True)
class Context:
    """What a method may look at while it is put on a model.

    spec: the whole run. base: the folder of the base's weights. token_ids: the ids of a text without special tokens
    added. rows: see Glimpse. task: PEFT's name of the model's task, CAUSAL_LM or SEQ_CLS.
    """

    spec: TrainSpec
    base: Path
    token_ids: Callable[[str], list[int]]
    rows: Glimpse
    task: str = TASK


def save_adapter(model: Any, folder: Path) -> None:
    """Write the trained adapter as PeftModel.from_pretrained reads it onto the plain base."""
    model.save_pretrained(folder, selected_adapters=[ADAPTER])


@dataclass(frozen=True)
class Tuning:
    """What a method does to a run.

    attach: (base model, Context) -> the model that trains, with every other parameter frozen.
    save: (that model, folder) -> the finished outcome, which plain PEFT loads onto the plain base.
    callbacks: (Context) -> transformers callbacks that the method needs at each step.
    optimizer: trainer -> its optimiser; None: the usual one.
    loss: (usual, model, inputs) -> loss, where the method adds to it; usual: (model, inputs) -> (loss, outputs).
    fused_loss: whether trl's chunked loss may stand in for the model's own, without its logits.
    padding_free: whether rows may lie end to end; see studio.specs.abilities, which the spec is held to.
    """

    attach: Callable[[Any, Context], Any]
    save: Callable[[Any, Path], None] = save_adapter
    callbacks: Callable[[Context], Sequence[Any]] = lambda context: ()
    optimizer: Callable[[Any], Any] | None = None
    loss: Callable[[Callable[..., Any], Any, Any], Any] | None = None
    fused_loss: bool = True


def by_config(config: Callable[[Any, Context], Any], **others: Any) -> Tuning:
    """The tuning of a method that is one PEFT config: (base model, Context) -> PeftConfig."""
    return Tuning(attach=lambda model, context: get_peft_model(model, config(model, context)), **others)


def targets(names: Sequence[str], model: Any) -> str | list[str]:
    """target_modules as PEFT reads them: `all-linear`, a regular expression, or names.

    `attention` stands for the linear layers within self-attention, under whatever name the architecture has them.
    """
    if list(names) == [ALL_LINEAR]:
        return ALL_LINEAR
    if list(names) == [ATTENTION]:
        return attention_pattern(model)
    if len(names) == 1 and names[0].startswith("re:"):
        return names[0].removeprefix("re:")
    return list(names)


def attention_pattern(model: Any) -> str:
    """A pattern for the linear layers of self-attention: those of modules called attn, attention or the like."""
    return r".*\.(self_attn|attn|attention|self_attention)\.[^.]*"
