"""`studio estimate`: what a training run will need, before it starts. Not here: starting it (studio.cli.runs)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from studio.cli import output
from studio.cli.methods import size
from studio.cli.runs import File, Preset, Set, train_spec

if TYPE_CHECKING:
    from studio.engine.fit import Fit

Json = Annotated[bool, typer.Option("--json", help="One JSON value on stdout.")]
PARTS = {
    "weights": "base",
    "adapter": "adapter",
    "gradients": "gradients",
    "optimizer": "optimiser",
    "activations": "activations",
    "logits": "output head and loss",
    "process": "program and allocator",
}
"""The words for each part."""


def estimate(
    spec: File = None,
    preset: Preset = None,
    changes: Set = None,
    as_json: Json = False,
) -> None:
    """Tell what a training run will need of memory, disk and time, and what would make it fit."""
    from studio.jobs.needs import needs

    fit = needs(train_spec(spec, preset, changes))
    if as_json:
        output.emit(facts(fit))
        return
    output.table(("memory", "GiB"), ((PARTS[name], _gib(getattr(fit.parts, name))) for name in fit.parts.names()))
    output.line()
    for line in lines(fit):
        output.line(line)


def facts(fit: Fit) -> dict[str, Any]:
    """What programs learn: everything, and the sums."""
    sums = {"needed": fit.needed, "resident": fit.parts.resident, "disk_needed": fit.disk.needed}
    said = {"advice": str(fit.change)} if fit.change else {}
    return asdict(fit) | sums | said


def lines(fit: Fit) -> Iterator[str]:
    """What people read below the parts, one fact a line."""
    place = "GPU memory" if fit.setting.gpu else "memory"
    yield f"{_gib(fit.needed)} GiB of {_gib(fit.free)} GiB free {place}: {fit.verdict}"
    if fit.change is not None:
        yield str(fit.change)
    elif fit.verdict != "fits":
        yield "No setting here makes it fit. Choose a smaller base."
    counted = "as an audit counted" if fit.rows_known else "if every row reaches data.max_length"
    yield f"largest batch: {fit.batch.rows} rows with {fit.batch.tokens:,} tokens, {counted}"
    disk = fit.disk
    room = "" if disk.enough else ", which is not enough. Lower training.save_total_limit"
    checkpoints = f"{disk.checkpoints} checkpoint{'s' if disk.checkpoints != 1 else ''} of {size(disk.checkpoint)}"
    yield f"disk: {size(disk.needed)} of {size(disk.free)} free, for {checkpoints}, the outcome and the rows{room}"
    yield _time(fit)


def _time(fit: Fit) -> str:
    if fit.seconds is None:
        return "time: not known before the first steps"
    return f"time: {fit.seconds / 60:.0f} min for {fit.tokens:,.0f} tokens at {fit.tokens_per_s:,.0f} tokens/s"


def _gib(count: int) -> str:
    return f"{count / 1024**3:.2f}"
