"""The optimisation of a run, what is measured on the way, and what it starts from. Not here: the objective (stages)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field, JsonValue, model_validator

from studio.errors import Fault
from studio.specs.section import FRONT, Section

Precision = Literal["auto", "fp32", "bf16", "fp16"]
TrainerArguments = dict[Annotated[str, Field(min_length=1, max_length=100)], JsonValue]


class StartSpec(Section):
    """What a run starts from, besides the base."""

    adapters: tuple[Annotated[str, Field(min_length=1, max_length=1000)], ...] = Field((), max_length=16)
    """Earlier runs (by id) or adapter folders to go on from. Several are merged into one. Empty: a fresh start."""
    combination: Literal["linear", "ties", "dare_linear", "dare_ties"] = "linear"
    """How several are merged: weighted sum, or first without small or random parts (TIES, DARE)."""
    weights: tuple[float, ...] = Field((), max_length=16)
    """Weight of each of several adapters, in their order. Empty: equal weights that add up to 1."""
    density: float = Field(0.5, gt=0, le=1)
    """Share of each adapter's values that TIES and DARE keep."""

    @model_validator(mode="after")
    def _weights_fit(self) -> StartSpec:
        faults = list(self._wrong_weights())
        if faults:
            raise ValueError("\n".join(str(fault) for fault in faults))
        return self

    def _wrong_weights(self) -> Iterable[Fault]:
        if self.weights and len(self.weights) != len(self.adapters):
            given = f"has {len(self.weights)} for {len(self.adapters)} adapters"
            yield Fault("start.weights", f"{given}. Give one to each, or none at all.")
        if len(set(self.adapters)) != len(self.adapters):
            yield Fault("start.adapters", "names one twice. Name each once, and give it a larger weight.")


class TrainingSpec(Section):
    """The optimisation itself."""

    epochs: float = Field(3.0, gt=0, le=10_000, json_schema_extra=FRONT)
    """Passes over the training rows. Fractions are allowed. Ignored when max_steps is set."""
    max_steps: int | None = Field(None, ge=1, le=100_000_000, json_schema_extra=FRONT)
    """Stop after this many optimiser steps. Empty means as many as the epochs take."""
    learning_rate: float = Field(2e-4, gt=0, le=10, json_schema_extra=FRONT)
    """Peak learning rate. 1e-4 to 1e-3 suits LoRA; 1e-5 suits full fine-tuning."""
    batch_size: int = Field(4, ge=1, le=65_536, json_schema_extra=FRONT)
    """Rows per device and forward pass."""
    accumulation: int = Field(2, ge=1, le=65_536, json_schema_extra=FRONT)
    """Forward passes per optimiser step. Effective batch size = batch_size x accumulation."""
    scheduler: Literal[
        "linear",
        "cosine",
        "cosine_with_restarts",
        "constant",
        "constant_with_warmup",
        "polynomial",
        "inverse_sqrt",
    ] = "cosine"
    """How the learning rate falls after the warm-up."""
    warmup: float = Field(0.03, ge=0, lt=1)
    """Share of the steps over which the learning rate rises from 0, from 0 to below 1."""
    weight_decay: float = Field(0.0, ge=0, le=1)
    """AdamW's decoupled weight decay."""
    max_grad_norm: float = Field(1.0, gt=0, le=1e6)
    """Gradients are clipped to this norm."""
    optimizer: Literal[
        "auto",
        "adamw_torch",
        "adamw_8bit",
        "paged_adamw_8bit",
        "paged_adamw_32bit",
        "lion_8bit",
        "paged_lion_8bit",
        "adafactor",
        "sgd",
    ] = "auto"
    """auto: paged 8-bit AdamW on a GPU (as in the QLoRA paper), plain AdamW on a CPU, where 8 bits save no time."""
    precision: Precision = "auto"
    """Precision of the arithmetic. auto: bf16 where the device computes in it, else fp32."""
    gradient_checkpointing: Literal["auto", "on", "off"] = "auto"
    """Recompute activations in the backward pass: about 30 % slower, much less memory. auto: when memory runs out."""
    preflight: bool = True
    """Take one step on the longest rows first, of which nothing is kept, to see what memory and time the run needs."""
    save_steps: int = Field(50, ge=1, le=100_000_000)
    """Optimiser steps between checkpoints. One is always saved at the end and at a stop."""
    save_total_limit: int = Field(3, ge=1, le=10_000)
    """How many checkpoints are kept, newest first, and the best one beside them."""
    early_stopping: int | None = Field(None, ge=1, le=10_000)
    """End the run when this many validations in a row bring nothing better. Empty: never. Needs validation rows."""
    keep_best: bool = False
    """Make the best checkpoint by validation the outcome, not the last one. Needs validation rows."""
    report_to: tuple[Literal["tensorboard", "trackio", "wandb", "mlflow"], ...] = ()
    """Also report figures to these, which must be installed. They keep them in the run's folder, offline."""
    seed: int = Field(42, ge=0, le=2**32 - 1)
    """Seed of the adapter's start, of dropout and of the sampler."""


class EvaluationSpec(Section):
    """What is measured while a run trains."""

    steps: int | None = Field(None, ge=1, le=100_000_000)
    """Optimiser steps between validation losses. Empty: at the end of each epoch. Needs validation rows."""
    prompts: tuple[Annotated[str, Field(min_length=1, max_length=4000)], ...] = Field(("Who are you?",), max_length=16)
    """Fixed prompts that the model answers while it trains, so that the change can be read."""
    sample_steps: int | None = Field(None, ge=1, le=100_000_000)
    """Optimiser steps between sample answers. Empty: at the start, five times on the way, and at the end."""
    max_new_tokens: int = Field(48, ge=1, le=4096)
    """Length limit of a sample answer, in tokens."""
