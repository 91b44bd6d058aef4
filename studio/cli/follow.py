"""Shows a job while it runs, as JSON lines or as a progress bar, and turns Ctrl-C into a stop that saves.

Exit status: 0 finished, 1 failed, 2 stopped, 130 left running by a second Ctrl-C. Not here: starting the job.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

from studio.cli import output
from studio.errors import JobError
from studio.events import Event, Measured, Note, Phase, Plan, Preflight, Sample, Saved, Step
from studio.jobs import control
from studio.jobs.folder import JobFolder
from studio.jobs.monitor import JobView, view_of

STATUS = {"finished": 0, "failed": 1, "stopped": 2}
LEFT_RUNNING = 130


def summary(view: JobView, folder: JobFolder) -> dict[str, Any]:
    """What a list of jobs says about one."""
    return {
        "id": view.id,
        "kind": view.kind,
        "state": view.state,
        "folder": str(folder.path),
        "name": view.name,
        "created": view.created,
        "step": view.step,
        "total_steps": view.total_steps,
    }


def started(folder: JobFolder, *, as_json: bool) -> None:
    """Say that a job was started and is not followed."""
    view = view_of(folder)
    if as_json:
        output.emit({"id": folder.id, "state": view.state, "folder": str(folder.path)})
    elif view.place:
        output.line(f"{folder.id} waits at place {view.place} of the queue. See it: studio jobs show {folder.id}")
    else:
        output.line(f"{folder.id} has started. See it: studio jobs show {folder.id}")


def follow(
    folder: JobFolder,
    *,
    as_json: bool,
    offset: int = 0,
    outcome: Callable[[JobFolder, str, str], int] | None = None,
) -> int:
    """Show a job's events until it ends, then its outcome. offset: skip this much of older attempts.

    outcome: (job, state, message) -> exit status; tells the outcome in place of the usual words.
    Returns: the exit status.
    """
    tell = outcome or partial(_outcome, as_json=as_json)
    if place := view_of(folder).place:
        output.note(f"{folder.id} waits at place {place} of the queue, and begins when the runs before it have ended.")
    try:
        with _stop_on_interrupt(folder), _shown(folder, as_json) as show:
            for event in control.follow(folder, offset=offset):
                show(event)
    except KeyboardInterrupt:
        output.note(f"{folder.id} goes on without this terminal. See it: studio jobs show {folder.id}")
        return LEFT_RUNNING
    except JobError as error:
        return tell(folder, "failed", str(error))
    ended = view_of(folder).ended
    return tell(folder, ended.state, ended.message)


def _outcome(folder: JobFolder, state: str, message: str, *, as_json: bool) -> int:
    if as_json:
        failure = {"error": message} if state == "failed" else {}
        output.emit({"id": folder.id, "state": state, "folder": str(folder.path)} | failure)
    if state == "failed":
        output.note(message)
    elif not as_json:
        for line in _report(view_of(folder), folder, state):
            output.line(line)
    return STATUS[state]


def _report(view: JobView, folder: JobFolder, state: str) -> Iterator[str]:
    """The last lines of a followed job, for people."""
    if state == "stopped":
        yield f"{view.id} is stopped. Go on: studio jobs resume {view.id}"
    elif view.kind == "train":
        stage = ((view.spec or {}).get("stage") or {}).get("kind")
        following = (
            "Measure it: studio evaluate" if stage in ("classify", "reward") else "Talk to it: studio chat --adapter"
        )
        yield f"{view.id} is finished. {following} {view.id}"
    elif view.kind == "evaluate":
        scores = {measured.subject: measured.scores for measured in view.measured}
        for name in dict.fromkeys(name for each in scores.values() for name in each):
            figures = "  ".join(f"{subject} {output.number(each.get(name))}" for subject, each in scores.items())
            yield f"{name}: {figures}"
        yield f"{view.id} is finished. Its answers: {folder.predictions}"
    else:
        yield f"{view.id} is finished. Written to {view.ended.path if view.ended else folder.path}"


@contextmanager
def _stop_on_interrupt(folder: JobFolder) -> Iterator[None]:
    """The first Ctrl-C asks the job to save and end; the second ends the following and leaves the job alone."""
    asked = False

    def interrupted(*_: Any) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        output.note(f"{folder.id} saves and stops at its next step. Press Ctrl-C again to leave it running.")
        with suppress(JobError):  # it ended by itself just now
            control.stop(folder.id)

    previous = signal.signal(signal.SIGINT, interrupted)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


@contextmanager
def _shown(folder: JobFolder, as_json: bool) -> Iterator[Callable[[Event], None]]:
    if as_json:
        yield lambda event: print(event.model_dump_json(exclude_none=True), flush=True)
    elif sys.stderr.isatty():
        with _bar(folder) as show:
            yield show
    else:
        yield _Lines().show


class _Lines:
    """Progress without a terminal: a line at each twentieth of the way, and one for all else that matters."""

    def __init__(self) -> None:
        self._total: int | None = None
        self._told = -1
        self._phase = ""

    def show(self, event: Event) -> None:
        if isinstance(event, Plan):
            self._total = event.total_steps
        if isinstance(event, Step):
            part = event.step * 20 // self._total if self._total else event.step
            if part != self._told:
                output.note(f"step {event.step}{f'/{self._total}' if self._total else ''}  {_figures(event)}")
            self._told = part
        elif isinstance(event, Phase):
            if event.name != self._phase:
                output.note(f"{event.name}…")
            self._phase = event.name
        elif text := _said(event):
            output.note(text)


@contextmanager
def _bar(folder: JobFolder) -> Iterator[Callable[[Event], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.text import Text

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[figures]}", markup=False),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("starting", total=None, figures="")

        def show(event: Event) -> None:
            match event:
                case Plan():
                    progress.reset(task, description="train", total=event.total_steps)
                case Step():
                    progress.update(task, description="train", completed=event.step, figures=_figures(event))
                case Phase() if event.name != "train":
                    progress.update(task, description=event.name, total=event.total, completed=event.done or 0)
            if text := _said(event):
                console.print(Text(output.plain(text)))

        yield show


def _figures(step: Step) -> str:
    speed = f"  {step.tokens_per_s:,.0f} tokens/s" if step.tokens_per_s else ""
    return f"loss {step.loss:.4f}  lr {step.learning_rate:.2e}{speed}"


def _said(event: Event) -> str:
    """An event in one line; empty for those that a bar shows already."""
    match event:
        case Plan():
            held = f", {event.validation_rows:,} held out" if event.validation_rows else ""
            return (
                f"{event.rows:,} rows{held}, {event.total_steps:,} steps of {event.effective_batch_size} rows, "
                f"{event.trainable_parameters:,} of {event.total_parameters:,} parameters, on {event.device}; "
                + ("fast path" if event.path == "fast" else f"trl's own steps ({event.path_why})")
                + (f" with kernels {', '.join(event.kernels)}" if event.kernels else "")
            )
        case Preflight():
            about = f", about {event.seconds_in_all / 60:,.1f} min in all" if event.seconds_in_all else ""
            return (
                f"preflight: {event.tokens:,} tokens in {event.seconds:.1f} s, {event.peak_gib:.1f} GiB at most, "
                f"{event.free_gib:.1f} GiB left{about}"
            )
        case Measured():
            scores = "  ".join(f"{name} {output.number(score)}" for name, score in event.scores.items())
            return f"{f'step {event.step}  ' if event.step is not None else ''}{event.subject}: {scores}"
        case Sample():
            prompt, answer = output.one_line(event.prompt, 60), output.one_line(event.answer, 100)
            return f"step {event.step}  {prompt} → {answer}"
        case Saved():
            return f"step {event.step}  checkpoint saved"
        case Note():
            return f"note: {event.text}"
        case _:
            return ""
