"""`studio jobs`: list, show, stop, resume and read jobs of every kind. Not here: starting new ones (runs.py)."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from studio.cli import output
from studio.cli.session import Session

app = typer.Typer(help="List, show, stop and resume jobs.", no_args_is_help=True)

Id = Annotated[str, typer.Argument(metavar="JOB", help="Id of the job, as in: studio jobs list.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON value on stdout.")]


@app.command("list")
def list_jobs(
    kind: Annotated[
        str | None, typer.Option(metavar="train|evaluate|export|audit", help="Only jobs of this kind.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List all jobs, newest first."""
    from studio.cli.follow import summary
    from studio.jobs import folder as folders
    from studio.jobs.monitor import view_of

    found = [(view_of(folder), folder) for folder in folders.every()]
    chosen = [pair for pair in found if kind is None or pair[0].kind == kind]
    chosen.sort(key=lambda pair: pair[0].created, reverse=True)
    if as_json:
        output.emit([summary(view, folder) for view, folder in chosen])
    elif not chosen:
        output.note("No jobs yet. Start one: studio train --preset identity")
    else:
        headings = ("id", "kind", "state", "step", "created")
        output.table(headings, ((v.id, v.kind, v.state, _steps(v), output.when(v.created)) for v, _ in chosen))


@app.command()
def show(job: Id, as_json: Json = False) -> None:
    """Show one job: state, progress, scores, checkpoints, notes."""
    from studio.jobs.folder import find
    from studio.jobs.monitor import view_of

    folder = find(job)
    view = view_of(folder)
    if as_json:
        output.emit(_details(view, folder))
        return
    for name, value in _lines(view, folder):
        if value not in ("", None):
            output.line(f"{name + ':':<13}{value}")


@app.command()
def stop(job: Id, as_json: Json = False) -> None:
    """Ask a job to save and end at its next step."""
    from studio.jobs import control
    from studio.jobs.monitor import view_of

    folder = control.stop(job)
    state = view_of(folder).state
    if as_json:
        output.emit({"id": folder.id, "state": state, "folder": str(folder.path)})
    elif state == "stopped":
        output.line(f"{folder.id} is taken out of the queue.")
    else:
        output.line(f"{folder.id} saves and stops at its next step.")


@app.command()
def resume(
    context: typer.Context,
    job: Id,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object per line: each event, then the end.")
    ] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Start it and return at once.")] = False,
    rate: Annotated[
        float | None, typer.Option(metavar="SHARE", help="Go on at this share of the learning rate, such as 0.5.")
    ] = None,
) -> None:
    """Go on with a stopped or broken job from its newest checkpoint."""
    from studio.cli import follow
    from studio.jobs import control
    from studio.jobs.folder import find

    session: Session = context.obj
    events = find(job).events
    offset = events.stat().st_size if events.exists() else 0
    folder = control.resume(job, executor=session.get_executor(), rate=rate)
    if detach:
        follow.started(folder, as_json=as_json)
        return
    raise typer.Exit(follow.follow(folder, as_json=as_json, offset=offset))


@app.command()
def move(
    job: Id,
    to: Annotated[int, typer.Option(help="Its new place in the queue; 1 is the next to begin.", min=1)] = 1,
    as_json: Json = False,
) -> None:
    """Change the place of a run that waits. `stop` takes it out of the queue."""
    from studio.jobs import queue

    order = [folder.id for folder in queue.move(job, to)]
    if as_json:
        output.emit(order)
    else:
        output.table(("place", "id"), enumerate(order, start=1))


@app.command()
def logs(
    job: Id,
    lines: Annotated[int, typer.Option(help="How many of the last lines.", min=1, max=100_000)] = 200,
    as_json: Json = False,
) -> None:
    """Print the end of a job's log."""
    from studio.jobs.folder import find
    from studio.jobs.monitor import log_tail

    folder = find(job)
    text = log_tail(folder, lines)
    if as_json:
        output.emit({"id": folder.id, "log": str(folder.log), "text": text})
    elif text:
        output.line(text)
    else:
        output.note(f"{folder.log} is empty.")


def _steps(view: Any) -> str:
    return f"{view.step}/{view.total_steps}" if view.total_steps else ""


def _details(view: Any, folder: Any) -> dict[str, Any]:
    from studio.cli.follow import summary

    return summary(view, folder) | {
        "attempt": view.attempt,
        "phase": view.phase.name if view.phase else None,
        "loss": view.steps[-1].loss if view.steps else None,
        "seconds_left": view.seconds_left,
        "checkpoints": list(view.saved),
        "scores": [each.model_dump(include={"step", "subject", "scores"}) for each in view.measured],
        "samples": [each.model_dump(include={"step", "prompt", "answer"}) for each in view.samples],
        "notes": list(view.notes),
        "message": view.ended.message if view.ended else "",
        "path": view.ended.path if view.ended else None,
        "spec": view.spec,
    }


def _lines(view: Any, folder: Any) -> list[tuple[str, Any]]:
    last = view.steps[-1] if view.steps else None
    ended = view.ended
    scores = [
        (f"{each.subject}{'' if each.step is None else f' @{each.step}'}", _scores(each.scores))
        for each in view.measured[-4:]
    ]
    return [
        ("id", view.id),
        ("kind", view.kind),
        ("state", f"{view.state}, place {view.place}" if view.place else view.state),
        ("created", output.when(view.created)),
        ("phase", view.phase.name if view.live and view.phase else ""),
        ("step", _steps(view)),
        ("loss", output.number(last.loss) if last else ""),
        ("time left", f"{view.seconds_left:.0f} s" if view.seconds_left is not None else ""),
        ("checkpoints", ", ".join(map(str, view.saved))),
        *scores,
        *(("note", note) for note in view.notes),
        ("message", ended.message if ended else ""),
        ("outcome", ended.path if ended else ""),
        ("folder", folder.path),
    ]


def _scores(scores: dict[str, float]) -> str:
    return "  ".join(f"{name} {output.number(score)}" for name, score in scores.items())
