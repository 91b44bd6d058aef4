"""Every optimiser of the spec trains, saves its state and goes on from it, on whatever device there is."""

import math
from typing import get_args

import pytest
import torch

from studio.events import Step
from studio.specs import TrainingSpec
from tests.engine.test_train import Run, spec

EVERY = [name for name in get_args(TrainingSpec.model_fields["optimizer"].annotation) if name != "auto"]
RATES = {"sgd": 1.0, "lion_8bit": 1e-3, "paged_lion_8bit": 1e-3}


def wanted(tiny, dataset, optimizer):
    training = {"optimizer": optimizer, "learning_rate": RATES.get(optimizer, 1e-2), "max_steps": 8}
    # matrices of less than 4,096 numbers would keep their states in 32 bits
    method = {"rank": 128, "alpha": 128}
    sections = {"method": method, "training": training, "evaluation": {"prompts": []}}
    return spec(tiny(), dataset, model={"dtype": "fp32"}, **sections)


@pytest.mark.parametrize(
    "optimizer",
    [name if name == "paged_adamw_8bit" else pytest.param(name, marks=pytest.mark.slow) for name in EVERY],
)
def test_every_optimiser_trains_and_goes_on_exactly(tiny, dataset, tmp_path, optimizer):
    whole, halved = Run(tmp_path / "whole"), Run(tmp_path / "halved")
    whole(wanted(tiny, dataset, optimizer))
    losses = [step.loss for step in whole.of(Step)]
    assert all(map(math.isfinite, losses)) and losses[-1] < losses[0]
    halved(wanted(tiny, dataset, optimizer), stop_at=5)
    halved(wanted(tiny, dataset, optimizer))
    assert [step.loss for step in halved.of(Step)] == losses[5:]
    for name, tensor in whole.weights().items():
        assert torch.equal(tensor, halved.weights()[name]), name
