"""Odds-ratio preference optimisation over trl's ORPOTrainer, with rows that are tokens already.

Not here: the rows (studio.engine.pairs).
"""

from __future__ import annotations

from studio.engine.stages.contrasting import Contrasting, ORPOConfig, ORPOTrainer
from studio.engine.stages.setup import Setup, arguments, train_in_fp32, tuned
from studio.specs import OrpoStage


def orpo_trainer(setup: Setup) -> ORPOTrainer:
    """A trainer that is ready to train. Source: Hong et al., arXiv:2403.07691, section 4.

    As in trl, the chosen answer is learned together with its prompt; only the answers are compared.
    """
    stage: OrpoStage = setup.spec.stage
    own = {
        "beta": stage.beta,
        "max_length": setup.spec.data.max_length,
        "remove_unused_columns": False,  # trl's collator has names of its own
    }
    trainer = tuned(_Trainer, setup.tuning)(
        model=setup.model,
        args=ORPOConfig(**{**own, **arguments(setup)}),
        train_dataset=setup.rows.train,
        eval_dataset=setup.rows.held,
        processing_class=setup.tokenizer,
        callbacks=list(setup.callbacks),
    )
    train_in_fp32(trainer.model)
    return trainer


class _Trainer(Contrasting, ORPOTrainer):
    pass
