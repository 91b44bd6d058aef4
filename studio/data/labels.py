"""The labels of classified rows, in the order in which a model's head names them. Not here: which rows are used."""

from __future__ import annotations

from functools import lru_cache

from studio.data import registry
from studio.data.example import Example
from studio.errors import DataError
from studio.specs import DataSpec


def labels_of(data: DataSpec) -> tuple[str, ...]:
    """Every label of the run's datasets, sorted: whole numbers by their value, anything else by name.

    Raises: DataError: there are fewer than two.
    """
    datasets = [registry.get(name) for name in data.datasets]
    found = {label for each in datasets for label in _labels(each.name, each.sha256, repr(each.how))}
    if len(found) < 2:
        what = f"only the label '{next(iter(found))}'" if found else "no label"
        raise DataError(
            f"The rows of {', '.join(data.datasets)} have {what}, and a classifier tells at least two apart. "
            "Map another column to the label, or choose another dataset."
        )
    return tuple(sorted(found, key=int if all(map(_is_whole, found)) else str))


@lru_cache(maxsize=16)
def _labels(name: str, sha256: str, how: str) -> frozenset[str]:
    """sha256 and how: what the rows are and how they are read, so that they are read anew when either changes."""
    outcomes = (outcome for _, outcome in registry.outcomes(registry.get(name)))
    return frozenset(
        str(outcome.label) for outcome in outcomes if isinstance(outcome, Example) and outcome.kind == "classification"
    )


def _is_whole(label: str) -> bool:
    return label.isascii() and label.removeprefix("-").isdigit() and str(int(label)) == label
