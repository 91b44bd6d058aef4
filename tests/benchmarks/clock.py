"""What a process that trains measures of itself, whoever's trainer it is. Not here: any trainer.

It runs in environments that lack the studio, so it imports nothing of it, and of transformers what all versions have.
"""

from __future__ import annotations

import json
import os
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

VERSIONS = ("torch", "transformers", "trl", "peft", "accelerate", "bitsandbytes", "llamafactory", "unsloth")


class Clock:
    """When each optimiser step was reported, its loss, the tokens that went into it, and the CPU seconds used by then.

    The time of a step is from the report before to its own, so that nothing between steps is left out. Source of the
    tokens: the batches as they reach the trainer; padding is not counted.
    """

    def __init__(self) -> None:
        self.began = time.time()
        self.reports: list[float] = []
        self.cpu_at_report_s: list[float] = []
        self.losses: list[float] = []
        self.real: list[int] = []
        self.supervised: list[int] = []
        self._open = [0, 0]

    def batch(self, inputs: dict[str, Any]) -> None:
        """Count one forward pass. A row's first token is never predicted, so it is not a supervised one."""
        mask = inputs.get("attention_mask")
        whole = mask is None or mask.dim() != 2
        self._open[0] += inputs["input_ids"].numel() if whole else int((mask != 0).sum())
        self._open[1] += int((inputs["labels"][:, 1:] != -100).sum())

    def step(self, loss: float) -> None:
        """An optimiser step is over."""
        self.reports.append(time.time())
        self.cpu_at_report_s.append(sum(os.times()[:2]))
        self.losses.append(loss)
        self.real.append(self._open[0])
        self.supervised.append(self._open[1])
        self._open = [0, 0]

    def callback(self) -> Any:
        """For a transformers trainer with logging_steps=1."""
        from transformers import TrainerCallback

        clock = self

        class Ticking(TrainerCallback):
            def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
                if logs and "loss" in logs:
                    clock.step(float(logs["loss"]))

        return Ticking()

    def counting(self, trainer: type) -> type:
        """The trainer's class, which tells this clock of each batch."""
        clock = self

        class Counting(trainer):  # type: ignore[misc,valid-type]
            def training_step(self, model: Any, inputs: Any, *further: Any, **options: Any) -> Any:
                clock.batch(inputs)
                return super().training_step(model, inputs, *further, **options)

        Counting.__name__ = trainer.__name__
        return Counting

    def tell(self, **further: Any) -> None:
        """Print the figures as the process's last line."""
        figures = {
            "reports": self.reports,
            "cpu_at_report_s": self.cpu_at_report_s,
            "losses": self.losses,
            "real": self.real,
            "supervised": self.supervised,
            "first_step_s": self.reports[0] - self.began,
            "peak_rss_mib": peak_rss_mib(),
            "cpu_s": sum(os.times()[:4]),
            "versions": versions(),
            **gpu_memory_mib(),
        }
        sys.stdout.flush()
        print("\n" + json.dumps(figures | further), flush=True)


def bind(threads: int) -> None:
    """Let this process and its children compute on so many threads, each with a core of its own.

    Call this before torch is imported.
    """
    os.environ["OMP_NUM_THREADS"] = str(threads)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def peak_rss_mib(pid: int | str = "self") -> float | None:
    """The most memory that a process has had resident. None: it is gone, or this is not Linux."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), None)


def gpu_memory_mib() -> dict[str, float]:
    """The most that torch held on the first GPU: by tensors, and with what it keeps in reserve."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return {}
    held = {"allocated": torch.cuda.max_memory_allocated(0), "reserved": torch.cuda.max_memory_reserved(0)}
    return {f"peak_gpu_{name}_mib": count / 1024**2 for name, count in held.items()}


def versions() -> dict[str, str]:
    installed = {each.name.lower() for each in metadata.distributions() if each.name}
    return {name: metadata.version(name) for name in VERSIONS if name in installed}
