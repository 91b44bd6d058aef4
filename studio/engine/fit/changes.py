"""The cheapest change of a spec that makes a run fit, in the order of what it costs the user.

Recomputing activations costs time; a smaller batch with as much more accumulation a little time; a quantised base some
quality at the start; a shorter cutoff the ends of rows. Where none is enough alone, they are taken together. Not here:
what a changed spec needs (estimate, which is asked for each).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from studio import specs
from studio.errors import SpecError
from studio.specs import TrainSpec, ability

SHORTEST = 64
"""Tokens below which no cutoff is proposed."""


@dataclass(frozen=True)
class Change:
    """Fields by dotted path with the values that they should have. needed: bytes that the run then needs."""

    fields: Mapping[str, Any]
    needed: int

    def __str__(self) -> str:
        said = " and ".join(f"{field} to {value}" for field, value in self.fields.items())
        return f"Set {said}: then it needs {self.needed / 1024**3:.1f} GiB."


def cheapest(spec: TrainSpec, needed: Callable[[TrainSpec], int], most: int, *, checkpointing: bool) -> Change | None:
    """The first change after which a run needs at most so many bytes; None: nothing here is enough.

    needed: estimates a changed spec. checkpointing: whether activations are recomputed already.
    """
    for fields in _proposals(spec, checkpointing=checkpointing):
        changed = applied(spec, fields)
        if changed is not None and (bytes_ := needed(changed)) <= most:
            return Change(fields, bytes_)
    return None


def applied(spec: TrainSpec, fields: Mapping[str, Any]) -> TrainSpec | None:
    """The spec with other values; None: they do not go with the rest of it."""
    values = spec.model_dump(mode="json")
    for path, value in fields.items():
        section, _, name = path.partition(".")
        values[section][name] = value
    try:
        return specs.parse(TrainSpec, values)
    except SpecError:
        return None


def _proposals(spec: TrainSpec, *, checkpointing: bool) -> Iterator[dict[str, Any]]:
    """Each kind of change alone, mildest first, then with all of the kinds before it. A cutoff loses parts of rows, so
    the longest one that is enough is looked for, alone or with all that costs less."""
    before: dict[str, Any] = {}
    for kind in (_recomputing(spec, checkpointing), list(_batches(spec)), _quantised(spec)):
        yield from kind
        yield from (before | each for each in kind if before)
        before |= kind[-1] if kind else {}
    for each in _cutoffs(spec):
        yield each
        yield before | each


def _recomputing(spec: TrainSpec, checkpointing: bool) -> list[dict[str, Any]]:
    can = ability(spec.method).checkpointing and not checkpointing
    return [{"training.gradient_checkpointing": "on"}] if can else []


def _batches(spec: TrainSpec) -> Iterator[dict[str, Any]]:
    """Smaller batches with the same effective size: the divisors of it, from the largest on."""
    size, accumulation = spec.training.batch_size, spec.training.accumulation
    for smaller in range(size - 1, 0, -1):
        if size * accumulation % smaller == 0:
            yield {"training.batch_size": smaller, "training.accumulation": size * accumulation // smaller}


def _quantised(spec: TrainSpec) -> list[dict[str, Any]]:
    can = ability(spec.method).nf4 and spec.quantization.kind in ("none", "int8")
    return [{"quantization.kind": "nf4"}] if can else []


def _cutoffs(spec: TrainSpec) -> Iterator[dict[str, Any]]:
    """Shorter rows: halves, in steps that are round."""
    length = spec.data.max_length // 2
    while length >= SHORTEST:
        yield {"data.max_length": length}
        length //= 2
