"""`studio templates` and `studio presets`: what there is to train with beside data. Not here: training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from studio import specs
from studio.cli import output
from studio.errors import ModelError, StudioError, TemplateError

templates = typer.Typer(help="Prompt templates.", no_args_is_help=True)
presets = typer.Typer(help="Complete specs to copy and edit.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="One JSON value on stdout.")]
Name = Annotated[str, typer.Argument(metavar="NAME")]


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


def _template(template: Any) -> dict[str, Any]:
    return {
        "name": template.name,
        "title": template.title,
        "families": list(template.families),
        "stop": list(template.stop),
        "source": template.source,
    }


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
