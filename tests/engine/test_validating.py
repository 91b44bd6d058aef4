"""Validation around a run, with a trainer that draws at random: nothing of the run notices it."""

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from studio.engine.rows import Rows
from studio.engine.validating import examine


class Drawing:
    """A trainer whose validation draws from all generators, logs, and calls whoever watches."""

    def __init__(self):
        self.args = SimpleNamespace(seed=7)
        self.state = SimpleNamespace(log_history=[{"step": 1, "loss": 2.0}])
        self.callback_handler = SimpleNamespace(callbacks=[self])

    def evaluate(self):
        assert self.callback_handler.callbacks == []
        self.state.log_history.append({"eval_loss": 1.0})
        reward = random.random() + np.random.rand() + float(torch.rand(()))
        return {"eval_loss": 1.0, "eval_reward": reward, "eval_runtime": 3.0}


@pytest.fixture
def rows():
    return Rows(train=[], held=["a", "b"], hashes={}, counts={}, told=[], refusal="")


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
    examine(Drawing(), rows)
    assert drawn() == undisturbed


def test_what_is_drawn_before_and_after_a_run_is_drawn_alike(rows):
    before = examine(Drawing(), rows)
    random.random(), np.random.rand(), torch.rand(3)
    assert examine(Drawing(), rows) == before
    assert set(before["validation"]) == {"loss", "reward", "rows"} and before["validation"]["rows"] == 2


def test_neither_the_log_nor_who_watches_learns_of_it(rows):
    trainer = Drawing()
    examine(trainer, rows)
    assert trainer.state.log_history == [{"step": 1, "loss": 2.0}] and trainer.callback_handler.callbacks == [trainer]


def test_without_rows_held_out_nothing_is_measured(rows):
    assert examine(Drawing(), Rows([], None, {}, {}, [], "")) == {}
