"""`studio train`, `evaluate` and `export`: options to a spec, a spec to a job. Not here: what a job does."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from studio import specs
from studio.cli.session import Session
from studio.errors import Fault, SpecError

Set = Annotated[list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="Change a field. Repeatable.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object per line on stdout: each event, then the end.")]
File = Annotated[Path | None, typer.Argument(metavar="[SPEC.yaml]", help="A spec, as `studio presets` has.")]
Preset = Annotated[str | None, typer.Option(metavar="NAME", help="Start from a preset instead of a file.")]
Detach = Annotated[bool, typer.Option("--detach", help="Start it and return at once.")]
Run = Annotated[str, typer.Argument(metavar="RUN", help="Id of the training run, as in: studio jobs list.")]
Checkpoint = Annotated[int | None, typer.Option(help="Step of a checkpoint. Without: the finished adapter.")]


def train(
    context: typer.Context,
    spec: File = None,
    preset: Preset = None,
    changes: Set = None,
    reward_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE.py", help="Code with reward(prompts, completions, reference, **more), for GRPO."),
    ] = None,
    as_json: Json = False,
    detach: Detach = False,
) -> None:
    """Train a model or an adapter."""
    _start(context, train_spec(spec, preset, changes), as_json, detach, code=reward_file)


def evaluate(
    context: typer.Context,
    run: Run,
    checkpoint: Checkpoint = None,
    dataset: Annotated[str | None, typer.Option(help="Registered dataset. Without: what the run held out.")] = None,
    max_samples: Annotated[int | None, typer.Option(help="Measure at most this many rows.")] = None,
    no_generate: Annotated[bool, typer.Option("--no-generate", help="Only the scores, no answers.")] = False,
    changes: Set = None,
    as_json: Json = False,
    detach: Detach = False,
) -> None:
    """Measure a run's adapter beside its base."""
    given = {
        "checkpoint": checkpoint,
        "dataset": dataset,
        "max_samples": max_samples,
        "generate": False if no_generate else None,
    }
    _start(context, _spec(specs.EvaluateSpec, run, given, changes), as_json, detach)


def export(
    context: typer.Context,
    run: Run,
    format: Annotated[str | None, typer.Option(metavar="merged|adapter", help="Whole weights, or the adapter.")] = None,
    dtype: Annotated[str | None, typer.Option(metavar="bf16|fp16|fp32", help="Precision of merged weights.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Target folder. It must not exist yet.")] = None,
    checkpoint: Checkpoint = None,
    changes: Set = None,
    as_json: Json = False,
    detach: Detach = False,
) -> None:
    """Write a run to a folder that others can load."""
    given = {"format": format, "dtype": dtype, "out": str(out) if out else None, "checkpoint": checkpoint}
    _start(context, _spec(specs.ExportSpec, run, given, changes), as_json, detach)


def train_spec(file: Path | None, preset: str | None, changes: list[str] | None) -> specs.TrainSpec:
    """The spec of a file or a preset, else the defaults, with changes."""
    if file and preset:
        raise typer.BadParameter("give a file or a preset, not both")
    values: dict[str, Any] = {}
    if preset:
        from studio import presets

        values = specs.read_yaml(presets.text(preset), preset)
    elif file:
        values = specs.read_yaml(_text(file), str(file))
    return specs.parse(specs.TrainSpec, specs.with_overrides(values, changes or ()))


def _spec(kind: type, run: str, given: dict[str, Any], changes: list[str] | None) -> Any:
    """Options that were not given are left to the spec's own defaults."""
    values = {"run": run} | {field: value for field, value in given.items() if value is not None}
    return specs.parse(kind, specs.with_overrides(values, changes or ()))


def _start(context: typer.Context, spec: Any, as_json: bool, detach: bool, *, code: Path | None = None) -> None:
    from studio.cli import follow
    from studio.jobs import control

    session: Session = context.obj
    folder = control.submit(spec, executor=session.get_executor(), code=code)
    if detach:
        follow.started(folder, as_json=as_json)
        return
    if not as_json:
        from studio.cli import output

        output.note(f"{folder.id} in {folder.path}")
    raise typer.Exit(follow.follow(folder, as_json=as_json))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise SpecError([Fault(str(path), f"cannot be read: {reason}.")]) from error
