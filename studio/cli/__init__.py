"""The `studio` command: everything that the page can do, for shells and scripts.

    studio train identity.yaml --set training.max_steps=40      studio jobs list
    studio estimate identity.yaml --set training.batch_size=8   studio presets list
    studio chat --adapter RUN                                   studio export RUN --format merged

With --json, stdout carries JSON and nothing else. Exit status: 0 done, 1 an error, 2 stopped or wrong usage, 130
interrupted. Each command imports what it needs when it runs, so that `studio --help` is immediate. Not here: any work;
jobs run in processes of their own.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from studio.cli import chat, data, estimating, jobs, library, methods, runs, serving, templates
from studio.cli.session import Session
from studio.errors import StudioError
from studio.home import home, refused

app = typer.Typer(
    name="studio",
    help="Fine-tune a language model, compare it with its base, and export it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command()(runs.train)
app.command()(estimating.estimate)
app.command()(runs.evaluate)
app.command()(runs.export)
app.command()(chat.chat)
app.command()(serving.serve)
app.add_typer(jobs.app, name="jobs")
app.add_typer(data.app, name="data")
app.add_typer(templates.app, name="templates")
app.add_typer(library.presets, name="presets")
app.add_typer(methods.methods, name="methods")
app.add_typer(methods.stages, name="stages")


_OF_THE_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}


@app.command()
def ui(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65535)] = 7860,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Do not open a browser.")] = False,
) -> None:
    """Open the studio in a browser."""
    from studio.jobs.executors import local

    local.warm()  # imports the engine meanwhile
    from studio.ui.app import launch

    launch(host=host, port=port, browser=not no_browser)


def main(arguments: Sequence[str] | None = None, *, session: Session | None = None) -> None:
    """Run one command and exit. session: what tests hand in instead of real workers and a real server."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        app(given, obj=session or Session(), prog_name="studio")
    except StudioError as error:
        _fail(str(error), as_json="--json" in given)
    except OSError as error:
        if error.errno not in _OF_THE_DISK:
            raise
        place = Path(error.filename) if error.filename else home().path
        _fail(
            f"{refused(error, place)}. Free some space or rights, or set STUDIO_HOME to another disk; then try again.",
            as_json="--json" in given,
        )


def _fail(text: str, *, as_json: bool) -> None:
    from studio.cli import output

    if as_json:
        output.emit({"error": text})
    output.note(text)
    sys.exit(1)
