"""Training stages: each makes its rows and its trainer. One file each, one name each below.

A stage's file is imported when it makes its trainer: all of trl's trainers would take a start's time, and a run needs
one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from studio.data.labels import labels_of
from studio.engine.evaluation import classifying, preferring, rewarding
from studio.engine.methods import Tuning
from studio.engine.rows import conversations, pairs
from studio.engine.rows.conversations import Rows
from studio.engine.rows.labelled import labelled
from studio.engine.rows.prompts import prompts
from studio.engine.stages.setup import Setup

__all__ = ["STAGES", "Setup", "Stage"]


def _ours(file: str, name: str) -> Callable[..., Any]:
    """A function of a file beside this one, which is imported when the function is called."""
    return lambda *given: getattr(import_module(f"{__name__}.{file}"), name)(*given)


def _config(name: str, module: str = "trl") -> Callable[[], type]:
    return lambda: getattr(import_module(module), name)


@dataclass(frozen=True)
class Stage:
    """How a stage is worked.

    trainer: Setup -> a transformers trainer, ready to train. rows: makes the tokenised rows, called as
    conversations.prepare is. labels: (TrainSpec) -> the classes that the model's head names, where it has a head
    instead of writing text; a reward model has one. method: (TrainSpec, Tuning) -> the method as the stage wants it.
    examine: (trainer, Rows) -> scores by split, asked before the first step and of the outcome. config: gives the
    class of the trainer's arguments.
    """

    trainer: Callable[[Setup], Any]
    config: Callable[[], type]
    rows: Callable[..., Rows | None] = conversations.prepare
    labels: Callable[[Any], tuple[str, ...]] | None = None
    method: Callable[[Any, Tuning], Tuning] = lambda spec, method: method
    examine: Callable[[Any, Rows], Mapping[str, Mapping[str, float]]] | None = None


_PREFERRING: dict[str, Any] = {"rows": pairs.prepare, "examine": preferring.examine}

STAGES: Mapping[str, Stage] = {
    "sft": Stage(_ours("sft", "sft_trainer"), _config("SFTConfig")),
    "pretrain": Stage(_ours("sft", "sft_trainer"), _config("SFTConfig")),
    "classify": Stage(
        _ours("classify", "classify_trainer"),
        _config("TrainingArguments", "transformers"),
        labelled,
        labels=lambda spec: labels_of(spec.data),
        method=_ours("classify", "with_head"),
        examine=classifying.examine,
    ),
    "dpo": Stage(_ours("dpo", "dpo_trainer"), _config("DPOConfig"), **_PREFERRING),
    "orpo": Stage(_ours("orpo", "orpo_trainer"), _config("ORPOConfig", "trl.experimental.orpo"), **_PREFERRING),
    "cpo": Stage(_ours("cpo", "cpo_trainer"), _config("CPOConfig", "trl.experimental.cpo"), **_PREFERRING),
    "kto": Stage(_ours("kto", "kto_trainer"), _config("KTOConfig"), **_PREFERRING),
    "reward": Stage(
        _ours("reward", "reward_trainer"),
        _config("RewardConfig"),
        labels=_ours("reward", "reward_labels"),
        **_PREFERRING,
    ),
    "grpo": Stage(_ours("online", "grpo_trainer"), _config("GRPOConfig"), prompts, examine=rewarding.examine),
    "rloo": Stage(_ours("online", "rloo_trainer"), _config("RLOOConfig"), prompts, examine=rewarding.examine),
}
