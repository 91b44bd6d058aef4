"""The runs and checkpoints that the Evaluate, Chat and Export tabs choose from. Not here: what is done with one."""

from __future__ import annotations

import gradio as gr

from studio.errors import JobError
from studio.jobs.monitor import Monitor
from studio.serving import voices


def choices(monitor: Monitor) -> list[tuple[str, str]]:
    """(label, `RUN` or `RUN@STEP`) of every adapter there is, newest run first."""
    return [(voice.label, voice.model) for view in monitor.views("train") for voice in voices.of_run(view)]


def newest(monitor: Monitor) -> str | None:
    """The adapter of the newest finished run, else the newest checkpoint, else None."""
    values = [value for _, value in choices(monitor)]
    return next((value for value in values if "@" not in value), values[0] if values else None)


def asked_for(monitor: Monitor, request: gr.Request | None) -> str | None:
    """The adapter of the run in the page's address, else the newest."""
    run = request.query_params.get("run") if request else None
    values = [value for _, value in choices(monitor)]
    return next((value for value in values if run and value.partition("@")[0] == run), newest(monitor))


def split(value: str | None) -> dict[str, str | int | None]:
    """The fields `run` and `checkpoint` of a spec. Raises: JobError: nothing is chosen."""
    if not value:
        raise JobError("No run is chosen. Train one first, or choose one in the list.")
    run, _, step = value.partition("@")
    return {"run": run, "checkpoint": int(step) if step else None}
