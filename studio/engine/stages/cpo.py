"""Contrastive preference optimisation and SimPO over trl's CPOTrainer, with rows that are tokens already.

Not here: the rows (studio.engine.pairs).
"""

from __future__ import annotations

from studio.engine.stages.contrasting import Contrasting, CPOConfig, CPOTrainer
from studio.engine.stages.setup import Setup, arguments, train_in_fp32, tuned
from studio.specs import CpoStage


def cpo_trainer(setup: Setup) -> CPOTrainer:
    """A trainer that is ready to train.

    Source: CPO: Xu et al., arXiv:2401.08417, section 3; SimPO: Meng et al., arXiv:2405.14734, section 2.
    """
    stage: CpoStage = setup.spec.stage
    own = {
        "beta": stage.beta,
        "loss_type": stage.preference_loss,
        "simpo_gamma": stage.simpo_gamma,
        "cpo_alpha": stage.cpo_alpha,
        "max_length": setup.spec.data.max_length,
        "remove_unused_columns": False,  # trl's collator has names of its own
    }
    trainer = tuned(_Trainer, setup.tuning)(
        model=setup.model,
        args=CPOConfig(**{**own, **arguments(setup)}),
        train_dataset=setup.rows.train,
        eval_dataset=setup.rows.held,
        processing_class=setup.tokenizer,
        callbacks=list(setup.callbacks),
    )
    train_in_fp32(trainer.model)
    return trainer


class _Trainer(Contrasting, CPOTrainer):
    pass
