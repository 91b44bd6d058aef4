"""A reward model over trl's RewardTrainer, with rows that are tokens already: one score on the last token.

Not here: the rows (studio.engine.rows.pairs), and what a finished reward model says (studio.engine.metrics.pairs).
"""

from __future__ import annotations

from typing import Any

from datasets import Dataset
from trl import RewardConfig, RewardTrainer
from trl.trainer.reward_trainer import DataCollatorForPreference

from studio.engine.stages.setup import Setup, arguments, train_in_fp32, tuned
from studio.specs import RewardStage, TrainSpec


def reward_labels(spec: TrainSpec) -> tuple[str, ...]:
    """The one output of the head."""
    return ("reward",)


def reward_trainer(setup: Setup) -> RewardTrainer:
    """A trainer that is ready to train. Source: Ouyang et al., arXiv:2203.02155, section 3.5, equation 1."""
    stage: RewardStage = setup.spec.stage
    own = {
        "center_rewards_coefficient": stage.center_rewards or None,
        "max_length": None,  # rows are cut already
        "remove_unused_columns": False,  # the collator joins them
    }
    trainer = tuned(_Trainer, setup.tuning)(
        model=setup.model,
        args=RewardConfig(**{**own, **arguments(setup)}),
        train_dataset=setup.rows.train,
        eval_dataset=setup.rows.held,
        processing_class=setup.tokenizer,
        data_collator=_Joined(setup.tokenizer.pad_token_id),
        callbacks=list(setup.callbacks),
    )
    train_in_fp32(trainer.model)
    return trainer


class _Joined(DataCollatorForPreference):
    """Each answer behind its prompt."""

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        sides = ("chosen_ids", "rejected_ids")
        return super().torch_call([{side: row["prompt_ids"] + row[side] for side in sides} for row in examples])


class _Trainer(RewardTrainer):
    def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
        """As it is: its rows are tokens already."""
        return dataset
