"""Supervised fine-tuning and continued pre-training over trl's SFTTrainer, with rows that are masked already.

Not here: the story around it (studio.engine.train), and how the rows were made (studio.engine.rows).
"""

from __future__ import annotations

from trl import SFTConfig, SFTTrainer

from studio.engine.stages.setup import Setup, arguments, train_in_fp32, tuned
from studio.specs import ability


def sft_trainer(setup: Setup) -> SFTTrainer:
    """A trainer that is ready to train.

    Batches are padding-free where the method allows it: rows lie end to end, and position ids keep them from seeing
    each other.
    """
    stage, data = setup.spec.stage, setup.spec.data
    own = {
        "neftune_noise_alpha": stage.neftune_noise_alpha,
        "label_smoothing_factor": stage.label_smoothing,
        "loss_type": "chunked_nll" if setup.tuning.fused_loss and not stage.label_smoothing else "nll",
        "packing": stage.packing,
        "padding_free": ability(setup.spec.method).padding_free,
        # rows are cut already; with packing this is the length that several rows fill
        "max_length": data.max_length if stage.packing else None,
        "eval_packing": False,
    }
    trainer = tuned(SFTTrainer, setup.tuning)(
        model=setup.model,
        args=SFTConfig(**{**own, **arguments(setup)}),
        train_dataset=setup.rows.train,
        eval_dataset=setup.rows.held,
        processing_class=setup.tokenizer,
        callbacks=list(setup.callbacks),
    )
    train_in_fp32(trainer.model)
    return trainer
