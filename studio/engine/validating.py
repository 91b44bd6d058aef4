"""What a trainer's own validation finds on the rows held out, before a run and after it: margins, or rewards.

Not here: what is measured (the trainer itself), and finished runs (studio.engine.evaluate_pairs).
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from transformers import set_seed

from studio.engine.callbacks import figures
from studio.engine.rows import Rows


def examine(trainer: Any, rows: Rows) -> dict[str, dict[str, float]]:
    """Loss, margin, accuracy, reward and the like on the rows held out, as the model is now; empty without any.

    Each is the mean over batches. Nobody watches, so that it is no validation of the run: neither its chart nor its
    early stopping knows of it. What is drawn at random, such as answers to prompts, is drawn alike each time.
    """
    if rows.held is None:
        return {}
    handler = trainer.callback_handler
    watching, handler.callbacks = handler.callbacks, []
    history = list(trainer.state.log_history)
    try:
        with _randomness_apart(trainer.args.seed):
            found = trainer.evaluate()
    finally:
        handler.callbacks, trainer.state.log_history = watching, history
    scores = {key.removeprefix("eval_"): value for key, value in found.items()}
    return {"validation": {"loss": float(scores["loss"]), **figures(scores), "rows": float(len(rows.held))}}


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
