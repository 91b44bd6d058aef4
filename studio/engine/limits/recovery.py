"""Training that outlives a lack of memory: the rows of a step stay the same, fewer of them are computed at once.

The step that failed begins again, from the newest finished one. Not here: the fast path, which divides its steps
itself (fast.trainer), and the check before the first step (preflight).
"""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import torch

from studio.engine.checkpoints import complete_checkpoints
from studio.engine.limits.memory import out_of_memory
from studio.errors import OutOfMemory
from studio.events import Emit, Note

_HALVED = (
    "Memory ran out in step {step}. It began again with {size} rows at a time, {times} times a step: the rows of "
    "a step stay the same."
)
_RECOMPUTED = "Memory ran out in step {step}. It began again with recomputed activations: slower, with less memory."
_NOTHING_LEFT = (
    "Out of memory in step {step} with a single row at a time. Lower data.max_length, quantise the base, or choose a "
    "smaller one."
)
_GENERATED = (
    "Out of memory in step {step}. Lower training.batch_size or stage.generations or stage.max_completion_length; the "
    "answers to a question are compared in one batch, which cannot be divided unasked."
)


def train_through(trainer: Any, newest: str | None, emit: Emit) -> None:
    """Train to the end, whatever memory says. newest: a checkpoint's folder to go on from.

    Raises: OutOfMemory: memory ran out and there is nothing left to divide.
    """
    while True:
        try:
            trainer.train(resume_from_checkpoint=newest)
            return
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
        # here and not in the handler, where the error keeps alive whatever was computed
        _let_go(trainer)
        step = trainer.state.global_step + 1
        _refuse_hopeless(trainer, step)
        newest = _saved(trainer) or newest
        emit(Note(text=_divide(trainer, step)))


def _let_go(trainer: Any) -> None:
    trainer.model.zero_grad()
    gc.collect()
    torch.cuda.empty_cache()


def _refuse_hopeless(trainer: Any, step: int) -> None:
    if hasattr(trainer, "num_generations"):  # trl's trainers that write answers
        raise OutOfMemory(_GENERATED.format(step=step))
    if trainer.args.per_device_train_batch_size == 1 and trainer.model.is_gradient_checkpointing:
        raise OutOfMemory(_NOTHING_LEFT.format(step=step))


def _saved(trainer: Any) -> str | None:
    """The checkpoint of the last finished step, written now if it was not."""
    if trainer.state.global_step == 0:
        return None
    trainer._save_checkpoint(trainer.model, trial=None)
    trainer.control = trainer.callback_handler.on_save(trainer.args, trainer.state, trainer.control)
    trainer.optimizer = trainer.lr_scheduler = None  # the next attempt makes them and reads their state
    trainer.accelerator.free_memory()
    return str(complete_checkpoints(Path(trainer.args.output_dir))[-1][1])


def _divide(trainer: Any, step: int) -> str:
    """Fewer rows at a time, and as many more times. Returns: what was done."""
    size = trainer.args.per_device_train_batch_size
    if size == 1:
        trainer.model.enable_input_require_grads()
        trainer.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        trainer.args.gradient_checkpointing = True
        return _RECOMPUTED.format(step=step)
    smaller = next(part for part in range(size // 2, 0, -1) if size % part == 0)
    trainer.args.per_device_train_batch_size = trainer._train_batch_size = smaller
    trainer.args.gradient_accumulation_steps *= size // smaller
    return _HALVED.format(step=step, size=smaller, times=trainer.args.gradient_accumulation_steps)
