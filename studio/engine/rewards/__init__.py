"""Rewards: what an answer of the model is worth. One file each, one name each below.

A reward is called with prompts, completions, reference (lists of texts, one for each answer), conversation (JSON of the
prompt's turns), and more that it may ignore; it returns a number for each answer, or None where it has no opinion.
"""

from collections.abc import Callable, Mapping
from typing import Any

from studio.engine.rewards.exact_match import exact_match
from studio.engine.rewards.file import from_file
from studio.engine.rewards.judge import Judge, judged
from studio.engine.rewards.number_match import number_match

Reward = Callable[..., list[float | None]]
REWARDS: Mapping[str, Callable[..., Reward]] = {
    "exact_match": lambda code, judge: exact_match,
    "number_match": lambda code, judge: number_match,
    "file": lambda code, judge: from_file(code),
    "model": lambda code, judge: judged(judge),
}

__all__ = ["REWARDS", "Judge", "Reward", "rewards"]


def rewards(names: tuple[str, ...], *, code: Any = None, judge: Judge | None = None) -> list[Reward]:
    """The rewards of a run by name. code: a Python file named in the shell. judge: a trained reward model.

    Raises: StudioError: the file cannot be used. ModelError: the reward model cannot be loaded.
    """
    return [REWARDS[name](code, judge) for name in names]
