"""Which validation of a run was the best, when one is due, and when to wait no longer for a better one.

All of it is read from the trainer's own log, which every checkpoint holds, so that a resumed run decides as an
uninterrupted one does. Not here: the checkpoints (Keeper in studio.engine.callbacks).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from transformers import TrainerCallback

from studio.events import Emit, Note
from studio.specs import TrainSpec

Log = Sequence[Mapping[str, Any]]
"""The trainer's log_history: one mapping for each step and for each validation."""
REWARD, LOSS = "eval_reward", "eval_loss"
STATE = "trainer_state.json"


class Validation(NamedTuple):
    """figure: `loss`, of which less is better, or `reward`, of which more is."""

    step: int
    figure: str
    value: float

    @property
    def badness(self) -> float:
        """Less is better; what is no number is worse than any."""
        if not math.isfinite(self.value):
            return math.inf
        return -self.value if self.figure == "reward" else self.value

    def __str__(self) -> str:
        return f"validation {self.figure} {self.value:.4g} at step {self.step}"


def validations(log: Log) -> list[Validation]:
    """In the order in which they were made. A run that draws its own answers is judged by their reward.

    One before the first step is left out: there is no checkpoint to go back to.
    """
    found = []
    for entry in log:
        key = REWARD if REWARD in entry else LOSS
        if key in entry and entry["step"] > 0:
            found.append(Validation(int(entry["step"]), key.removeprefix("eval_"), float(entry[key])))
    return found


def best(log: Log) -> Validation | None:
    """The best validation, the first of equals; None where none gave a number."""
    usable = [each for each in validations(log) if each.badness < math.inf]
    return min(usable, key=lambda each: each.badness, default=None)


def given_up(log: Log, patience: int | None) -> bool:
    """Whether `patience` validations in a row brought nothing better."""
    if patience is None:
        return False
    made, top = validations(log), best(log)
    return len(made) - (made.index(top) + 1 if top else 0) >= patience


def log_of(checkpoint: Path) -> list[dict[str, Any]]:
    """The trainer's log as a checkpoint holds it."""
    return json.loads((checkpoint / STATE).read_text(encoding="utf-8"))["log_history"]


class Watcher(TrainerCallback):
    """Asks for a validation when one is due, for a save when it is the best, and for the end when none gets better.

    A validation at the end of an epoch comes with its last step, so that it lies before the checkpoint of that step:
    transformers' own comes after it, and a run that goes on from there would miss it.
    """

    def __init__(self, spec: TrainSpec, emit: Emit):
        self._every = spec.evaluation.steps
        self._patience = spec.training.early_stopping
        self._keeps = spec.training.keep_best
        self._emit = emit

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        due = state.epoch.is_integer() if self._every is None else state.global_step % self._every == 0
        if due or state.global_step >= state.max_steps:
            control.should_evaluate = True

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        top = best(state.log_history)
        if self._keeps and top and top.step == state.global_step:
            control.should_save = True
        if given_up(state.log_history, self._patience):
            if state.global_step < state.max_steps:
                self._emit(Note(text=f"Ended early: nothing got better than {top or 'no number at all'}."))
            control.should_training_stop = control.should_save = True
