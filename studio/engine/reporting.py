"""Where trackers such as TensorBoard keep what they are told: in the run's folder, unless a user's settings differ.

Not here: what they are told (transformers' own callbacks), and whether they are installed (studio.engine.checks).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path


def places(report_to: Sequence[str], folder: Path) -> dict[str, str]:
    """Environment variables that keep each tracker on this machine and in a folder."""
    usual = {
        "tensorboard": {"TENSORBOARD_LOGGING_DIR": str(folder / "tensorboard")},
        "trackio": {"TRACKIO_DIR": str(folder / "trackio")},
        "wandb": {"WANDB_DIR": str(folder), "WANDB_MODE": "offline"},
        "mlflow": {"MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}"},
    }
    return {name: value for tracker in report_to for name, value in usual[tracker].items()}


@contextmanager
def kept_in(folder: Path, report_to: Sequence[str]) -> Iterator[None]:
    """Set those variables for a while, but for those that the user has set."""
    mine = _unset(places(report_to, folder), os.environ)
    if mine:
        folder.mkdir(parents=True, exist_ok=True)
    os.environ.update(mine)
    try:
        yield
    finally:
        for name in mine:
            os.environ.pop(name, None)


def _unset(wanted: Mapping[str, str], environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in wanted.items() if name not in environment}
