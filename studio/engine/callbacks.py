"""What a trainer tells while it trains: steps, checkpoints, validation losses and sample answers, as events.

Also the cooperative stop, and the rotation of checkpoints. Not here: what a checkpoint holds (transformers writes it).
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from studio.engine.best import Log, best
from studio.engine.checkpoints import MANIFEST, complete_checkpoints, seal
from studio.engine.divergence import diverged
from studio.engine.generate import Request, complete
from studio.engine.models.memory import peak_gib
from studio.engine.models.narrow import unpacked
from studio.events import Emit, Measured, Note, Sample, Saved, Step
from studio.specs import Sampling, TrainSpec

_TOLD_APART = frozenset({"loss", "learning_rate", "grad_norm", "epoch", "num_tokens", "step_time", "total_flos"})
_OF_THE_CLOCK = ("runtime", "samples_per_second", "steps_per_second", "preparation_time", "jit_compilation_time")
_NAMES = {
    "margin": "rewards/margins",
    "mean_reward": "rewards/mean",
    "min_reward": "rewards/min",
    "max_reward": "rewards/max",
}
"""Figures of a reward model that the other trainers call otherwise."""


MOST_HELD_TWICE = 0.1
"""Of a model's parameters, the most of which a run keeps a copy for a moment."""


class Reporter(TrainerCallback):
    """Turns the trainer's logs into Step and Measured events. One step is one optimiser step.

    likelihood: the loss is that of tokens, so that a perplexity follows from it.
    """

    def __init__(self, emit: Emit, *, likelihood: bool = True):
        self._emit = emit
        self._likelihood = likelihood
        self._began = 0.0
        self._seconds = 0.0
        self._tokens = 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._began = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._seconds = time.perf_counter() - self._began

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        if not logs or "loss" not in logs:
            return
        loss = float(logs["loss"])
        if not math.isfinite(loss):
            raise diverged(f"The loss became {loss} at step {state.global_step}.", Path(args.output_dir))
        self._emit(
            Step(
                step=state.global_step,
                epoch=round(state.epoch or 0.0, 4),
                loss=loss,
                learning_rate=float(logs["learning_rate"]),
                grad_norm=_finite(logs.get("grad_norm")),
                tokens_per_s=self._speed(logs.get("num_tokens")),
                seconds=round(self._seconds, 4),
                memory_gib=round(peak_gib(), 3),
                figures=figures(logs),
            )
        )

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, Any] | None = None, **_: Any) -> None:
        found = {key.removeprefix("eval_"): value for key, value in (metrics or {}).items()}
        loss = found.get("loss")
        if loss is not None and not math.isfinite(float(loss)):
            self._emit(Note(text=f"The validation loss at step {state.global_step} is {float(loss)}, not a number."))
        elif loss is not None:
            perplexity = {"perplexity": math.exp(min(float(loss), 700.0))} if self._likelihood else {}
            self._emit(Measured(step=state.global_step, scores={"loss": float(loss), **perplexity, **figures(found)}))

    def _speed(self, total: float | None) -> float | None:
        """Tokens per second over the last step, where the trainer counts them. total: since it began."""
        if total is None:
            return None
        tokens, self._tokens = float(total) - self._tokens, float(total)
        return round(tokens / self._seconds, 1) if self._seconds else None


def figures(logs: dict[str, Any]) -> dict[str, float]:
    """What a log says besides what every trainer does; figures that are no number are left out."""
    chosen = {key: value for key, value in logs.items() if key not in _TOLD_APART and not key.endswith(_OF_THE_CLOCK)}
    numbers = {key: value for key, value in chosen.items() if isinstance(value, int | float) and math.isfinite(value)}
    return {_NAMES.get(key, key): float(f"{value:.6g}") for key, value in numbers.items()}


class Stopper(TrainerCallback):
    """Ends the run at the next step once asked, after a save.

    A flag that is read between steps: saving from inside a step (transformers' just-in-time checkpoint) resumes with
    other weights when dropout is on.
    """

    def __init__(self, stopping: Callable[[], bool]):
        self._stopping = stopping

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._stopping():
            control.should_save = True
            control.should_training_stop = True


