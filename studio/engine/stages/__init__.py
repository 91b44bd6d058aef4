"""Training stages: each makes its rows and its trainer. One file each, one name each below."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from transformers import TrainingArguments

from studio.data.labels import labels_of
from studio.engine import classifying, pairs, preferring, rewarding, rows
from studio.engine.labelled import labelled
from studio.engine.methods import Tuning
from studio.engine.prompts import prompts
from studio.engine.rows import Rows
from studio.engine.stages.classify import classify_trainer, with_head
from studio.engine.stages.cpo import cpo_trainer
from studio.engine.stages.dpo import DPOConfig, dpo_trainer
from studio.engine.stages.kto import KTOConfig, kto_trainer
from studio.engine.stages.online import GRPOConfig, RLOOConfig, grpo_trainer, rloo_trainer
from studio.engine.stages.orpo import orpo_trainer
from studio.engine.stages.reward import RewardConfig, reward_labels, reward_trainer
from studio.engine.stages.setup import Setup
from studio.engine.stages.sft import SFTConfig, sft_trainer

__all__ = ["STAGES", "Setup", "Stage"]


@dataclass(frozen=True)
class Stage:
    """How a stage is worked.

    trainer: Setup -> a transformers trainer, ready to train. rows: makes the tokenised rows, called as rows.prepare is.
    labels: (TrainSpec) -> the classes that the model's head names, where it has a head instead of writing text; a
    reward model has one. method: (TrainSpec, Tuning) -> the method as the stage wants it. examine: (trainer, Rows) ->
    scores by split, asked before the first step and of the outcome. config: gives the class of the trainer's
    arguments.
    """

    trainer: Callable[[Setup], Any]
    rows: Callable[..., Rows | None] = rows.prepare
    labels: Callable[[Any], tuple[str, ...]] | None = None
    method: Callable[[Any, Tuning], Tuning] = lambda spec, method: method
    examine: Callable[[Any, Rows], Mapping[str, Mapping[str, float]]] | None = None
    config: Callable[[], type] = lambda: TrainingArguments


def _cpo() -> type:
    from trl.experimental.cpo import CPOConfig

    return CPOConfig


def _orpo() -> type:
    from trl.experimental.orpo import ORPOConfig

    return ORPOConfig


STAGES: Mapping[str, Stage] = {
    "sft": Stage(sft_trainer, config=lambda: SFTConfig),
    "pretrain": Stage(sft_trainer, config=lambda: SFTConfig),
    "classify": Stage(
        classify_trainer,
        labelled,
        labels=lambda spec: labels_of(spec.data),
        method=with_head,
        examine=classifying.examine,
    ),
    "dpo": Stage(dpo_trainer, pairs.prepare, examine=preferring.examine, config=lambda: DPOConfig),
    "orpo": Stage(orpo_trainer, pairs.prepare, examine=preferring.examine, config=_orpo),
    "cpo": Stage(cpo_trainer, pairs.prepare, examine=preferring.examine, config=_cpo),
    "kto": Stage(kto_trainer, pairs.prepare, examine=preferring.examine, config=lambda: KTOConfig),
    "reward": Stage(
        reward_trainer, pairs.prepare, labels=reward_labels, examine=preferring.examine, config=lambda: RewardConfig
    ),
    "grpo": Stage(grpo_trainer, prompts, examine=rewarding.examine, config=lambda: GRPOConfig),
    "rloo": Stage(rloo_trainer, prompts, examine=rewarding.examine, config=lambda: RLOOConfig),
}
