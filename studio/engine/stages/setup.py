"""What every stage is given, and the trainer's arguments that all stages share. Not here: any one stage."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from studio.engine.methods import Tuning
from studio.engine.methods.tuning import put_state
from studio.engine.rewards import Judge
from studio.engine.rows.conversations import Rows
from studio.events import Emit
from studio.hardware import Choice
from studio.specs import TrainSpec
from studio.templates import Template, TextTokenizer


@dataclass(frozen=True)
class Setup:
    """Everything that a trainer is made of.

    model: with the method on it. rows: as the stage's own `rows` made them. checkpoints: where they are written.
    choices: what each "auto" became. code: a Python file with a reward function that somebody named in the shell.
    judge: a trained reward model.
    """

    spec: TrainSpec
    model: Any
    tuning: Tuning
    tokenizer: Any
    text_tokenizer: TextTokenizer
    template: Template
    rows: Rows
    checkpoints: Path
    choices: Mapping[str, Choice]
    callbacks: Sequence[Any]
    emit: Emit
    code: Path | None = None
    judge: Judge | None = None


FUSED = {"adamw_torch": "adamw_torch_fused"}
"""The same optimiser in one kernel instead of a dozen."""


def arguments(setup: Setup) -> dict[str, Any]:
    """What transformers' TrainingArguments and all of trl's configs take, under their own names."""
    spec, training = setup.spec, setup.spec.training
    precision = setup.choices["training.precision"].value
    return {
        "output_dir": str(setup.checkpoints),
        "use_cpu": not torch.cuda.is_available(),
        "bf16": precision == "bf16",
        "fp16": precision == "fp16",
        "num_train_epochs": training.epochs,
        "max_steps": training.max_steps or -1,
        "learning_rate": training.learning_rate,
        "per_device_train_batch_size": training.batch_size,
        "per_device_eval_batch_size": training.batch_size,
        "gradient_accumulation_steps": training.accumulation,
        "lr_scheduler_type": training.scheduler,
        "warmup_steps": training.warmup,  # below 1, transformers reads it as a share of the steps
        "weight_decay": training.weight_decay,
        "max_grad_norm": training.max_grad_norm,
        "optim": FUSED.get(optimizer := setup.choices["training.optimizer"].value, optimizer),
        "gradient_checkpointing": setup.choices["training.gradient_checkpointing"].value == "on",
        "seed": training.seed,
        "data_seed": spec.data.seed,
        "train_sampling_strategy": "random" if spec.data.shuffle else "sequential",
        "eval_strategy": "no",  # Watcher asks for validations
        "save_strategy": "steps",
        "save_steps": training.save_steps,
        "save_total_limit": None,  # Keeper rotates
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # else a NaN step is logged as 0.0
        "disable_tqdm": True,
        "report_to": list(training.report_to) or "none",
        "run_name": setup.checkpoints.parent.name,
        "dataloader_num_workers": 0,
    } | dict(spec.trainer)


def tuned(trainer: type, tuning: Tuning) -> type:
    """A trainer's class with what the method changes in every stage: its optimiser and its loss."""

    class Tuned(trainer):  # type: ignore[misc,valid-type]
        def create_optimizer(self, *args: Any, **options: Any) -> Any:
            if self.optimizer is None and tuning.optimizer is not None:
                self.optimizer = tuning.optimizer(self)
            return super().create_optimizer(*args, **options)

        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **options: Any) -> Any:
            usual: Callable[..., Any] = super().compute_loss
            if tuning.loss is None or return_outputs or not model.training:
                return usual(model, inputs, return_outputs=return_outputs, **options)
            # where the loss is divided by all items of a step, the trainer leaves a mean over one batch to us
            counted = options.get("num_items_in_batch") is not None
            share = 1 / self.current_gradient_accumulation_steps if counted else 1.0
            return tuning.loss(lambda m, i: usual(m, i, **options), model, inputs, share)

        def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
            if not put_state(tuning, self.model, Path(resume_from_checkpoint)):
                super()._load_from_checkpoint(resume_from_checkpoint, model=model)

    Tuned.__name__ = trainer.__name__
    return Tuned


def train_in_fp32(model: Any) -> None:
    """Bring what trains to fp32. Call this after trl's constructor.

    trl casts the adapter of a quantised base to bf16, whose 8 bits of mantissa lose small updates; it is little memory,
    so it trains in fp32 as the adapter of an unquantised base does.
    """
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
