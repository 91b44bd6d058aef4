"""What a model's own answers to the prompts held out are worth, before a run and after it.

Not here: what scores them (studio.engine.rewards), and validation on the way (the trainer itself).
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from transformers import set_seed

from studio.engine.callbacks import figures
from studio.engine.rows.conversations import Rows


def examine(trainer: Any, rows: Rows) -> dict[str, dict[str, float]]:
    """Mean reward, length and the like of answers to the prompts held out; empty where there are none.

    As many answers to each as in training, drawn alike each time. They are scored as the trainer scores them, without
    the loss of its validation, which would take as long again and says nothing here.
    """
    if rows.held is None:
        return {}
    told = trainer._metrics["eval"]
    sizes = []
    with _evaluating(trainer.model), _randomness_apart(trainer.args.seed):
        for batch in trainer.get_eval_dataloader():
            with torch.no_grad(), trainer.accelerator.autocast():
                trainer._prepare_inputs(batch)
            sizes.append(len(batch))
    means = {name: _mean(values, sizes) for name, values in told.items() if len(values) == len(sizes)}
    told.clear()
    return {"validation": {**figures(means), "rows": float(len(rows.held))}}


def _mean(values: Sequence[float], sizes: Sequence[int]) -> float:
    """Of means over batches, of which the last may be smaller."""
    return float(np.average(values, weights=sizes))


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


@contextmanager
def _randomness_apart(seed: int) -> Iterator[None]:
    """Draws from a seed of its own, and leaves the generators of Python, NumPy and torch as they were."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(range(torch.cuda.device_count())):
        set_seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
