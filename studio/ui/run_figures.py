"""The figures that a run has besides its loss, and which validation was its best. Pure. Not here: how they look."""

from __future__ import annotations

from collections.abc import Iterable

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
