"""Direct preference optimisation and its kin over trl's DPOTrainer, with rows that are tokens already.

Dropout is off, so that the model and its reference differ by what was learned only. Not here: the rows
(studio.engine.rows.pairs) and the reference (reference).
"""

from __future__ import annotations

from typing import Any

from datasets import Dataset
from trl import DPOConfig, DPOTrainer

from studio.engine.stages.reference import NoReference, begins_as_base, keep_beginning
from studio.engine.stages.setup import Setup, arguments, train_in_fp32, tuned
from studio.specs import DpoStage


def dpo_trainer(setup: Setup) -> DPOTrainer:
    """A trainer that is ready to train. Source: Rafailov et al., arXiv:2305.18290, section 4."""
    stage: DpoStage = setup.spec.stage
    own = {
        "loss_type": list(stage.loss),
        "loss_weights": list(stage.loss_weights) or None,
        "beta": stage.beta,
        "label_smoothing": stage.label_smoothing,
        "max_length": None,  # rows are cut already
    }
    base = begins_as_base(setup)
    trainer = tuned(_Trainer, setup.tuning)(
        model=setup.model,
        ref_model=NoReference(setup.model),
        args=DPOConfig(**{**own, **arguments(setup)}),
        train_dataset=setup.rows.train,
        eval_dataset=setup.rows.held,
        processing_class=setup.tokenizer,
        callbacks=list(setup.callbacks),
    )
    train_in_fp32(trainer.model)
    keep_beginning(trainer, setup, base=base)
    return trainer


class _Trainer(DPOTrainer):
    def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
        """As it is: its rows are tokens already."""
        return dataset
