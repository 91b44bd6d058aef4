"""Contrastive preference optimisation and SimPO over trl's CPOTrainer, with rows that are tokens already.

Not here: the rows (studio.engine.rows.pairs).
"""

from __future__ import annotations

from studio.engine.stages.contrasting import Contrasting, CPOConfig, CPOTrainer, contrasting_trainer
from studio.engine.stages.setup import Setup
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
    }
    return contrasting_trainer(setup, _Trainer, CPOConfig, own)


class _Trainer(Contrasting, CPOTrainer):
    pass
