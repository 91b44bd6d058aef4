"""Kahneman-Tversky optimisation over trl's KTOTrainer, with rows that are tokens already.

Not here: the rows (studio.engine.rows.pairs) and the reference (reference).
"""

from __future__ import annotations

from typing import Any

from datasets import Dataset
from trl import KTOConfig, KTOTrainer

from studio.engine.stages.reference import NoReference, begins_as_base, keep_beginning
from studio.engine.stages.setup import Setup, arguments, train_in_fp32, tuned
from studio.specs import KtoStage


def kto_trainer(setup: Setup) -> KTOTrainer:
    """A trainer that is ready to train. Source: Ethayarajh et al., arXiv:2402.01306, section 4.1.

    Its estimate of how far the model has moved needs answers to other prompts of the same batch, so the rows are put in
    their order once and keep it in every epoch.
    """
    stage: KtoStage = setup.spec.stage
    own = {
        "beta": stage.beta,
        "desirable_weight": stage.desirable_weight,
        "undesirable_weight": stage.undesirable_weight,
        "max_length": None,  # rows are cut already
    }
    data = setup.spec.data
    train = setup.rows.train.shuffle(seed=data.seed) if data.shuffle else setup.rows.train
    base = begins_as_base(setup)
    trainer = tuned(_Trainer, setup.tuning)(
        model=setup.model,
        ref_model=NoReference(setup.model),
        args=KTOConfig(**{**own, **arguments(setup), "train_sampling_strategy": "sequential"}),
        train_dataset=train,
        eval_dataset=setup.rows.held,
        processing_class=setup.tokenizer,
        callbacks=list(setup.callbacks),
    )
    train_in_fp32(trainer.model)
    keep_beginning(trainer, setup, base=base)
    return trainer


class _Trainer(KTOTrainer):
    def _prepare_dataset(self, dataset: Dataset, processing_class: Any, args: KTOConfig, name: str) -> Dataset:
        """Beside each answer the one before it in its batch, which answers another prompt."""
        return dataset.map(_with_others, batched=True, batch_size=args.per_device_train_batch_size)


def _with_others(rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
    answers = rows["completion_ids"]
    return {**rows, "KL_completion_ids": [answers[-1], *answers[:-1]]}
