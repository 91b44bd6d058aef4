"""Every loss of DPO on one batch: finite, with a gradient, and lower for the pair that is told apart."""

from typing import get_args

import pytest
import torch

from studio.specs.stages import DpoLoss
from studio.templates import resolve
from tests.engine.stages.conftest import preferring

LOSSES = get_args(DpoLoss)


@pytest.fixture(scope="module")
def trainer(tiny, tmp_path_factory):
    """A DPO trainer over two pairs of tokens."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM

    from studio import hardware
    from studio.engine.methods import Context, tuning
    from studio.engine.models.load import load_tokenizer
    from studio.engine.rows.conversations import Rows
    from studio.engine.stages import STAGES, Setup

    spec = preferring(tiny(), "dpo", stage={"kind": "dpo", "label_smoothing": 0.1})
    tokenizer, text_tokenizer = load_tokenizer(tiny())
    pairs = {"prompt_ids": [[5, 6], [7]], "chosen_ids": [[8, 9], [10]], "rejected_ids": [[11], [12, 13, 14]]}
    rows = Rows(Dataset.from_dict(pairs), None, {}, {})
    method = tuning(spec.method)
    torch.manual_seed(0)
    model = method.attach(
        AutoModelForCausalLM.from_pretrained(tiny()), Context(spec, tiny(), text_tokenizer.ids, lambda count: iter(()))
    )
    return STAGES["dpo"].trainer(
        Setup(
            spec,
            model=model,
            tuning=method,
            tokenizer=tokenizer,
            text_tokenizer=text_tokenizer,
            template=resolve("chatml", text_tokenizer),
            rows=rows,
            checkpoints=tmp_path_factory.mktemp("dpo"),
            choices=hardware.choices(spec, hardware.detect()),
            callbacks=[],
            emit=lambda event: None,
        )
    )


@pytest.mark.parametrize("loss", LOSSES)
def test_each_loss_is_known_to_the_trainer_and_has_a_gradient(loss, trainer):
    trainer.loss_types, trainer.loss_weights = [loss], [1.0]
    batch = trainer.data_collator([trainer.train_dataset[0], trainer.train_dataset[1]])
    trainer.model.train()
    trainer.model.zero_grad()
    found = trainer.compute_loss(trainer.model, {name: each.to(trainer.args.device) for name, each in batch.items()})
    found.backward()
    moved = sum(each.grad.abs().sum() for each in trainer.model.parameters() if each.grad is not None)
    assert torch.isfinite(found) and moved > 0
