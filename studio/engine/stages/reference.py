"""The reference of a preference: the model as it was before the first step, without a second copy of it.

Not here: any one objective, and stages that need no reference.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from accelerate.utils import is_peft_model

from studio.engine.stages.setup import Setup
from studio.events import Phase

_SAME = 1e-2
"""Logits that differ by less are the same but for rounding."""


class NoReference(torch.nn.Module):
    """Given to a trainer as its reference model, so that trl does not copy the adapter into a second one."""

    def __init__(self, model: Any):
        super().__init__()
        self.config = model.config

    def forward(self) -> None:
        """Nobody calls it: keep_beginning() takes it away."""


def begins_as_base(setup: Setup) -> bool:
    """Whether the model without its adapter is what training begins with, as it is under a fresh one.

    It is not where an earlier adapter goes on, where a method starts elsewhere, or where the base itself trains.
    """
    model = setup.model
    if not is_peft_model(model):
        return False
    row = setup.rows.train[0]
    answer = next(row[name] for name in ("chosen_ids", "completion_ids") if name in row)
    ids = torch.tensor([row["prompt_ids"] + answer], device=model.device)
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), _arithmetic(setup):
            begun = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[:, -ids.shape[1] :]
            with model.disable_adapter():
                base = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    finally:
        model.train(was_training)
    return bool((begun.float() - base.float()).abs().max() < _SAME)


def _arithmetic(setup: Setup) -> AbstractContextManager[Any]:
    """The precision in which the trainer computes."""
    precision = setup.choices["training.precision"].value
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(setup.model.device.type, dtype=torch.bfloat16 if precision == "bf16" else torch.float16)


def keep_beginning(trainer: Any, setup: Setup, *, base: bool) -> None:
    """Make a trainer compare with the model as it is now.

    base: see begins_as_base(): then trl switches the adapter off for the reference. Otherwise each row's likelihood is
    computed once, before the first step; a run that goes on does so before it loads its checkpoint.
    """
    trainer.ref_model = None
    if base:
        return
    setup.emit(Phase(name="reference"))
    trainer.precompute_ref_logps = True
    trainer._precompute_model_hash = ""
    trainer.ref_model = trainer.model
    size = trainer.args.per_device_train_batch_size
    trainer.train_dataset = trainer._precompute_ref_logps(trainer.train_dataset, "train", size)
    if trainer.eval_dataset is not None:
        trainer.eval_dataset = trainer._precompute_ref_logps(trainer.eval_dataset, "eval", size)
    trainer.ref_model = None
