"""The head that a stage gives a model. Not here: what a method trains of it (parameters)."""

from __future__ import annotations

from studio.data.labels import labels_of
from studio.engine.counting.shapes import Shapes
from studio.errors import DataError
from studio.specs import TrainSpec


def headed(spec: TrainSpec, shapes: Shapes, labels: int | None = None) -> Shapes:
    """The model as the stage loads it: with a head that classifies, or scores, or as it is."""
    if spec.stage.kind == "reward":
        return shapes.with_labels(1)
    if spec.stage.kind == "classify":
        return shapes.with_labels(labels or _labels(spec), bias=spec.stage.head_bias)
    return shapes


def _labels(spec: TrainSpec) -> int:
    """How many labels the rows of the run have. Raises: DataError: no dataset is chosen, or too few are found."""
    if not spec.data.datasets:
        raise DataError("No dataset is chosen, so its labels cannot be counted. Set data.datasets.")
    return len(labels_of(spec.data))
