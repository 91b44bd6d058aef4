"""Rewards from a Python file of the user's own: `def reward(prompts, completions, reference, **more) -> list[float]`.

Such a file is code that runs with the user's rights, so only somebody at the shell can name one; the page cannot.
"""

from __future__ import annotations

import importlib.util
import math
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from studio.errors import StudioError

NAME = "reward"


def from_file(path: Path | None) -> Callable[..., list[float | None]]:
    """The function `reward` of a file, whose results are checked.

    Raises: StudioError: there is no such file, it cannot be run, or it has no such function.
    """
    if path is None or not path.is_file():
        raise StudioError(f"The file with the reward function is missing: {path}. Name it with: --reward-file FILE.py")
    function = getattr(_loaded(path), NAME, None)
    if not callable(function):
        raise StudioError(f"{path.name} has no function {NAME}(prompts, completions, reference, **more). Add it.")

    def reward(*, completions: list[str], **given: Any) -> list[float | None]:
        try:
            found = function(completions=completions, **given)
        except Exception as error:  # whatever the user's code raises is the user's to read
            raise StudioError(f"{path.name}, {_place(error, path)}: {type(error).__name__}: {error}") from error
        return _checked(found, len(completions), path)

    return reward


def _loaded(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location("studio_reward_file", path)
    module = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
    try:
        spec.loader.exec_module(module)  # type: ignore[union-attr]
    except Exception as error:  # whatever the user's code raises is the user's to read
        raise StudioError(f"{path.name}, {_place(error, path)}: {type(error).__name__}: {error}") from error
    return module


def _place(error: Exception, path: Path) -> str:
    """The line of the user's file where it happened."""
    if isinstance(error, SyntaxError) and error.lineno:
        return f"line {error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == path]
    return f"line {lines[-1]}" if lines else "when it was called"


def _checked(found: Any, count: int, path: Path) -> list[float | None]:
    if not isinstance(found, (list, tuple)) or len(found) != count:
        size = len(found) if hasattr(found, "__len__") else type(found).__name__
        raise StudioError(
            f"{path.name}: {NAME} must return a list of {count} numbers, one for each answer, not {size}."
        )
    for value in found:
        if value is not None and (not isinstance(value, (int, float)) or not math.isfinite(value)):
            raise StudioError(
                f"{path.name}: {NAME} returned {value!r}, which is not a number. Return a number or None."
            )
    return [None if value is None else float(value) for value in found]
