"""Supervised fine-tuning over trl's SFTTrainer, with rows that are tokenised and masked already.

Not here: the story around it (studio.engine.train).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from trl import SFTConfig, SFTTrainer

from studio.engine.rows import Rows
from studio.hardware import Choice
from studio.specs import TrainSpec


def sft_trainer(
    spec: TrainSpec,
    *,
    model: Any,
    tokenizer: Any,
    rows: Rows,
    peft_config: Any,
    checkpoints: Path,
    choices: Mapping[str, Choice],
    callbacks: list[Any],
) -> SFTTrainer:
    """A trainer that is ready to train.

    Batches are padding-free: rows lie end to end, and position ids keep them from seeing each other.
    """
    training = spec.training
    precision = choices["training.precision"].value
    config = SFTConfig(
        output_dir=str(checkpoints),
        use_cpu=not torch.cuda.is_available(),
        bf16=precision == "bf16",
        fp16=precision == "fp16",
        num_train_epochs=training.epochs,
        max_steps=training.max_steps or -1,
        learning_rate=training.learning_rate,
        per_device_train_batch_size=training.batch_size,
        per_device_eval_batch_size=training.batch_size,
        gradient_accumulation_steps=training.accumulation,
        lr_scheduler_type=training.scheduler,
        warmup_steps=training.warmup,  # below 1, transformers reads it as a share of the steps
        weight_decay=training.weight_decay,
        max_grad_norm=training.max_grad_norm,
        optim=choices["training.optimizer"].value,
        gradient_checkpointing=choices["training.gradient_checkpointing"].value == "on",
        seed=training.seed,
        data_seed=spec.data.seed,
        train_sampling_strategy="random" if spec.data.shuffle else "sequential",
        neftune_noise_alpha=spec.stage.neftune_noise_alpha,
        packing=spec.stage.packing,
        padding_free=True,
        # rows are cut already; with packing this is the length that several rows fill
        max_length=spec.data.max_length if spec.stage.packing else None,
        eval_packing=False,
        eval_strategy="no" if rows.held is None else ("steps" if spec.evaluation.steps else "epoch"),
        eval_steps=spec.evaluation.steps,
        save_strategy="steps",
        save_steps=training.save_steps,
        save_total_limit=None,  # Keeper rotates
        logging_steps=1,
        logging_nan_inf_filter=False,  # else a NaN step is logged as 0.0
        disable_tqdm=True,
        report_to="none",
        dataloader_num_workers=0,
    )
    trainer = SFTTrainer(
        model=model,
        args=config,
        train_dataset=rows.train,
        eval_dataset=rows.held,
        processing_class=tokenizer,
        peft_config=peft_config,
        callbacks=callbacks,
    )
    # trl casts the adapter of a quantised base to bf16, whose 8 bits of mantissa lose small updates; it is little
    # memory, so it trains in fp32 as the adapter of an unquantised base does
    for parameter in trainer.model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return trainer
