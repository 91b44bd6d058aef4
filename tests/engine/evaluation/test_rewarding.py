"""Answers to the prompts held out, with a trainer that draws at random: nothing of the run notices them."""

import random
from collections import defaultdict
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from studio.engine.evaluation.rewarding import examine
from studio.engine.rows.conversations import Rows


class Drawing:
    """A trainer whose answers come from all generators. batches: of prompts; each scores its own size."""

    def __init__(self, *batches):
        self.batches = batches
        self.args = SimpleNamespace(seed=7)
        self.model = torch.nn.Dropout()
        self.accelerator = SimpleNamespace(autocast=nullcontext)
        self._metrics = {"train": defaultdict(list), "eval": defaultdict(list)}

    def get_eval_dataloader(self):
        return self.batches

    def _prepare_inputs(self, batch):
        assert not self.model.training and not torch.is_grad_enabled()
        self._metrics["eval"]["reward"].append(float(len(batch)))
        self._metrics["eval"]["entropy"].append(random.random() + np.random.rand() + float(torch.rand(())))
        self._metrics["eval"]["num_tokens"] = [0]


@pytest.fixture
def rows():
    return Rows(train=[], held=["a"] * 5, hashes={}, counts={})


def test_the_run_draws_on_as_if_it_had_not_been_examined(rows):
    def drawn():
        return random.random(), np.random.rand(), float(torch.rand(()))

    def seeded():
        random.seed(1)
        np.random.seed(1)
        torch.manual_seed(1)

    seeded()
    undisturbed = drawn()
    seeded()
    trainer = Drawing("ab", "cd", "e")
    examine(trainer, rows)
    assert drawn() == undisturbed
    assert trainer.model.training and not trainer._metrics["eval"], "the next validation would count these too"


def test_what_is_drawn_before_and_after_a_run_is_drawn_alike(rows):
    before = examine(Drawing("ab", "cd", "e"), rows)
    random.random(), np.random.rand(), torch.rand(3)
    assert examine(Drawing("ab", "cd", "e"), rows) == before


def test_each_prompt_weighs_alike_whatever_batch_it_is_in(rows):
    found = examine(Drawing("ab", "cd", "e"), rows)["validation"]
    assert found["reward"] == pytest.approx((2 * 2 + 2 * 2 + 1) / 5) and found["rows"] == 5


def test_without_rows_held_out_nothing_is_measured(rows):
    assert examine(Drawing(), Rows([], None, {}, {})) == {}
