"""`studio templates`: what comes with the studio, and your own. Not here: writing by one (studio.cli.rendering)."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from studio.cli import output, rendering
from studio.errors import StudioError, TemplateError

if TYPE_CHECKING:
    from studio.templates import Template, TextTokenizer
    from studio.templates.checking import Finding

app = typer.Typer(help="Prompt templates: list, look at, try, check, add your own.", no_args_is_help=True)
app.command()(rendering.render)

Json = Annotated[bool, typer.Option("--json", help="One JSON value on stdout.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="A template, as in: studio templates list.")]


@app.command("list")
def list_templates(as_json: Json = False) -> None:
    """List the prompt templates."""
    from studio import templates

    found = templates.every()
    if as_json:
        output.emit([_facts(each) for each in found])
    else:
        rows = ((each.name, each.title, each.origin, ", ".join(each.families)) for each in found)
        output.table(("name", "title", "origin", "families"), rows)
    for problem in templates.problems():
        output.note(problem)


@app.command()
def show(name: Name, as_json: Json = False) -> None:
    """Print a template."""
    from studio import templates

    template = templates.load(name)
    if as_json:
        output.emit(_facts(template) | {"text": template.text, "portable": template.portable})
    else:
        output.line(template.text.rstrip("\n"))


@app.command()
def check(
    name: Annotated[str, typer.Argument(metavar="NAME|FILE", help="A template, or a file that holds one.")],
    model: Annotated[str | None, typer.Option(metavar="NAME", help="Also whether it fits this model.")] = None,
    as_json: Json = False,
) -> None:
    """Tell what is wrong with a template. Fails if something is in the way of training with it."""
    from studio.templates import checking

    tokenizer = rendering.tokenizer(model) if model else None
    template = _chosen(name, tokenizer)
    found = checking.check(template, tokenizer)
    if as_json:
        output.emit({"template": template.name, "findings": _findings(found)})
    else:
        for each in found:
            output.line(f"{each.level}: {each.text}")
        if not found:
            output.line(f"Nothing is wrong with {template.name}.")
    if any(each.level == "error" for each in found):
        raise typer.Exit(1)


@app.command()
def add(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A chat template in Jinja.")],
    name: Annotated[str | None, typer.Option(metavar="NAME", help="Without: that of the file.")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Also if there is one of yours of this name.")] = False,
    as_json: Json = False,
) -> None:
    """Keep a template of your own, to train with."""
    from studio.templates import checking, library

    template = library.save(_stem(file) if name is None else name, _text(file), replace=replace)
    found = checking.check(template)
    if as_json:
        output.emit(_facts(template) | {"findings": _findings(found)})
    else:
        output.line(f"{template.name} is added. Train with it: --set template.name={template.name}")
        for each in found:
            output.note(f"{each.level}: {each.text}")


@app.command()
def remove(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Delete a template of your own."""
    from studio.templates import library

    library.own_named(name)
    question = f"Remove template {name}? What was trained with it stays."
    if not yes and not sys.stdin.isatty():
        raise StudioError(f"{question} There is no terminal to ask on: add --yes.")
    if not yes and not typer.confirm(question, err=True):
        raise typer.Exit(2)
    library.remove(name)
    if as_json:
        output.emit({"removed": name})
    else:
        output.line(f"{name} is removed.")


def _facts(template: Template) -> dict[str, Any]:
    return {
        "name": template.name,
        "title": template.title,
        "families": list(template.families),
        "origin": template.origin,
        "stop": list(template.stop),
        "system": template.system,
        "also": list(template.also),
        "source": template.source,
        "deviates": template.deviates,
    }


def _findings(found: list[Finding]) -> list[dict[str, str]]:
    return [{"kind": each.kind, "level": each.level, "text": each.text} for each in found]


def _chosen(name: str, tokenizer: TextTokenizer | None) -> Template:
    """The template of this name, or in this file. Raises: TemplateError: there is none."""
    from studio import templates

    path = Path(name)
    if name not in templates.names() and name != templates.AUTO and (path.suffix == ".jinja" or path.is_file()):
        return templates.Template(_stem(path), _text(path), origin="own")
    return rendering.resolved(name, tokenizer)


def _stem(path: Path) -> str:
    """A name that can be used, after that of the file."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", path.stem).strip("._-")[:64] or "mine"


def _text(path: Path) -> str:
    """Raises: TemplateError: the file cannot be read, or is no text."""
    from studio.templates.library import MAX_BYTES

    try:
        with path.open(encoding="utf-8-sig") as file:
            return file.read(MAX_BYTES + 1)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text in UTF-8"
        raise TemplateError(f"{path} cannot be read: {reason}. Name a file that holds a chat template.") from error
