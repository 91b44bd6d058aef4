"""The story of an estimate: what a run needs, what is free, the verdict, and what would make it fit.

Not here: each part (parts), and what earlier jobs on this machine tell of rows and pace (studio.jobs.needs).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from studio import hardware
from studio.engine.counting.heads import headed
from studio.engine.counting.parameters import Count, counted
from studio.engine.counting.shapes import shapes_of
from studio.engine.fast.rules import holds_narrow
from studio.engine.fit import pace
from studio.engine.fit.batches import Batch, Rows, largest
from studio.engine.fit.blocks import Model
from studio.engine.fit.changes import Change, cheapest
from studio.engine.fit.disk import Disk, disk
from studio.engine.fit.fast import largest_pass
from studio.engine.fit.parts import Parts, Setting, parts, takes_fast_path
from studio.hardware import Hardware
from studio.specs import TrainSpec

Verdict = Literal["fits", "tight", "does not fit"]
COMFORTABLE = 0.85
"""Share of the free memory up to which a run fits: estimates are up to 15 % off. Above it is tight, above 1 it does not
fit."""
GIB = 1024**3


@dataclass(frozen=True)
class Machine:
    """hardware: what there is. free: bytes of memory that the device has free now."""

    hardware: Hardware
    free: int

    @classmethod
    def here(cls) -> Machine:
        found = hardware.detect()
        return cls(found, hardware.free_bytes(found))


@dataclass(frozen=True)
class Fit:
    """What a run needs and what there is.

    parts: bytes of memory. setting: how it will be worked. batch: the largest one. rows_known: whether an audit counted
    the rows; else each is taken to be as long as the cutoff. free: bytes of the device. change: the cheapest one with
    which it fits, where it does not fit well. tokens, steps and seconds: of the whole run; None: not known before it.
    """

    parts: Parts
    setting: Setting
    batch: Batch
    rows_known: bool
    free: int
    verdict: Verdict
    change: Change | None
    disk: Disk
    tokens: float | None
    steps: int | None
    seconds: float | None
    tokens_per_s: float | None

    @property
    def needed(self) -> int:
        return self.parts.needed


def estimate(
    spec: TrainSpec,
    *,
    rows: Rows | None = None,
    tokens_per_s: float | None = None,
    row_count: int | None = None,
    labels: int | None = None,
    machine: Machine | None = None,
    fast: bool | None = None,
) -> Fit:
    """What a run will need.

    rows: what an audit counted of its rows. tokens_per_s: of earlier runs like it. row_count: how many rows there are,
    where they were not counted. labels: of a run that classifies; without it they are counted in its datasets. fast:
    whether it takes the fast path; None: as the engine decides.
    Raises: SpecError: the method does not fit the model. NotHere: the model is not on this machine yet. ModelError: its
        files tell too little. DataError: the labels cannot be counted.
    """
    known = _Known.of(spec, rows, labels, machine or Machine.here(), fast)
    found, setting, batch = known.parts(spec)
    verdict = judged(found.needed, known.machine.free)
    steps = pace.steps(spec, rows)
    return Fit(
        parts=found,
        setting=setting,
        batch=batch,
        rows_known=rows is not None,
        free=known.machine.free,
        verdict=verdict,
        change=None if verdict == "fits" else known.change(spec, setting, verdict),
        disk=disk(
            spec,
            known.count,
            optimizer=setting.optimizer,
            steps=steps,
            tokens=rows.total if rows is not None else None,
            most_tokens=(row_count or 0) * spec.data.max_length,
        ),
        tokens=pace.tokens(spec, rows),
        steps=steps,
        seconds=pace.seconds(spec, rows, tokens_per_s),
        tokens_per_s=tokens_per_s,
    )


def judged(needed: int, free: int) -> Verdict:
    """The verdict on bytes needed and free."""
    if needed <= COMFORTABLE * free:
        return "fits"
    return "tight" if needed <= free else "does not fit"


@dataclass(frozen=True)
class _Known:
    """What no change of a spec changes."""

    model: Model
    count: Count
    rows: Rows | None
    machine: Machine
    fast: bool | None

    @classmethod
    def of(cls, spec: TrainSpec, rows: Rows | None, labels: int | None, machine: Machine, fast: bool | None) -> _Known:
        shapes = shapes_of(spec.model.name)
        model = Model.of(spec, headed(spec, shapes, labels))
        return cls(model, counted(spec, shapes, labels=labels), rows, machine, fast)

    def parts(self, spec: TrainSpec) -> tuple[Parts, Setting, Batch]:
        chosen = hardware.choices(spec, self.machine.hardware)
        precisions = [chosen[field].value for field in ("training.precision", "model.dtype")]
        fast = takes_fast_path(spec, precisions) if self.fast is None else self.fast
        setting, rows = setting_of(spec, self.machine.hardware, fast=fast), self._cut(spec)
        batch = largest_pass(spec, rows, gpu=setting.gpu) if fast else largest(spec, rows)
        return parts(spec, self.model, self.count, batch, setting), setting, batch

    def change(self, spec: TrainSpec, setting: Setting, verdict: Verdict) -> Change | None:
        """One with which it fits; where it does not fit at all, also one with which it is tight."""

        def needed(changed: TrainSpec) -> int:
            return self.parts(changed)[0].needed

        on = setting.checkpointing
        found = cheapest(spec, needed, int(COMFORTABLE * self.machine.free), checkpointing=on)
        if found is None and verdict == "does not fit":
            found = cheapest(spec, needed, self.machine.free, checkpointing=on)
        return found

    def _cut(self, spec: TrainSpec) -> Rows | None:
        return None if self.rows is None else self.rows.cut(spec.data.max_length)


def setting_of(spec: TrainSpec, machine: Hardware, *, fast: bool) -> Setting:
    """How a run will be worked on a machine."""
    chosen: Mapping[str, Any] = hardware.choices(spec, machine)
    dtype, precision = (chosen[field].value for field in ("model.dtype", "training.precision"))
    gpu = machine.gpu is not None
    return Setting(
        dtype=dtype,
        precision=precision,
        optimizer=chosen["training.optimizer"].value,
        checkpointing=chosen["training.gradient_checkpointing"].value == "on",
        gpu=gpu,
        fast=fast,
        narrowed=fast and holds_narrow(spec, (dtype, precision), gpu=gpu),
    )
