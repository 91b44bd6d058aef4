"""Supervised fine-tuning and continued pre-training over trl's SFTTrainer, with rows that are masked already.

Not here: the story around it (studio.engine.train), and how the rows were made (studio.engine.rows.conversations).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from transformers import Trainer
from trl import SFTConfig, SFTTrainer

from studio.engine.fast.documents import Document
from studio.engine.fast.path import NotProven, Path, open_path
from studio.engine.fast.rules import ruled_out
from studio.engine.fast.trainer import FastTrainer
from studio.engine.models.narrow import widen
from studio.engine.rows.conversations import TASKS
from studio.engine.stages.setup import Setup, arguments, train_in_fp32, tuned
from studio.specs import ability


def sft_trainer(setup: Setup) -> SFTTrainer:
    """A trainer that is ready to train: on the fast path where the run can take it, else trl's own.

    trl's batches are padding-free where the method allows it: rows lie end to end, and position ids keep them from
    seeing each other.
    """
    stage, data = setup.spec.stage, setup.spec.data
    train_in_fp32(setup.model)  # as it will be when it trains
    path, why_not = fast_path(setup)
    if path is None:
        widen(setup.model)
    own = {
        "neftune_noise_alpha": stage.neftune_noise_alpha,
        "label_smoothing_factor": stage.label_smoothing,
        "packing": stage.packing,
        "padding_free": path is None and ability(setup.spec.method).padding_free,
        # rows are cut already; with packing this is the length that several rows fill
        "max_length": data.max_length if stage.packing else None,
        "eval_packing": False,
    }
    with_tasks = TASKS in setup.rows.train.column_names
    if with_tasks:
        own["remove_unused_columns"] = False
    whole = not setup.tuning.fused_loss or stage.label_smoothing > 0
    kind = FastTrainer if path else _WholeLogits if whole else SFTTrainer
    trainer = tuned(kind, setup.tuning)(
        model=setup.model,
        args=SFTConfig(**{**own, **arguments(setup)}),
        train_dataset=setup.rows.train,
        eval_dataset=setup.rows.held,
        processing_class=setup.tokenizer,
        callbacks=list(setup.callbacks),
    )
    if with_tasks:
        trainer.data_collator = _WithTasks(trainer.data_collator)
    train_in_fp32(trainer.model)
    if path:
        trainer.take(path, setup.emit)
    trainer.why_not_fast = why_not
    return trainer


def fast_path(setup: Setup) -> tuple[Path | None, str]:
    """The fast path of a run, proven on its first rows, or why it goes through trl's own step."""
    values = {name: choice.value for name, choice in setup.choices.items()}
    mixed = values["training.precision"] == "bf16"
    if why := "; ".join(ruled_out(setup.spec, (values["training.precision"], values["model.dtype"]))):
        return None, why
    rows = setup.rows.train.select(range(min(2, len(setup.rows.train))))
    documents = [Document(torch.tensor(row["input_ids"]), torch.tensor(row["labels"])) for row in rows]
    half = mixed or values["model.dtype"] == "bf16"
    try:
        return open_path(setup.model, documents, dtype=torch.bfloat16 if half else torch.float32, mixed=mixed), ""
    except NotProven as error:
        return None, f"on this model {error}"


class _WholeLogits(SFTTrainer):
    """An SFTTrainer whose loss is the model's own.

    trl (1.16) multiplies the hidden states by the weights of the head, whatever `loss_type` says. Where a method works
    on what the model returns, or on the head itself, which trl refuses, that is not the model's answer.
    """

    def __init__(self, model: Any, **options: Any):
        model.get_output_embeddings = lambda: None  # which trl looks at for an adapter
        try:
            super().__init__(model=model, **options)
        finally:
            del model.get_output_embeddings

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **options: Any) -> Any:
        if self.model.training:
            mask = inputs.get("attention_mask")
            self._total_train_tokens += inputs["input_ids"].numel() if mask is None else int(mask.sum())
        mode = "train" if self.model.training else "eval"
        self._metrics[mode]["num_tokens"] = [self._total_train_tokens]
        inputs = {**inputs, "use_cache": False}
        return Trainer.compute_loss(self, model, inputs, return_outputs=return_outputs, **options)


@dataclass(frozen=True)
class _WithTasks:
    """The usual batch, and the number of each row's dataset."""

    usual: Callable[[list[dict[str, Any]]], dict[str, Any]]

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        return self.usual(rows) | {TASKS: torch.tensor([row[TASKS] for row in rows])}
