"""What a run will need, with what earlier jobs on this machine tell of its rows and its pace.

Rows: from the newest audit of exactly these rows that counted their tokens with this model. Pace: of the newest
finished runs with the same base, method, stage and quantisation on this device. Not here: the estimate itself
(studio.engine.fit).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from studio import hardware
from studio.data import registry
from studio.data.registry import Dataset
from studio.engine.fit import Fit, Rows, estimate
from studio.errors import DataError
from studio.jobs import audits
from studio.jobs.monitor import JobView, Monitor
from studio.specs import TrainSpec

NEWEST = 3
"""Earlier runs whose paces are compared."""
_ALIKE = (("model", "name"), ("method", "kind"), ("stage", "kind"), ("quantization", "kind"))
"""What must be the same for a run's pace to be told of another."""


def needs(spec: TrainSpec, monitor: Monitor | None = None) -> Fit:
    """monitor: of all jobs; None reads them now. Raises: as studio.engine.fit.estimate."""
    monitor = monitor or Monitor().refresh()
    datasets = _datasets(spec)
    return estimate(
        spec,
        rows=rows(spec, datasets, monitor),
        tokens_per_s=pace(spec, monitor.views("train")),
        row_count=sum(each.valid for each in datasets),
    )


def rows(spec: TrainSpec, datasets: Sequence[Dataset], monitor: Monitor) -> Rows | None:
    """The lengths of the rows that a run trains on; None: not all of its datasets were counted with its model."""
    found = [_rows(spec, dataset, monitor) for dataset in datasets]
    counted = [each for each in found if each is not None]
    return Rows.joined(counted) if counted and len(counted) == len(found) else None


def pace(spec: TrainSpec, runs: Sequence[JobView]) -> float | None:
    """Tokens a second: the median of the newest runs like this one."""
    wanted, here = spec.model_dump(mode="json"), str(hardware.detect())
    alike = (view.tokens_per_s for view in runs if view.state == "finished" and _alike(view, wanted, here))
    known = [each for each in alike if each][:NEWEST]
    return median(known) if known else None


def _datasets(spec: TrainSpec) -> list[Dataset]:
    """Those of the run; none, where one of them is not known."""
    try:
        return [registry.get(name) for name in spec.data.datasets]
    except DataError:
        return []


def _alike(view: JobView, wanted: dict[str, Any], here: str) -> bool:
    given = view.spec or {}
    same = all(given.get(section, {}).get(name) == wanted[section][name] for section, name in _ALIKE)
    return same and view.plan is not None and view.plan.device == here


def _rows(spec: TrainSpec, dataset: Dataset, monitor: Monitor) -> Rows | None:
    for audit in audits.every(monitor, dataset):
        lengths = audit.findings / "lengths.npy"
        if (audit.report.tokens or {}).get("model") == spec.model.name and lengths.is_file():
            return _taken(spec, _lengths(lengths, lengths.stat().st_mtime_ns))
    return None


@lru_cache(maxsize=8)
def _lengths(path: Path, modified: int) -> np.ndarray:
    """(n, 4): position, tokens, supervised tokens, tokens after the audit's cutoff. modified: of the file."""
    return np.load(path, allow_pickle=False)


def _taken(spec: TrainSpec, lengths: np.ndarray) -> Rows:
    """Of all rows, as many as the run trains on, under its own cutoff."""
    data = spec.data
    tokens, supervised = lengths[:, 1], lengths[:, 2]
    trains = supervised > 0
    if data.truncation == "drop_row":
        trains &= tokens <= data.max_length
    at = np.flatnonzero(trains)
    most = min(len(at), data.max_samples or len(at))
    most = round(most * (1 - data.validation_share - data.test_share))
    at = np.sort(np.random.default_rng(data.seed).permutation(at)[:most]) if most < len(at) else at
    return Rows(tokens[at], supervised[at]).cut(data.max_length)
