"""`studio presets`: complete specs to copy and edit. Not here: training with one (studio.cli.runs)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from studio.cli import output
from studio.errors import StudioError

presets = typer.Typer(help="Complete specs to copy and edit.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="One JSON value on stdout.")]
Name = Annotated[str, typer.Argument(metavar="NAME")]


@presets.command("list")
def list_presets(as_json: Json = False) -> None:
    """List the presets."""
    from studio import presets as all_presets

    described = all_presets.described()
    if as_json:
        output.emit([{"preset": name, "description": text} for name, text in described.items()])
    else:
        output.table(["preset", "what it is for"], described.items())


@presets.command("copy")
def copy_preset(
    name: Name,
    target: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="Without: NAME.yaml in this folder.")] = None,
    as_json: Json = False,
) -> None:
    """Copy a preset into a file of yours, to edit it."""
    from studio import presets as all_presets

    text = all_presets.text(name)
    path = target or Path(f"{name}.yaml")
    try:
        with path.open("x", encoding="utf-8") as file:  # an existing file may hold somebody's work
            file.write(text)
    except OSError as error:
        raise StudioError(f"{path} cannot be written: {error.strerror}. Name another file.") from error
    if as_json:
        output.emit({"preset": name, "path": str(path.absolute())})
    else:
        output.line(f"{path}: edit it, then: studio train {path}")
