"""`studio data`, `studio templates` and `studio presets`: what there is to train with. Not here: training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from studio import specs
from studio.cli import output
from studio.errors import DataError, ModelError, StudioError, TemplateError

data = typer.Typer(help="Registered datasets.", no_args_is_help=True)
templates = typer.Typer(help="Prompt templates.", no_args_is_help=True)
presets = typer.Typer(help="Complete specs to copy and edit.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="One JSON value on stdout.")]
Name = Annotated[str, typer.Argument(metavar="NAME")]


@data.command("list")
def list_datasets(as_json: Json = False) -> None:
    """List the registered datasets."""
    from studio.data import registry

    found = registry.every()
    if as_json:
        output.emit([_dataset(each) for each in found])
        return
    headings = ("name", "rows", "format", "language", "title")
    output.table(headings, ((each.name, each.rows, each.format, each.language, each.title) for each in found))


@data.command("show")
def show_dataset(
    name: Name,
    start: Annotated[int, typer.Option(help="First row to show, from 0.", min=0)] = 0,
    count: Annotated[int, typer.Option(help="How many rows to show.", min=0, max=1000)] = 5,
    as_json: Json = False,
) -> None:
    """Show a dataset and some of its rows."""
    from studio.data import registry

    dataset = registry.get(name)
    rows = [_row(row) for row in registry.rows(dataset, start, count)]
    if as_json:
        output.emit(_dataset(dataset) | {"preview": rows})
        return
    for key, value in _dataset(dataset).items():
        if value not in ("", None):
            output.line(f"{key + ':':<13}{value}")
    for row in rows:
        output.line(f"row {row['row']}: {row['fault'] or json.dumps(row['values'], ensure_ascii=False, default=str)}")


@data.command("add")
def add_dataset(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="A .json, .jsonl, .csv, .tsv or .parquet file.")],
    name: Annotated[str | None, typer.Option(help="Name to register it under. Without: the file's own.")] = None,
    format: Annotated[str | None, typer.Option(help="How a row reads. Without: detected.")] = None,
    column: Annotated[
        list[str] | None, typer.Option("--column", metavar="ROLE=COLUMN", help="Say which column plays a role.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check a file and register it as a dataset."""
    from studio.data import registry

    columns = dict(_pair(item) for item in column or ()) or None
    dataset = registry.add(path, name or path.stem, format=format, columns=columns)
    if as_json:
        output.emit(_dataset(dataset))
    else:
        output.line(f"{dataset.name}: {dataset.rows:,} rows, format {dataset.format}")


@data.command("remove")
def remove_dataset(name: Name, as_json: Json = False) -> None:
    """Forget a dataset that you added."""
    from studio.data import registry

    registry.remove(name)
    if as_json:
        output.emit({"removed": name})
    else:
        output.line(f"{name} is removed.")


@templates.command("list")
def list_templates(as_json: Json = False) -> None:
    """List the prompt templates."""
    from studio import templates as all_templates

    found = all_templates.every()
    if as_json:
        output.emit([_template(each) for each in found])
    else:
        output.table(("name", "title", "families"), ((t.name, t.title, ", ".join(t.families)) for t in found))


@templates.command("show")
def show_template(name: Name, as_json: Json = False) -> None:
    """Print a template."""
    from studio import templates as all_templates

    template = all_templates.load(name)
    if as_json:
        output.emit(_template(template) | {"text": template.text})
    else:
        output.line(template.text.rstrip("\n"))


@templates.command()
def render(
    name: Name,
    messages: Annotated[Path, typer.Option(metavar="FILE", help='A JSON file: [{"role": …, "content": …}, …].')],
    model: Annotated[str | None, typer.Option(metavar="NAME", help="Use this model's special tokens.")] = None,
    generation_prompt: Annotated[
        bool, typer.Option("--generation-prompt", help="End where the answer begins.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write a conversation as the text that a model reads."""
    from studio import templates as all_templates

    turns = _conversation(messages)
    tokenizer = _tokenizer(model or specs.BUNDLED_MODEL) if model or name == all_templates.AUTO else None
    template = all_templates.resolve(name, tokenizer) if tokenizer else all_templates.load(name)
    specials = tokenizer.specials if tokenizer else None
    text = all_templates.render(template, turns, add_generation_prompt=generation_prompt, specials=specials)
    if as_json:
        output.emit({"template": name, "text": text})
    else:
        output.line(text)


@presets.command("list")
def list_presets(as_json: Json = False) -> None:
    """List the presets."""
    from studio import presets as all_presets

    names = list(all_presets.names())
    if as_json:
        output.emit(names)
    else:
        for name in names:
            output.line(name)


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


def _dataset(dataset: Any) -> dict[str, Any]:
    fields = ("name", "title", "rows", "format", "columns", "language", "licence", "shipped", "sha256", "description")
    return {name: getattr(dataset, name) for name in fields} | {"path": str(dataset.path)}


def _row(row: Any) -> dict[str, Any]:
    return {"row": row.number, "values": row.values, "fault": row.fault}


def _template(template: Any) -> dict[str, Any]:
    return {
        "name": template.name,
        "title": template.title,
        "families": list(template.families),
        "stop": list(template.stop),
        "source": template.source,
    }


def _pair(item: str) -> tuple[str, str]:
    role, separator, column = item.partition("=")
    if not separator or not role or not column:
        raise DataError(f"'{item}' is not of the form ROLE=COLUMN, such as response=answer.")
    return role, column


def _conversation(path: Path) -> list[Any]:
    """The messages in a JSON file. Raises: TemplateError: it holds something else."""
    from studio.data.example import Message

    try:
        turns = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise TemplateError(f"{path} cannot be read as JSON: {reason}.") from error
    shaped = isinstance(turns, list) and all(
        isinstance(turn, dict) and isinstance(turn.get("role"), str) and isinstance(turn.get("content"), str)
        for turn in turns
    )
    if not shaped or not turns:
        raise TemplateError(f'{path} must hold a list of messages such as {{"role": "user", "content": "Hello"}}.')
    return [Message(turn["role"], turn["content"]) for turn in turns]


def _tokenizer(model: str) -> Any:
    """The tokenizer of a model that lies on this machine. Raises: ModelError: it does not."""
    from studio.engine.models.resolve import peek
    from studio.templates import TextTokenizer

    found = peek(model)
    if not found.ready:
        raise ModelError(f"{model} is not on this machine yet. A first run or chat with it brings it here.")
    return TextTokenizer.from_folder(Path(found.where))
