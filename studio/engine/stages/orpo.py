"""Odds-ratio preference optimisation over trl's ORPOTrainer, with rows that are tokens already.

Not here: the rows (studio.engine.rows.pairs).
"""

from __future__ import annotations

from studio.engine.stages.contrasting import Contrasting, ORPOConfig, ORPOTrainer, contrasting_trainer
from studio.engine.stages.setup import Setup
from studio.specs import OrpoStage


def orpo_trainer(setup: Setup) -> ORPOTrainer:
    """A trainer that is ready to train. Source: Hong et al., arXiv:2403.07691, section 4.

    As in trl, the chosen answer is learned together with its prompt; only the answers are compared.
    """
    stage: OrpoStage = setup.spec.stage
    return contrasting_trainer(setup, _Trainer, ORPOConfig, {"beta": stage.beta})


class _Trainer(Contrasting, ORPOTrainer):
    pass
