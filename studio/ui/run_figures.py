"""The figures that a run has besides its loss, which validation was its best, and where its loss spikes. Pure.

Not here: how they look.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from studio.events import Measured
from studio.jobs.monitor import JobView

LOSS = "loss"
_POINT = {
    "classify": ("accuracy",),
    "dpo": ("rewards/margins", "rewards/accuracies"),
    "orpo": ("rewards/margins", "rewards/accuracies"),
    "cpo": ("rewards/margins", "rewards/accuracies"),
    "kto": ("rewards/margins", "kl"),
    "reward": ("accuracy", "rewards/margins"),
    "grpo": ("reward", "kl"),
    "rloo": ("reward", "kl"),
}
"""What a stage is about, where that is not its loss, the most telling first."""
_COUNTS = frozenset({"rows", "prompts"})
"""Scores that say how much was measured."""
_HELD_OUT = frozenset({"adapter", "validation"})
"""Subjects of a measurement on validation rows."""


WINDOW = 20
"""Steps before one that it is compared with."""
SPREADS, SHARE = 8.0, 0.25
"""How far above their median a loss is a spike: so many median deviations, and at least this share of the median."""


def spikes(losses: Sequence[float], first: int = 0) -> list[int]:
    """Where a loss rises suddenly above those before it, as positions from `first` on."""
    start = max(WINDOW, first)
    if len(losses) <= start:
        return []
    values = np.asarray(losses, dtype=np.float32)
    before = np.lib.stride_tricks.sliding_window_view(values, WINDOW)[start - WINDOW : len(values) - WINDOW]
    middle = _medians(before)
    over = values[start:] - middle
    (high,) = np.nonzero(over > SHARE * np.abs(middle))
    spread = _medians(np.abs(before[high] - middle[high, None]))
    return [start + int(at) for at in high[over[high] > SPREADS * spread]]


def _medians(rows: np.ndarray) -> np.ndarray:
    """Of each row, the lower one of the two in the middle; five times as fast as numpy's median."""
    return np.partition(rows, WINDOW // 2 - 1, axis=1)[:, WINDOW // 2 - 1]


def stage_of(view: JobView) -> str:
    """The kind of a run's stage."""
    return ((view.spec or {}).get("stage") or {}).get("kind", "sft")


def figures_of(view: JobView) -> list[str]:
    """The names of the figures that a run has told so far, first those that its stage is about; never empty."""
    first, last = view.steps[:1], view.steps[-1:]
    told = {name for step in (*first, *last) for name in step.figures}
    told |= {name for each in validations(view) for name in each.scores if name not in _COUNTS}
    leading = [name for name in _POINT.get(stage_of(view), ()) if name in told]
    return [*leading, LOSS, *sorted(told - {LOSS, *leading})]


def validations(view: JobView) -> list[Measured]:
    """What was measured on validation rows on the way, in order."""
    return [each for each in view.measured if each.step is not None and each.subject in _HELD_OUT]


def best(view: JobView) -> tuple[int, str, float] | None:
    """The step of the best validation, and the figure and value that make it the best: the reward, else the loss."""
    made = validations(view)
    figure = "reward" if any("reward" in each.scores for each in made) else LOSS
    values = list(_values(made, figure))
    if not values:
        return None
    step, value = (max if figure == "reward" else min)(values, key=lambda pair: pair[1])
    return step, figure, value


def _values(made: Iterable[Measured], figure: str) -> Iterable[tuple[int, float]]:
    return ((each.step or 0, each.scores[figure]) for each in made if figure in each.scores)
