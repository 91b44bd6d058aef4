"""Ends a run before numbers that are not finite reach its weights, and lowers the rate of one that goes on after that.

Not here: who offers the lower rate (studio.jobs), and where a rise of the loss is marked (studio.ui.run_figures).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from studio.engine.checkpoints import complete_checkpoints, facts_of
from studio.errors import Diverged

RATE = "rate"
"""In a manifest: the share of the spec's learning rate that the checkpoint was trained at last."""
_REMEDY = (
    "Go on from there with a lower rate (studio jobs resume JOB --rate 0.5), or lower training.learning_rate, raise "
    "training.warmup, and start again."
)


def diverged(what: str, checkpoints: Path) -> Diverged:
    """what: the numbers that are not finite, where, and what became of that step."""
    kept = complete_checkpoints(checkpoints)
    stands = f"The run stands at its checkpoint of step {kept[-1][0]}." if kept else "No checkpoint was written before."
    return Diverged(f"{what} {stands} {_REMEDY}")


class Guard(TrainerCallback):
    """Looks at the gradients before each step, and at the weights before each save."""

    def __init__(self, checkpoints: Path):
        self._checkpoints = checkpoints

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        if args.fp16:  # whose scaler meets overflows by design, and passes over such a step itself
            return
        if not _finite(each.grad for each in model.parameters() if each.grad is not None):
            at = state.global_step + 1
            raise diverged(f"A gradient was not a finite number at step {at}, which was not taken.", self._checkpoints)

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        if control.should_save and not _finite(each.detach() for each in model.parameters() if each.requires_grad):
            at = state.global_step
            raise diverged(f"A weight was not a finite number at step {at}, which was not saved.", self._checkpoints)


class Slower(TrainerCallback):
    """Trains at a share of the spec's learning rate, from the step at which the run goes on."""

    def __init__(self, rate: float, checkpoints: Path):
        self._rate, self._checkpoints = rate, checkpoints

    def on_train_begin(
        self, args: Any, state: Any, control: Any, optimizer: Any = None, lr_scheduler: Any = None, **_: Any
    ) -> None:
        before = 1.0
        if state.global_step:  # the rates were read back as they were saved
            before = float(facts_of(self._checkpoints / f"checkpoint-{state.global_step}").get(RATE, 1.0))
        share = self._rate / before
        if share == 1.0:
            return
        for group in optimizer.param_groups:
            for name in ("lr", "initial_lr"):
                if name in group:
                    group[name] = group[name] * share
        scheduler = getattr(lr_scheduler, "scheduler", lr_scheduler)  # accelerate wraps it
        for name in ("base_lrs", "_last_lr"):
            if hasattr(scheduler, name):
                setattr(scheduler, name, [each * share for each in getattr(scheduler, name)])


def _finite(tensors: Iterable[torch.Tensor]) -> bool:
    """Whether all numbers are; by the largest magnitude, which is not a finite number where one of them is not."""
    found = [each for each in tensors if each.is_floating_point() and each.numel()]
    return not found or bool(torch.nn.utils.get_total_norm(found, norm_type=float("inf")).isfinite())
