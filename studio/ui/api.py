"""The named API of the page: typed functions for scripts, listed under "Use via API".

Not here: what they do (studio.jobs, studio.data); the page's own events stay private.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from studio import specs
from studio.errors import Fault, SpecError
from studio.jobs import control
from studio.jobs.monitor import JobView, view_of
from studio.ui.page import Page, guarded


def register(page: Page) -> None:
    """Add the functions to the page that is being built."""

    def list_jobs() -> list[dict]:
        """Every job, newest first: id, kind, name, state, step, total_steps, loss, created."""
        return [summary(view) for view in page.monitor.refresh().views()]

    def job(job_id: str) -> dict:
        """One job: its summary, spec, validation losses, samples, notes and message."""
        return details(page.monitor.refresh().need(_text(job_id, "job_id")))

    def start_training(spec_yaml: str) -> dict:
        """Start a training run of a spec in YAML and return its summary."""
        spec = specs.parse(specs.TrainSpec, specs.read_yaml(_text(spec_yaml, "spec_yaml"), "spec_yaml"))
        return summary(view_of(control.submit(spec, executor=page.executor)))

    def stop_job(job_id: str) -> dict:
        """Ask a job to save and end at its next step; returns its summary."""
        return summary(view_of(control.stop(_text(job_id, "job_id"))))

    def resume_job(job_id: str) -> dict:
        """Go on with a stopped, failed or interrupted job; returns its summary."""
        return summary(view_of(control.resume(_text(job_id, "job_id"), executor=page.executor)))

    def list_datasets() -> list[dict]:
        """Every registered dataset: name, title, format, rows."""
        from studio.data import registry

        return [{key: getattr(each, key) for key in ("name", "title", "format", "rows")} for each in registry.every()]

    for function in (list_jobs, job, start_training, stop_job, resume_job, list_datasets):
        gr.api(guarded(function), api_name=function.__name__, concurrency_limit=4)


def _text(value: Any, name: str) -> str:
    """The value itself if it is a text: gradio checks no type that a function is annotated with."""
    if not isinstance(value, str):
        raise SpecError([Fault(name, f"must be text, but is {type(value).__name__}.")])
    return value


def summary(view: JobView) -> dict[str, Any]:
    """A job in one line."""
    return {
        "id": view.id,
        "kind": view.kind,
        "name": view.name,
        "state": view.state,
        "step": view.step,
        "total_steps": view.total_steps,
        "loss": view.steps[-1].loss if view.steps else None,
        "created": view.created,
    }


def details(view: JobView) -> dict[str, Any]:
    """A job with what it was asked and what it told, its steps left out."""
    return summary(view) | {
        "spec": view.spec,
        "measured": [each.model_dump(mode="json") for each in view.measured],
        "samples": [each.model_dump(mode="json") for each in view.samples],
        "saved": list(view.saved),
        "notes": list(view.notes),
        "message": view.ended.message if view.ended else "",
    }