class Keeper(TrainerCallback):
    """Completes each checkpoint with a manifest, then removes the oldest ones, by step.

    transformers' own rotation goes by file time, which a clock set back turns into deleting the newest. The checkpoint
    of the best validation stays, however old it gets. facts: what each manifest says besides its files.
    """

    def __init__(
        self, checkpoints: Path, limit: int, finish: Callable[[Path], None], emit: Emit, facts: Mapping[str, Any]
    ):
        self._checkpoints = checkpoints
        self._limit = limit
        self._finish = finish
        self._emit = emit
        self._facts = facts

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        folder = self._checkpoints / f"checkpoint-{state.global_step}"
        self._finish(folder)
        seal(folder, state.global_step, **self._facts)
        self._emit(Saved(step=state.global_step, path=str(Path(self._checkpoints.name) / folder.name)))
        rotate(self._checkpoints, self._limit, state.log_history)


def rotate(checkpoints: Path, limit: int, log: Log) -> None:
    """Remove the oldest checkpoints, by step, and what a kill left of saves and removals; never the best one."""
    top = best(log)
    for step, old in complete_checkpoints(checkpoints)[:-limit]:
        if top and step == top.step:
            continue
        (old / MANIFEST).unlink()  # first, so that a kill in the middle leaves no folder that looks whole
        shutil.rmtree(old)
    for folder in checkpoints.glob("checkpoint-*"):
        if not (folder / MANIFEST).exists():
            shutil.rmtree(folder)


class Sampler(TrainerCallback):
    """Lets the model answer fixed prompts at chosen steps, greedily, so that nothing random is used up.

    Answers take longer than a step, and whoever waits for a loss would wait for them too: they come after the step is
    told. Those of step 0 come after the first step, with what it changed put back for as long as that takes; where much
    of the model trains, which would be held twice, they come first.
    """

    def __init__(
        self, spec: TrainSpec, prompts: Sequence[list[int]], stop: frozenset[int], decode_text: Any, emit: Emit
    ):
        self._spec = spec
        self._prompts = prompts
        self._stop = stop
        self._decode_text = decode_text
        self._emit = emit
        self._steps: frozenset[int] = frozenset()
        self._owed = False
        self._before: list[tuple[torch.nn.Parameter, torch.Tensor]] = []
        self.give_back: Callable[[], None] = lambda: None
        """Frees what a trainer holds between steps, as answers need memory too."""

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        self._steps = sample_steps(state.max_steps, self._spec.evaluation.sample_steps)
        self._owed = state.global_step == 0 and bool(self._prompts)
        if self._owed and _trained_share(model) > MOST_HELD_TWICE:
            self._owed = False
            self._answer(model, 0)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        if self._owed and not self._before:
            # an optimiser changes what has a gradient, and nothing else
            self._before = [(each, each.detach().clone()) for each in model.parameters() if each.grad is not None]

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, model: Any = None, **_: Any
    ) -> None:
        """Each step is logged once, and told by then."""
        if not logs or "loss" not in logs:
            return
        if self._owed:
            self._owed = False
            with _put_back(self._before):
                self._answer(model, 0)
            self._before = []
        if state.global_step in self._steps or state.global_step == state.max_steps:
            self._answer(model, state.global_step)

    def _answer(self, model: Any, step: int) -> None:
        if not self._prompts:
            return
        sampling = Sampling(max_tokens=self._spec.evaluation.max_new_tokens)
        was_training = model.training
        model.eval()
        self.give_back()
        try:
            with unpacked(model):
                answers = complete(model, [Request(prompt, None, sampling, self._stop) for prompt in self._prompts])
        finally:
            model.train(was_training)
        for prompt, answer in zip(self._spec.evaluation.prompts, answers, strict=True):
            self._emit(Sample(step=step, prompt=prompt, answer=self._decode_text(answer)))


def _trained_share(model: Any) -> float:
    sizes = [(each.numel(), each.requires_grad) for each in model.parameters()]
    return sum(size for size, trains in sizes if trains) / max(1, sum(size for size, _ in sizes))


@contextmanager
def _put_back(before: Sequence[tuple[torch.nn.Parameter, torch.Tensor]]) -> Iterator[None]:
    """The model with earlier values of some parameters, which come back as they are now."""
    now = [(parameter, parameter.detach().clone()) for parameter, _ in before]
    try:
        _put(before)
        yield
    finally:
        _put(now)


@torch.no_grad()
def _put(values: Sequence[tuple[torch.nn.Parameter, torch.Tensor]]) -> None:
    for parameter, value in values:
        parameter.copy_(value)


def sample_steps(total: int, every: int | None) -> frozenset[int]:
    """Steps at which sample answers are taken: every n, or five times on the way."""
    if every is not None:
        return frozenset(range(every, total + 1, every))
    return frozenset(round(total * part / 5) for part in range(1, 6)) - {0}


def _finite(value: Any) -> float | None:
    number = float(value) if value is not None else math.nan
    return number if math.isfinite(number) else None
