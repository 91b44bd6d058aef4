"""What a tuning method does to a run, as one value. Not here: any one method (the family's file)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model
from safetensors.torch import load_file, save_file

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
    """Write the trained adapter as PeftModel.from_pretrained reads it onto the plain base.

    Without the base's embeddings or head, which PEFT would put in where an adapter stands on them.
    """
    model.save_pretrained(folder, selected_adapters=[ADAPTER], save_embedding_layers=False)


def trainable(model: Any) -> dict[str, torch.Tensor]:
    """Every parameter that trains, by name, as it is."""
    return {name: tensor.detach() for name, tensor in model.named_parameters() if tensor.requires_grad}


def set_trainable(model: Any, state: Mapping[str, torch.Tensor]) -> None:
    """Put back what `trainable` gave."""
    for name, tensor in trainable(model).items():
        tensor.copy_(state[name])


@dataclass(frozen=True)
class Tuning:
    """What a method does to a run.

    attach: (base model, Context) -> the model that trains, with every other parameter frozen.
    save: (that model, folder) -> the finished outcome, which plain PEFT loads onto the plain base.
    callbacks: (Context) -> transformers callbacks that the method needs at each step.
    optimizer: trainer -> its optimiser; None: the usual one.
    loss: (usual, model, inputs, share) -> loss, where the method adds to it; usual: (model, inputs) -> loss. share:
    what a mean over this batch weighs in its optimiser step, where batches are accumulated.
    fused_loss: whether trl's chunked loss may stand in for the model's own, without its logits.
    state: model -> the tensors that a checkpoint needs to go on exactly, where the outcome is not what trains. Every
    checkpoint then holds them in a file of its own, and in place of transformers' adapter the outcome as `save` writes
    it, so that a checkpoint opens as any finished run does. restore: (model, those tensors) -> None.
    count: model -> how many numbers train, where some of a trainable parameter never change.
    """

    attach: Callable[[Any, Context], Any]
    save: Callable[[Any, Path], None] = save_adapter
    callbacks: Callable[[Context], Sequence[Any]] = lambda context: ()
    optimizer: Callable[[Any], Any] | None = None
    loss: Callable[[Callable[..., Any], Any, Any, float], Any] | None = None
    fused_loss: bool = True
    state: Callable[[Any], Mapping[str, torch.Tensor]] | None = None
    restore: Callable[[Any, Mapping[str, torch.Tensor]], None] = set_trainable
    count: Callable[[Any], int] | None = None


STATE = "training_state.safetensors"
"""In a checkpoint: what Tuning.state gave."""


def keep_state(tuning: Tuning, model: Any, checkpoint: Path) -> None:
    """Complete a checkpoint as Tuning.state says."""
    if tuning.state is not None:
        tensors = {name: tensor.detach().contiguous() for name, tensor in tuning.state(model).items()}
        save_file(tensors, checkpoint / STATE)
        tuning.save(model, checkpoint)


def put_state(tuning: Tuning, model: Any, checkpoint: Path) -> bool:
    """Bring a model to where a checkpoint was, if it was kept by `keep_state`."""
    if tuning.state is None:
        return False
    tuning.restore(model, load_file(checkpoint / STATE))
    return True


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
