"""Waits with a checkpoint that the disk has no room for, and names a full disk. Not here: the forecast (engine.fit)."""

from __future__ import annotations

import errno
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from studio.engine.checkpoints import complete_checkpoints
from studio.events import Emit, Note, Phase

SPARE = 64 * 1024**2
"""Bytes that stay free beside a checkpoint: for the journal and the log."""
_STATES = 3
"""A value that trains, and the two that AdamW keeps of it."""
_LOW = (
    "Paused after step {step}: the next checkpoint needs about {needed:,.0f} MiB, and {folder} has {free:,.0f} MiB "
    "free. Free some space, and the run goes on by itself; or stop it, and it ends with the checkpoints that it has."
)


@contextmanager
def full_disk_named(place: Path) -> Iterator[None]:
    """Have a full disk told as one: safetensors, torch and tokenizers raise something else when they write.

    place: a folder on the disk that is written to. Raises: OSError: it is full.
    """
    try:
        yield
    except OSError:
        raise
    except Exception as error:  # tokenizers raises nothing narrower
        cut = "inline_container" in str(error) and shutil.disk_usage(place).free < SPARE  # torch's own file format
        if not cut and "No space left" not in str(error):
            raise
        raise OSError(errno.ENOSPC, "Disk full", str(place)) from error


class Room(TrainerCallback):
    """Holds a run at a step that is to be saved, until there is room or somebody wants to stop."""

    def __init__(self, checkpoints: Path, stopping: Callable[[], bool], emit: Emit, *, wait_s: float = 2.0):
        self._checkpoints, self._stopping, self._emit, self._wait_s = checkpoints, stopping, emit, wait_s

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        if not control.should_save:
            return
        needed = self._needed(model)
        if self._free() >= needed:
            return
        told = {"needed": needed / 1024**2, "free": self._free() / 1024**2, "folder": self._checkpoints}
        self._emit(Note(text=_LOW.format(step=state.global_step, **told)))
        self._emit(Phase(name="no_room"))
        while self._free() < needed:
            if self._stopping():
                control.should_save, control.should_training_stop = False, True
                return
            time.sleep(self._wait_s)
        self._emit(Phase(name="train"))

    def _free(self) -> int:
        place = self._checkpoints if self._checkpoints.exists() else self._checkpoints.parent
        return shutil.disk_usage(place).free

    def _needed(self, model: Any) -> int:
        """Bytes of the next checkpoint: as the newest one, before the first as its values and AdamW's."""
        found = complete_checkpoints(self._checkpoints)
        if found:
            return SPARE + sum(file.stat().st_size for file in found[-1][1].rglob("*") if file.is_file())
        return SPARE + _STATES * sum(each.numel() * 4 for each in model.parameters() if each.requires_grad)
