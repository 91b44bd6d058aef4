"""The training stages: what the objective is, and what each needs to know.

A name means the same in every stage that has it. Not here: which rows a stage learns from (studio.data.learning), and
the work itself (studio.engine.stages).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from studio.specs.section import FRONT, Section


class _Stage(Section):
    kind: str
    """What is learned from the rows: answers (sft), plain text (pretrain), labels, preferences, or a reward."""


class _Smoothed(_Stage):
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """How far the labels are doubted: probability spread over all others, or, for pairs, that they are swapped."""


class _Packed(_Smoothed):
    packing: bool = False
    """Fill each sequence up to the cutoff with several rows, kept apart from each other. Fewer, fuller steps."""
    neftune_noise_alpha: float | None = Field(None, gt=0, le=100)
    """Noise on the embeddings while training (NEFTune, arXiv:2310.05914). 5 is usual; empty is off."""


class PretrainStage(_Packed):
    """Continued pre-training: learn plain text whole, to take in a language or a field."""

    kind: Literal["pretrain"] = "pretrain"
    packing: bool = True


class SftStage(_Packed):
    """Supervised fine-tuning: learn the answers of example conversations."""

    kind: Literal["sft"] = "sft"


class ClassifyStage(_Smoothed):
    """Sequence classification: a head on the last token learns to name the label of a text."""

    kind: Literal["classify"] = "classify"
    balance: bool = Field(False, json_schema_extra=FRONT)
    """Draw as many rows of each label as the rarest one has."""
    head: Literal["whole", "adapter"] = "whole"
    """whole: the head's weights train and are saved. adapter: the head gets a LoRA adapter like other linear layers."""
    head_bias: bool = False
    """With head adapter: give the head a bias, which stays 0 and is counted, as in a tutorial's own classifier."""


class _Beta(_Stage):
    beta: float = Field(0.1, ge=0, le=100, json_schema_extra=FRONT)
    """How strongly the model is held near where it began (grpo, rloo: 0 is off). orpo, cpo: the preference's weight."""


class _Preferring(_Beta):
    beta: float = Field(0.1, gt=0, le=100, json_schema_extra=FRONT)


DpoLoss = Literal[
    "sigmoid",
    "sigmoid_norm",
    "ipo",
    "hinge",
    "robust",
    "exo_pair",
    "nca_pair",
    "bco_pair",
    "sppo_hard",
    "aot",
    "aot_unpaired",
    "apo_zero",
    "apo_down",
    "discopop",
    "sft",
]


class DpoStage(_Preferring, _Smoothed):
    """Direct preference optimisation: of two answers the chosen one becomes likelier (arXiv:2305.18290)."""

    kind: Literal["dpo"] = "dpo"
    loss: tuple[DpoLoss, ...] = Field(("sigmoid",), min_length=1, max_length=4, json_schema_extra=FRONT)
    """How the margin between two answers is scored: sigmoid is DPO. Several add up; sft is the answer's own loss."""
    loss_weights: tuple[Annotated[float, Field(ge=0, le=1000)], ...] = Field((), max_length=4)
    """Weight of each loss, in their order. Empty: 1 each."""
    label_smoothing: float = Field(0.0, ge=0, lt=0.5)


class OrpoStage(_Preferring):
    """Odds-ratio preference optimisation: learn the chosen answer and prefer it, in one (arXiv:2403.07691)."""

    kind: Literal["orpo"] = "orpo"


class CpoStage(_Preferring):
    """Contrastive preference optimisation and SimPO, without a reference (arXiv:2401.08417, arXiv:2405.14734)."""

    kind: Literal["cpo"] = "cpo"
    beta: float = Field(2.0, gt=0, le=100, json_schema_extra=FRONT)
    preference_loss: Literal["simpo", "sigmoid", "hinge", "ipo"] = Field("simpo", json_schema_extra=FRONT)
    """simpo divides by the answer's length and wants a margin; the others are CPO's."""
    simpo_gamma: float = Field(0.5, ge=0, le=100)
    """Margin that simpo wants between the two answers."""
    cpo_alpha: float = Field(0.0, ge=0, le=100)
    """Weight of the chosen answer's own loss. 1 is CPO, 0 is SimPO."""


class KtoStage(_Preferring):
    """Kahneman-Tversky optimisation: learn from single answers marked good or bad (arXiv:2402.01306)."""

    kind: Literal["kto"] = "kto"
    desirable_weight: float = Field(1.0, gt=0, le=1000)
    """Weight of good answers. Balance it against the other by how many there are of each."""
    undesirable_weight: float = Field(1.0, gt=0, le=1000)
    """Weight of bad answers."""


class RewardStage(_Stage):
    """Reward model: a head on the last token learns to score the chosen answer above the rejected one."""

    kind: Literal["reward"] = "reward"
    center_rewards: float = Field(0.0, ge=0, le=10)
    """Weight of the loss that keeps scores around 0. 0.01 is usual; 0 is off."""


Reward = Literal["exact_match", "number_match", "model", "file"]


class _Online(_Beta):
    rewards: tuple[Reward, ...] = Field(("exact_match",), min_length=1, max_length=4, json_schema_extra=FRONT)
    """What an answer is scored by: a reference (whole, or its last number), a reward model, or a file (shell only)."""
    reward_weights: tuple[Annotated[float, Field(ge=-1000, le=1000)], ...] = Field((), max_length=4)
    """Weight of each reward, in their order. Empty: 1 each."""
    reward_model: str | None = Field(None, min_length=1, max_length=400)
    """For the reward model: a finished run of the reward stage, by its id."""
    generations: int = Field(4, ge=2, le=1024, json_schema_extra=FRONT)
    """Answers to each prompt that are compared with each other."""
    max_completion_length: int = Field(128, ge=1, le=131_072, json_schema_extra=FRONT)
    """Length limit of these answers, in tokens."""
    temperature: float = Field(1.0, gt=0, le=5)
    """How freely they are drawn. 1 is usual."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Draw only from the likeliest tokens that together have this probability."""
    beta: float = Field(0.0, ge=0, le=100, json_schema_extra=FRONT)
    epsilon: float = Field(0.2, gt=0, lt=1)
    """How far one step may move the odds of an answer."""
    updates: int = Field(1, ge=1, le=64)
    """Optimiser steps on each batch of answers."""


class GrpoStage(_Online):
    """Group relative policy optimisation: of several own answers the better ones become likelier (arXiv:2402.03300)."""

    kind: Literal["grpo"] = "grpo"
    grpo_loss: Literal["grpo", "dapo", "dr_grpo", "bnpo"] = "dapo"
    """How tokens of long and short answers weigh: dapo counts tokens alike, grpo answers, dr_grpo by a fixed length."""


class RlooStage(_Online):
    """REINFORCE leave-one-out: own answers against the mean of the others (arXiv:2402.14740)."""

    kind: Literal["rloo"] = "rloo"
    beta: float = Field(0.05, ge=0, le=100, json_schema_extra=FRONT)


Stage = Annotated[
    PretrainStage
    | SftStage
    | ClassifyStage
    | DpoStage
    | OrpoStage
    | CpoStage
    | KtoStage
    | RewardStage
    | GrpoStage
    | RlooStage,
    Field(discriminator="kind"),
]
